"""A study from its file to its results: what is not there yet is trained."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digits import DigitsError, files, tracking
from digits.dataset import Dataset
from digits.study.plan import Plan, Trial
from digits.study.trial import RESULT, Place, Result, by_epoch, train

BESIDE = ("seconds", "machine")  # what differs when a trial is repeated


class Results:
    """The results of a study, a file for each trial in `trials` and one for its time in `timing`.

    Attributes:
        there: by trial; those of other parameters, code or data are not among them.
    """

    def __init__(self, folder: Path, plan: Plan, data: str) -> None:
        self.folder = folder
        self._plan, self._data = plan, data
        self.there: dict[str, Result] = {}
        for path in sorted((folder / "trials").glob("*.json")):
            self._take(files.read_json(path))

    def _take(self, result: Result) -> bool:
        known = Trial(result["name"], result["version"], result["seed"], result["changes"])
        is_ours = result["digest"] == self._plan.digest(known, self._data)
        if is_ours:
            self.there[known.name] = result
        return is_ours

    def add(self, result: Result) -> None:
        """Write a result, unless it is there or not of this study."""
        name, kept = result["name"], {k: v for k, v in result.items() if k not in BESIDE}
        if name not in self.there and self._take(kept):
            beside = {key: result[key] for key in BESIDE}
            files.write_json(self.folder / "timing" / f"{name}.json", beside)
            files.write_json(self.folder / "trials" / f"{name}.json", kept)


def conduct(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    root: Path,
    store: str,
    tags: Mapping[str, object],
    address: str | None = None,
    workers: int | None = None,
    attach: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Train the trials of a study that have no result yet, and return the results of all.

    Args:
        out: the folder of results; see `Results`.
        root: of the project.
        store: address of the MLflow store, to which this process is connected.
        tags: of every run.
        address: of a Ray cluster, if this machine is not to do the work.
        workers: how many trials at once on this machine, if not as many as it has cores for.
        attach: use the run that `mlflow run` opened.
        say: is told what happens.

    Raises:
        DigitsError: another process is at work on this study, or trials failed; what the others
            gave is kept.
    """
    with _alone(out):
        results = Results(out, plan, dataset.digest())
        if not _missing(plan, results):
            say(f"{plan.name}: all {_asked(plan)} trials are there; nothing to train")
            return _in_order(plan, results)
        again = tracking.children.unfinished(plan.name)
        with tracking.start(plan.name, attach=attach, again=again, root=root, say=say) as run:
            run.tags({**tags, "study": plan.name})
            for result in tracking.children.results(run.id, RESULT):
                results.add(result)  # whose trial ended just before this process did
            tracking.children.close(run.id, "KILLED", "the study was interrupted")
            said = f"{plan.name}: {len(results.there)} of {_asked(plan)} trials are there"
            say(f"{said}; training the others")
            place = Place(store, run.id, root, {**tags, "study": plan.name})
            try:
                failed = _train(plan, dataset, place, results, address, workers, say)
            finally:
                tracking.children.close(run.id, "KILLED", "the study was interrupted")
            if failed:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
                raise DigitsError(
                    f"study {plan.name}: {len(failed)} of {_asked(plan)} trials failed, the others "
                    f"are kept: {reasons}"
                )
    return _in_order(plan, results)


def _train(
    plan: Plan,
    dataset: Dataset,
    place: Place,
    results: Results,
    address: str | None,
    workers: int | None,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Train what is missing; why trials failed, by their name."""
    from digits.study import engine

    study, failed = plan.study, {}
    data = dataset.digest()

    def done(outcome: engine.Outcome) -> None:
        if outcome.error is not None:
            failed[str(outcome.chosen)] = outcome.error
        elif outcome.result:
            results.add(outcome.result)
        else:
            trial = _searched(plan, outcome.chosen, outcome.id)
            results.add(_given_up(trial, plan, data, outcome.epochs))

    how = {"threads": study.threads, "retries": study.retries}
    shared = {"plan": plan, "dataset": dataset, "place": place}
    with engine.started(address, workers, study.threads) as nodes:
        if nodes > 1 and not place.store.startswith(("http://", "https://")):
            raise DigitsError(
                f"Ray: the cluster has {nodes} nodes, which cannot share {place.store}: start an "
                "MLflow server and name it in MLFLOW_TRACKING_URI"
            )
        if study.search:
            metric = study.search.metric
            known = [(r["changes"], r["metrics"][metric][-1]) for r in results.there.values()]
            epochs = plan.params(Trial("", study.search.version, 0)).model(study.search.version)
            engine.search(study.search, epochs.epochs, known, _work, shared, done, **how)
        else:
            names = [trial.name for trial in plan.trials() if trial.name not in results.there]
            engine.each(names, _work, shared, done, metrics=["loss", "accuracy"], **how)
    return failed


def _work(
    chosen: Any,
    number: str,
    told: Callable[[Mapping[str, float]], None],
    *,
    plan: Plan,
    dataset: Dataset,
    place: Place,
) -> Result:
    """One trial, in a process of Ray's."""
    if isinstance(chosen, str):
        trial = next(trial for trial in plan.trials() if trial.name == chosen)
    else:
        trial = _searched(plan, chosen, number)
    return train(trial, plan, dataset, place, told)


def _searched(plan: Plan, changes: Mapping[str, Any], number: str) -> Trial:
    assert plan.study.search
    version = plan.study.search.version
    return Trial(f"{version}-{number}", version, plan.raw["seed"], dict(changes))


def _given_up(trial: Trial, plan: Plan, data: str, epochs: Any) -> Result:
    """What is known of a trial that did not reach its end."""
    return {
        "name": trial.name,
        "version": trial.version,
        "seed": trial.seed,
        "changes": trial.changes,
        "digest": plan.digest(trial, data),
        "threads": plan.study.threads,
        "metrics": by_epoch(epochs),
        "seconds": None,
        "machine": None,
    }


def _asked(plan: Plan) -> int:
    return plan.study.search.trials if plan.study.search else len(plan.trials())


def _missing(plan: Plan, results: Results) -> int:
    return _asked(plan) - len(_in_order(plan, results))


def _in_order(plan: Plan, results: Results) -> list[Result]:
    if plan.study.search:
        return list(results.there.values())
    return [results.there[t.name] for t in plan.trials() if t.name in results.there]


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".partial-study.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise DigitsError(f"{out}: another process is at work on this study") from None
    finally:
        if not lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)
