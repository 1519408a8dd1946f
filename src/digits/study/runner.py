"""A study from its file to its table: whatever has no row yet is trained."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

from digits import DigitsError
from digits.core.dataset import Dataset, fit_to_images, hold_out
from digits.study import results
from digits.study.ensemble import network_path
from digits.study.results import Results, Row
from digits.study.spec import StudySpec
from digits.study.trial import RESULT, RunContext, run_trial
from digits.tracking import local_store, machine, nested_runs
from digits.tracking.run import start_run

INTERRUPTED = ("KILLED", "the study was interrupted")
CLOSING_TIMEOUT = 60  # seconds; 10 are not always enough on a busy machine

Log = Callable[[str], object]


def run_study(
    spec: StudySpec,
    dataset: Dataset,
    out: Path,
    context: RunContext,
    *,
    cluster: str | None = None,
    workers: int | None = None,
    log: Log = lambda line: None,
) -> list[Row]:
    """Train the trials of a study that have no row yet, and return the rows of all.

    Args:
        out: the folder of the table of trials.
        context: whose store this process is connected to.
        cluster: address of a Ray cluster, if this machine is not to do the work.
        workers: how many trials at once on this machine, if not as many as it has cores for.
        log: prints a line about the progress.

    Raises:
        DigitsError: a version does not fit the images, there are fewer than the study holds out,
            another process is at work on it, or trials failed; the rows of the others are in the
            table.
    """
    for trial in {trial.version: trial for trial in spec.trials()}.values():
        fit_to_images(spec.params(trial), trial.version, dataset)
    _check_folds(spec, dataset)
    with _lock(context.state):
        table = Results(out / results.TABLE, spec, dataset.digest())
        # An ensemble needs the networks of its trials, which git does not track.
        lost = {
            row["name"]
            for row in table.rows()
            if spec.study.ensemble and not network_path(context.state, row["name"]).exists()
        }
        table.discard(lost)
        if not table.missing():
            log(f"{spec.name}: all {spec.size()} trials are there; nothing to train")
            return table.rows()
        ray = _ray_backend(spec, cluster, workers, log)
        previous = nested_runs.find_parent(spec.name, even_finished=bool(table.rows()))
        tags = {**context.tags, nested_runs.STUDY_TAG: spec.name}
        with start_run(spec.name, attach=True, resume=previous, root=context.root, log=log) as run:
            run.tags(tags)
            # An earlier process may have ended before it wrote the rows of trials that ended.
            for row in nested_runs.artifacts(run.id, RESULT, exclude=table):
                if row["name"] not in lost:
                    table.add(row)
            nested_runs.close_open(run.id, *INTERRUPTED)
            log(f"{spec.name}: {len(table.rows())} of {spec.size()} trials are there")
            failures: dict[str, str] = {}
            try:
                if table.missing():
                    threads = spec.study.threads
                    with ray.started(cluster, workers, threads) if ray else nullcontext(1) as nodes:
                        _check_store(context.store, nodes)
                        place = replace(context, parent=run.id, tags=tags)
                        failures = _train(spec, dataset, place, table, ray, log)
                if table.missing() > len(failures):
                    raise KeyboardInterrupt  # Ray Tune handles Ctrl-C itself, and just returns.
            finally:
                nested_runs.close_open(run.id, *INTERRUPTED)
            if failures:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
                raise DigitsError(
                    f"study {spec.name}: {len(failures)} of {spec.size()} trials failed, the "
                    f"others are kept: {reasons}"
                )
    return table.rows()


def _check_folds(spec: StudySpec, dataset: Dataset) -> None:
    """Raise DigitsError if a candidate's folds are not in the data; before any of them trains."""
    if candidates := spec.study.candidates:
        last = max(trial.fold for trial in spec.trials())
        try:
            hold_out(dataset.y_train, candidates.validation, spec.raw["seed"], last)
        except DigitsError as error:
            reason = str(error).removeprefix("params.yaml: data.")
            raise DigitsError(f"study {spec.name}: candidates.{reason}") from None


def _ray_backend(
    spec: StudySpec, cluster: str | None, workers: int | None, log: Log
) -> ModuleType | None:
    """Import Ray's backend; None if the trials run in this process, one after the other."""
    needs_ray = bool(cluster or spec.study.search)
    if not needs_ray and (workers or int(machine.machine()["cores"]) // spec.study.threads) <= 1:
        return None
    try:
        from digits.study import ray_backend
    except DigitsError as error:
        if needs_ray:
            raise
        log(f"{spec.name}: {error}; until then, one trial is trained after the other")
        return None
    return ray_backend


def _check_store(store: str, nodes: int) -> None:
    if nodes > 1 and not local_store.is_remote(store):
        shown = local_store.without_passwords(store)
        raise DigitsError(
            f"Ray: the cluster has {nodes} nodes, which cannot share {shown}: start an "
            "MLflow server and name it in MLFLOW_TRACKING_URI"
        )


def _train(
    spec: StudySpec, dataset: Dataset, context: RunContext, table: Results, ray: Any, log: Log
) -> dict[str, str]:
    """Train what is missing, and return why trials failed, by name."""
    failures: dict[str, str] = {}
    study, trials = spec.study, {trial.name: trial for trial in spec.trials()}
    names = [name for name in trials if name not in table]

    def work(config: Any, identifier: str, node: str, *report: Any, **log: Any) -> Row | None:
        # Of a search, the configuration is its changes, else the trial's name.
        trial = spec.search_trial(identifier, config) if study.search else trials[config]
        return run_trial(trial, spec, dataset, context, node, *report, **log)

    if ray is None:
        for name in names:
            try:
                table.add(_run_here(partial(work, log=log), name, study.retries))
            except DigitsError as error:
                failures[name] = str(error)
        return failures
    how: dict[str, Any] = {"threads": study.threads, "retries": study.retries}
    how["metrics"] = [study.search.metric] if study.search else ["loss", "accuracy"]
    if search := study.search:
        previous = [(row["changes"], row["metrics"][search.metric][-1]) for row in table.rows()]
        model = spec.params(spec.search_trial("", {})).model(search.version)
        how |= ray.strategy(search, model.epochs, previous)
    ray.run_each(names, work, table.add, failures.__setitem__, **how)
    # A trial that was pruned last may still be closing its run, and would be killed with Ray.
    end = time.monotonic() + CLOSING_TIMEOUT
    while study.search and not table.missing() and time.monotonic() < end:
        if not nested_runs.trial_runs(context.parent, "RUNNING"):
            break
        time.sleep(0.2)
    return failures


def _run_here(work: Callable[..., Any], name: str, retries: int) -> Row:
    """Run a trial in this process, and try it again if it fails."""
    reason = ""
    for _ in range(retries + 1):
        try:
            row: Row = work(name, name, platform.node())
            return row
        except DigitsError:
            raise
        except Exception as error:  # TensorFlow and MLflow may raise anything, and it may pass.
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise DigitsError(reason)


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / "study.lock", timeout=0):
            yield
    except Timeout:
        raise DigitsError(f"{state}: another process is at work on this study") from None
