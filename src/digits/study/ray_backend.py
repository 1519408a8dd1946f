"""The backend that runs trials with Ray, here or on a cluster: the only part that knows Ray."""

import gc
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import digits
from digits import DigitsError
from digits.study.results import Row
from digits.study.spec import Range, Search
from digits.study.trial import Metrics, TrialPrunedError
from digits.tracking.machine import machine

# Without these, Ray sends usage statistics, writes three logs for each trial, and stops at a trial
# that fails before its first metric.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
os.environ.update(SETTINGS)

try:
    import ray
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch
except ModuleNotFoundError as error:
    raise DigitsError(
        f"{error.name} is not installed: `make .venv/study.done` installs what a study needs"
    ) from None

Config = dict[str, Any]
END_TIMEOUT = ANSWER_TIMEOUT = 5  # seconds
ROW, FAILURE, TRIAL = "row", "failure", "trial"


@contextmanager
def started(address: str | None, workers: int | None, threads: int) -> Iterator[int]:
    """Start Ray on this machine, or connect to the cluster at an address; yield how many nodes.

    Raises:
        DigitsError: there is no cluster there.
    """
    package = Path(digits.__file__).parent
    # Failures reach the user as outcomes, so Ray need not print them.
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _check_answer(address)
        settings |= {"address": address, "runtime_env": {"py_modules": [str(package)]}}
    else:
        # Ray's processes start in other folders, so that relative paths would not lead there.
        paths = [str(package.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in paths if p)
        count = threads * workers if workers else max(threads, int(machine()["cores"]))
        # Without a token in the environment, Ray would write one to ~/.ray.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        settings |= {"address": "local", "num_cpus": count, "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**settings)
        signal.signal(signal.SIGTERM, handler)  # Ray's own handler would leave runs open.
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DigitsError(f"Ray: {' '.join(str(error).split())[:200]}") from error
    try:
        yield len([node for node in ray.nodes() if node["Alive"]])
    finally:
        own = [] if address else psutil.Process().children(recursive=True)
        # Ray ends this process if a thread collects garbage of Ray's after the shutdown (seen once,
        # as "core worker has already been shutdown").
        gc.collect()
        ray.shutdown()
        for process in psutil.wait_procs(own, timeout=END_TIMEOUT)[1]:
            process.kill()  # It runs a trial that does not react.


def _check_answer(address: str) -> None:
    """Raise DigitsError unless something listens there: Ray would try for more than ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise DigitsError(
            f"Ray: no cluster answers at {address} ({error}); expected HOST:PORT of `ray start "
            "--head`"
        ) from None


def run_each(
    names: Sequence[str],
    work: Callable[..., Any],
    on_row: Callable[[Row], object],
    on_failure: Callable[[str, str], object],
    *,
    threads: int,
    retries: int,
    metrics: Sequence[str] = (),
    **strategy: Any,
) -> None:
    """Run a function for each trial, as many at once as there are cores for.

    Args:
        names: of the trials; none in a search.
        work: takes a trial's name or, in a search, its configuration; an id; the node's address;
            and a function to report each epoch to. Where it raises DigitsError it is not tried
            again.
        on_row: is called with the row of each trial at once.
        on_failure: is called with the name of a trial that failed for good, and the reason.
        threads: cores that each trial takes.
        retries: of a trial that fails or whose process is killed.
        metrics: to print.
        strategy: of a search.
    """

    prunes = strategy.get("scheduler") is not None

    def function(config: Config, work: Callable[..., Any]) -> None:
        last: Metrics = {}

        def report(metrics: Metrics, row: Row) -> None:
            nonlocal last
            last = metrics
            try:
                tune.report({**metrics, ROW: row})
            except SystemExit:  # Ray ends a function, also when the study is interrupted.
                raise TrialPrunedError if prunes else KeyboardInterrupt from None

        identifier, node = tune.get_context().get_trial_id(), ray.util.get_node_ip_address()
        try:
            row = work(config.get(TRIAL, config), identifier, node, report)
        except DigitsError as error:
            tune.report({**last, FAILURE: str(error)})
        else:
            if row is None:
                sys.exit(0)
            tune.report({**last, ROW: row})

    trainable = tune.with_parameters(function, work=work)  # It holds the images, which are large.
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": threads}),
            param_space={TRIAL: tune.grid_search(list(names))} if names else {},
            # An import of TensorFlow takes as long as a training of v1, so processes are reused.
            tune_config=tune.TuneConfig(reuse_actors=True, **strategy),
            run_config=tune.RunConfig(
                name="study",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[_Listener(on_row, on_failure)],
                progress_reporter=tune.CLIReporter(
                    metric_columns=["training_iteration", "time_total_s", *metrics],
                    max_report_frequency=30,
                    max_progress_rows=20,
                ),
                verbose=1,
            ),
        ).fit()


class _Listener(tune.Callback):  # type: ignore[misc]
    """Passes on the rows and the failures of trials."""

    def __init__(
        self, on_row: Callable[[Row], object], on_failure: Callable[[str, str], object]
    ) -> None:
        self._on_row, self._on_failure = on_row, on_failure
        self._last_rows: dict[str, Row | None] = {}  # None if the trial failed

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if FAILURE in result:
            self._on_failure(_name(trial), result[FAILURE])
        self._last_rows[trial.trial_id] = result.get(ROW)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if row := self._last_rows.pop(trial.trial_id, None):
            self._on_row(row)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if trial.status == "ERROR":
            self._on_failure(_name(trial), str(trial.get_error()).strip().splitlines()[-1])


def _name(trial: Any) -> str:
    return str(trial.config.get(TRIAL, trial.config))


def strategy(search: Search, epochs: int, previous: Sequence[tuple[Config, float]]) -> Config:
    """Return the arguments of TuneConfig to choose each configuration by the results of others.

    Args:
        epochs: how many a trial has that is not pruned.
        previous: configurations that were run before, with their metric; they count as trials.
    """
    scheduler = None
    if search.grace:
        scheduler = ASHAScheduler(
            metric=search.metric,
            mode=search.mode,
            grace_period=min(search.grace, epochs),
            max_t=epochs + 1,  # The last report is that of the result.
        )
    sampler = OptunaSearch(
        {key: _distribution(choices) for key, choices in search.space.items()},
        metric=search.metric,
        mode=search.mode,
        seed=search.seed + len(previous),
        points_to_evaluate=[config for config, _ in previous] or None,
        evaluated_rewards=[value for _, value in previous] or None,
    )
    count = search.trials - len(previous)
    return {"num_samples": count, "search_alg": sampler, "scheduler": scheduler}


def _distribution(choices: Range | list[Any]) -> Any:
    if isinstance(choices, list):
        return CategoricalDistribution(choices)
    low, high = choices.low, choices.high
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=choices.log)
