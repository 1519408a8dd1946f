"""A study from its file to its results: what is not there yet is trained."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digits import DigitsError
from digits.core.dataset import Dataset
from digits.study.results import Result, Results
from digits.study.spec import Plan, Trial
from digits.study.trial import RESULT, RunContext, by_epoch, train
from digits.tracking import local_store, nested_runs
from digits.tracking.run import start_run


def conduct(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    root: Path,
    address: str,
    tags: Mapping[str, object],
    cluster: str | None = None,
    workers: int | None = None,
    attach: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Train the trials of a study that have no result yet, and return the results of all.

    Args:
        out: the folder of results; see `Results`.
        root: of the project.
        address: of the MLflow store, to which this process is connected.
        tags: of every run.
        cluster: address of one of Ray's, if this machine is not to do the work.
        workers: how many trials at once on this machine, if not as many as it has cores for.
        attach: use the run that `mlflow run` opened.
        say: is told what happens.

    Raises:
        DigitsError: another process is at work on this study, or trials failed; what the others
            gave is kept.
    """
    with _alone(out):
        results = Results(out, plan, dataset.digest())
        if not results.missing():
            say(f"{plan.name}: all {plan.size()} trials are there; nothing to train")
            return results.in_order()
        from digits.study import ray_backend  # or say that it is not installed

        begun = bool(results.in_order())
        again = nested_runs.parent(plan.name, even_finished=begun)
        with start_run(plan.name, attach=attach, again=again, root=root, say=say) as run:
            named = {**tags, nested_runs.STUDY_TAG: plan.name}
            run.tags(named)
            for result in nested_runs.results(run.id, RESULT, results):
                results.add(result)  # whose trial ended just before an earlier process did
            nested_runs.close(run.id, "KILLED", "the study was interrupted")
            said = f"{plan.name}: {len(results.in_order())} of {plan.size()} trials are there"
            say(f"{said}; training the others")
            place = RunContext(address, run.id, root, named)
            try:
                failed = {}
                if results.missing():
                    with ray_backend.started(cluster, workers, plan.study.threads) as nodes:
                        failed = _train(plan, dataset, place, results, nodes)
                if results.missing() > len(failed):
                    raise KeyboardInterrupt  # Ray Tune takes Ctrl-C itself, and just ends
            finally:
                nested_runs.close(run.id, "KILLED", "the study was interrupted")
            if failed:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
                raise DigitsError(
                    f"study {plan.name}: {len(failed)} of {plan.size()} trials failed, the others "
                    f"are kept: {reasons}"
                )
    return results.in_order()


def _train(
    plan: Plan, dataset: Dataset, place: RunContext, results: Results, nodes: int
) -> dict[str, str]:
    """Train what is missing on as many nodes; why trials failed, by their name."""
    from digits.study import ray_backend

    if nodes > 1 and not local_store.is_remote(place.store):
        raise DigitsError(
            f"Ray: the cluster has {nodes} nodes, which cannot share {place.store}: start an "
            "MLflow server and name it in MLFLOW_TRACKING_URI"
        )
    study, failed = plan.study, {}
    data = dataset.digest()

    def done(outcome: ray_backend.Outcome) -> None:
        if outcome.error is not None:
            failed[str(outcome.chosen)] = outcome.error
        elif outcome.result:
            results.add(outcome.result)
        else:
            trial = _searched(plan, outcome.chosen, outcome.id)
            results.add(_given_up(trial, plan, data, outcome.epochs))

    how = {"threads": study.threads, "retries": study.retries}
    shared = {"plan": plan, "dataset": dataset, "place": place}
    if study.search:
        metric = study.search.metric
        known = [(r["changes"], r["metrics"][metric][-1]) for r in results.in_order()]
        epochs = plan.params(Trial("", study.search.version, 0)).model(study.search.version)
        ray_backend.search(study.search, epochs.epochs, known, _work, shared, done, **how)
    else:
        names = [trial.name for trial in plan.trials() if trial.name not in results]
        ray_backend.each(names, _work, shared, done, metrics=["loss", "accuracy"], **how)
    return failed


def _work(
    chosen: Any,
    worker: Any,
    told: Callable[[Mapping[str, float]], None],
    *,
    plan: Plan,
    dataset: Dataset,
    place: RunContext,
) -> Result:
    """One trial, in a process of Ray's."""
    if isinstance(chosen, str):
        trial = next(trial for trial in plan.trials() if trial.name == chosen)
    else:
        trial = _searched(plan, chosen, worker.trial)
    return train(trial, plan, dataset, replace(place, node=worker.node), told)


def _searched(plan: Plan, changes: Mapping[str, Any], number: str) -> Trial:
    assert plan.study.search
    version = plan.study.search.version
    return Trial(f"{version}-{number}", version, plan.raw["seed"], dict(changes))


def _given_up(trial: Trial, plan: Plan, data: str, epochs: Any) -> Result:
    """What is known of a trial that did not reach its end."""
    return {
        **asdict(trial),
        "digest": plan.digest(trial, data),
        "threads": plan.study.threads,
        "metrics": by_epoch(epochs),
        "seconds": None,
        "machine": None,
    }


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".partial-study.lock", timeout=0):
            yield
    except Timeout:
        raise DigitsError(f"{out}: another process is at work on this study") from None
