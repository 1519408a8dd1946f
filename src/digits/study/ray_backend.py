"""Functions run by Ray Tune, on this machine or on a cluster: the only part that knows Ray."""

import gc
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import digits
from digits import DigitsError
from digits.study.spec import Range, Search

# What Ray would otherwise do unasked: send usage statistics, write three logs a trial, stop at a
# trial that fails before its first metric.
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
ENDS_WITHIN = ANSWERS_WITHIN = 5  # seconds
RESULT, FAILURE, TRIAL = "result", "failure", "trial"


@dataclass(frozen=True)
class Worker:
    """What works on a trial: Ray's id of the trial, and the address of the node."""

    trial: str
    node: str


@dataclass(frozen=True)
class Outcome:
    """What came of one trial.

    Attributes:
        id: Ray's, which tells trials apart.
        chosen: its name or, of a search, its configuration.
        result: what the function returned; None if it was given up before its end.
        epochs: the metrics it told, in order.
        error: why it failed for good, in one line.
    """

    id: str
    chosen: Any
    result: Any
    epochs: Sequence[Mapping[str, float]]
    error: str | None = None


@contextmanager
def started(address: str | None, workers: int | None, threads: int) -> Iterator[int]:
    """Ray: one of our own on this machine, or the cluster at an address; yields its nodes.

    Raises:
        DigitsError: there is no cluster there.
    """
    package = Path(digits.__file__).parent
    # What fails is told by `done`.
    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _reach(address)
        told = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        shared |= {"address": address}
        shared |= {"runtime_env": {"py_modules": [str(package)], "env_vars": told}}
    else:
        # For Ray's processes, wherever they start.
        found = [str(package.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in found if p)
        cores = threads * workers if workers else max(threads, _cores())
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it is kept in ~/.ray
        shared |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
    at_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**shared)
        signal.signal(signal.SIGTERM, at_end)  # Ray's own would leave runs open
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DigitsError(f"Ray: {' '.join(str(error).split())[:200]}") from error
    try:
        yield len([node for node in ray.nodes() if node["Alive"]])
    finally:
        own = [] if address else psutil.Process().children(recursive=True)
        # Ray ends this process if another thread comes upon what is left of it after its end, as
        # one does that collects garbage (seen once, as "core worker has already been shutdown").
        gc.collect()
        ray.shutdown()
        for process in psutil.wait_procs(own, timeout=ENDS_WITHIN)[1]:
            process.kill()  # a trial that has not noticed


def _reach(address: str) -> None:
    """See that something listens there: Ray would try for more than ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
    except (OSError, ValueError) as error:
        raise DigitsError(
            f"Ray: no cluster answers at {address} ({error}); expected HOST:PORT of `ray start "
            "--head`"
        ) from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    names: Sequence[str],
    work: Callable[..., Any],
    shared: Mapping[str, Any],
    done: Callable[[Outcome], None],
    *,
    threads: int,
    retries: int,
    metrics: Sequence[str] = (),
) -> None:
    """Run a function once for each name.

    Args:
        work: of a name, a Worker, a function to tell metrics to, and what is shared. Where it
            raises DigitsError, it is not tried again.
        shared: by name; it is sent to each machine once.
        done: is called here with each outcome as soon as it is there.
        threads: cores that each takes.
        retries: of one that fails or whose process is gone.
        metrics: to show while they run.
    """
    _tune({TRIAL: tune.grid_search(list(names))}, 1, work, shared, done, threads, retries, metrics)


def search(
    space: Search,
    epochs: int,
    known: Sequence[tuple[Config, float]],
    work: Callable[..., Any],
    shared: Mapping[str, Any],
    done: Callable[[Outcome], None],
    *,
    threads: int,
    retries: int,
) -> None:
    """Run a function for configurations of a space, each chosen by what those before it gave.

    Args:
        epochs: that a configuration may tell of.
        known: configurations with their metric that were run before; they count.
        others: as in `each`.
    """
    sampler = OptunaSearch(
        {key: _distribution(choices) for key, choices in space.space.items()},
        metric=space.metric,
        mode=space.mode,
        seed=space.seed + len(known),
        points_to_evaluate=[config for config, _ in known] or None,
        evaluated_rewards=[value for _, value in known] or None,
    )
    scheduler = None
    if space.grace:
        scheduler = ASHAScheduler(
            metric=space.metric,
            mode=space.mode,
            grace_period=min(space.grace, epochs),
            max_t=epochs + 1,  # the last report is that of the result
        )
    _tune(
        {},
        space.trials - len(known),
        work,
        shared,
        done,
        threads,
        retries,
        [space.metric],
        sampler,
        scheduler,
    )


def _distribution(choices: Range | list[Any]) -> Any:
    if isinstance(choices, list):
        return CategoricalDistribution(choices)
    low, high = choices.low, choices.high
    kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
    return kind(low, high, log=choices.log)


def _tune(
    space: Config,
    samples: int,
    work: Callable[..., Any],
    shared: Mapping[str, Any],
    done: Callable[[Outcome], None],
    threads: int,
    retries: int,
    metrics: Sequence[str],
    sampler: Any = None,
    scheduler: Any = None,
) -> None:
    def function(config: Config, **shared: Any) -> None:
        last: Mapping[str, float] = {}

        def told(metrics: Mapping[str, float]) -> None:
            nonlocal last
            last = dict(metrics)
            tune.report(last)

        try:
            worker = Worker(tune.get_context().get_trial_id(), ray.util.get_node_ip_address())
            ended = {RESULT: work(_chosen(config), worker, told, **shared)}
        except DigitsError as error:
            ended = {FAILURE: str(error)}
        tune.report({**last, **ended})

    resources = tune.with_resources(tune.with_parameters(function, **shared), {"cpu": threads})
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        tune.Tuner(
            resources,
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=samples,
                search_alg=sampler,
                scheduler=scheduler,
                reuse_actors=True,  # an import of TensorFlow takes as long as a training of v1
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[_Listener(done)],
                progress_reporter=tune.CLIReporter(
                    metric_columns=["training_iteration", "time_total_s", *metrics],
                    max_report_frequency=30,
                    max_progress_rows=20,
                ),
                verbose=1,
            ),
        ).fit()


class _Listener(tune.Callback):  # type: ignore[misc]
    """Hands on what comes of each trial."""

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self._done = done
        self._told: dict[str, list[dict[str, float]]] = {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if result["training_iteration"] == 1:  # of a retry
            self._told[trial.trial_id] = []
        if RESULT in result or FAILURE in result:
            self._hand_on(trial, result.get(RESULT), result.get(FAILURE))
        else:
            own = {n: v for n, v in result.items() if isinstance(v, float) and "time" not in n}
            self._told[trial.trial_id].append(own)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if trial.trial_id in self._told:
            self._hand_on(trial, None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if trial.status == "ERROR":
            reason = str(trial.get_error()).strip().splitlines()[-1]
            self._hand_on(trial, None, reason)

    def _hand_on(self, trial: Any, result: Any, error: str | None = None) -> None:
        epochs = self._told.pop(trial.trial_id, [])
        self._done(Outcome(trial.trial_id, _chosen(trial.config), result, epochs, error))


def _chosen(config: Config) -> Any:
    return config.get(TRIAL, config)
