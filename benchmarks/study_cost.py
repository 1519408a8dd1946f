"""`make study-cost`: what a study and its engine cost; writes metrics/study-cost.json."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click

import paths
from digits import DigitsError
from digits.core import config, dataset, files
from digits.core.dataset import Dataset
from digits.reports import study_cost
from digits.reports.metrics import TIMING
from digits.study import ray_backend
from digits.study.runner import conduct
from digits.study.spec import Plan, Study
from digits.tracking import local_store, machine
from digits.tracking.connection import connect
from race import spread

# Of what the machine is, what may differ between measurements that stand together.
VARIES = {"date", "git.commit", "git.branch", "git.dirty"}

# Trials at once, threads of each.
WAYS = {study_cost.ONE_BY_ONE: (1, 2), study_cost.ONE_THREAD: (1, 1), study_cost.AT_ONCE: (2, 1)}


@click.command()
@click.option("--trials", default="v1=12,v2=4", show_default=True, help="Of each version, a study.")
@click.option("--epochs", default="v2=3", show_default=True, help="Of a version that takes long.")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True)
@click.option("--trivial", default="10,100,1000", show_default=True, help="Sizes of empty studies.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("metrics/study-cost.json"))
def main(trials: str, epochs: str, repeats: int, trivial: str, out: Path) -> None:
    """Time studies of the same trials, one by one and two at a time, and studies of nothing.

    Run it on a machine with nothing else to do. What is not asked for stays in OUT as it was
    measured before, if that was on such a machine.
    """
    mnist = dataset.load(paths.DATA)
    raw = config.read(paths.PARAMS)
    machine = machine.machine() | machine.libraries() | machine.code()
    measured = _before(out, machine) | {"machine": machine}
    if trivial:
        measured["empty"] = list(empty([int(n) for n in trivial.split(",")]))
        files.write_json(out, measured)
    for version, count in _numbers(trials).items():
        shorter = _numbers(epochs).get(version)
        if shorter:
            raw["models"][version]["epochs"] = shorter
        told = throughput(version, count, repeats, raw, mnist)
        measured["trials"][version] = told | {"epochs": raw["models"][version]["epochs"]}
        files.write_json(out, measured)  # each takes long enough to be lost
        click.echo(f"wrote {out}")
    click.echo(study_cost.tables(measured))


def _numbers(told: str) -> dict[str, int]:
    return {v: int(n) for v, n in (pair.split("=") for pair in told.split(",") if pair)}


def _before(out: Path, machine: dict[str, str]) -> dict[str, Any]:
    """What was measured before on such a machine with such libraries."""
    before = json.loads(out.read_text()) if out.exists() else {"machine": {}}
    same = all(before["machine"].get(key) == machine[key] for key in set(machine) - VARIES)
    return before if same else {"empty": [], "trials": {}}


def nothing(name: str, worker: Any, told: Any) -> int:
    """A trial that takes no time."""
    return len(name)


def empty(sizes: Sequence[int]) -> Iterator[dict[str, float]]:
    """Seconds that the engine takes for so many trials of nothing, two at a time."""
    start = time.perf_counter()
    with ray_backend.started(None, 2, 1):
        begun = time.perf_counter() - start
        for size in sizes:
            done: list[ray_backend.Outcome] = []
            start = time.perf_counter()
            names = [str(number) for number in range(size)]
            ray_backend.each(names, nothing, {}, done.append, threads=1, retries=0)
            taken = time.perf_counter() - start
            assert sum(outcome.result is not None for outcome in done) == size
            click.echo(f"{size} trials of nothing: {taken:.1f} s")
            yield {"trials": size, "seconds": round(taken, 3), "start": round(begun, 3)}


def throughput(version: str, trials: int, repeats: int, raw: Any, mnist: Dataset) -> Any:
    """Wall time of whole studies of one version, each way in turn, and of their trainings."""
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    fits: dict[str, list[float]] = {way: [] for way in WAYS}
    running: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, (workers, threads) in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                study = Study.model_validate({"seeds": {version: trials}, "threads": threads})
                # MLflow leaves that of the study before in it.
                os.environ.pop("MLFLOW_TRACKING_URI", None)
                connect(root)
                start = time.perf_counter()
                conduct(
                    Plan("cost", study, raw),
                    mnist,
                    root / "out",
                    root=root,
                    address=local_store.address(root),
                    tags={},
                    workers=workers,
                )
                walls[way].append(time.perf_counter() - start)
                written = list((root / "out" / TIMING).glob("*"))
                told = [json.loads(path.read_text()) for path in written]
                fits[way].append(mean(beside["seconds"] for beside in told))
                # From the first trial of each worker on; before it, there is the start.
                ends = sorted(path.stat().st_mtime for path in written)[workers - 1 :]
                running[way].append((ends[-1] - ends[0]) / (len(ends) - 1))
            click.echo(f"{version}, {way}: {trials} trials in {walls[way][-1]:.1f} s")
    return {
        "trials": trials,
        "ways": {
            way: {
                "per_hour": spread([3600 * trials / wall for wall in walls[way]]),
                "per_hour_running": spread([3600 / seconds for seconds in running[way]]),
                "fit_seconds": spread(fits[way]),
                # Of a worker's time, what is not fitting.
                "beside_fit_seconds": spread(
                    [
                        wall * workers / trials - fit
                        for wall, fit in zip(walls[way], fits[way], strict=True)
                    ]
                ),
            }
            for way, (workers, _) in WAYS.items()
        },
        "gain": _gain(walls),
        "gain_running": _gain(running),
    }


def _gain(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """How many times faster two at a time are than one by one, by the pairs of neighbours."""
    return {
        way: spread([a / b for a, b in zip(seconds[way], seconds[study_cost.AT_ONCE], strict=True)])
        for way in (study_cost.ONE_BY_ONE, study_cost.ONE_THREAD)
    }


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        sys.exit(f"digits: {error}")
