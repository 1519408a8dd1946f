"""`make study-cost`: what a study costs, and Ray; writes benchmarks/results/study-cost.json."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click
import yaml
from mlflow.tracking import MlflowClient

import paths
import render
from digits import DigitsError
from digits.core import config, files
from digits.study import ray_backend
from digits.study.results import TABLE, Row, read_trials
from digits.tracking import local_store
from digits.tracking.machine import libraries, machine
from digits.tracking.provenance import code
from samples import summarise

# These facts may differ between measurements that are shown together.
VARIES = {"date", "git.commit", "git.branch", "git.dirty"}

ONE_BY_ONE = "one by one, two threads"
ONE_THREAD = "one by one, one thread"
AT_ONCE = "two at a time, one thread each"
WAYS = {ONE_BY_ONE: (1, 2), ONE_THREAD: (1, 1), AT_ONCE: (2, 1)}  # trials at once, threads of each


@click.command()
@click.option("--trials", default="v1=12,v2=4", show_default=True, help="Of each version, a study.")
@click.option("--epochs", default="v2=3", show_default=True, help="Of a version that takes long.")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True)
@click.option("--trivial", default="10,100,1000", show_default=True, help="Sizes of empty studies.")
@click.option("--out", type=click.Path(path_type=Path), default=paths.RESULTS / "study-cost.json")
def main(trials: str, epochs: str, repeats: int, trivial: str, out: Path) -> None:
    """Time studies of the same trials, one by one and two at a time, and studies of nothing.

    Run it on a machine with nothing else to do. What is not asked for stays in OUT as it was
    measured before, if that was on such a machine.
    """
    raw = config.read(paths.PARAMS)
    environment = machine() | libraries() | dict(code().tags)
    measured = _before(out, environment) | {"machine": environment}
    if trivial:
        measured["empty"] = list(empty([int(n) for n in trivial.split(",")]))
        files.write_json(out, measured)
    for version, count in _numbers(trials).items():
        shorter = _numbers(epochs).get(version)
        if shorter:
            raw["models"][version]["epochs"] = shorter
        study = throughput(version, count, repeats, raw)
        measured["trials"][version] = study | {"epochs": raw["models"][version]["epochs"]}
        files.write_json(out, measured)  # after each, because each takes long
        click.echo(f"wrote {out}")
    click.echo(render.section("study-cost", measured))


def _numbers(text: str) -> dict[str, int]:
    return {v: int(n) for v, n in (pair.split("=") for pair in text.split(",") if pair)}


def _before(out: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Return what was measured before on the same kind of machine with the same libraries."""
    before = json.loads(out.read_text()) if out.exists() else {"machine": {}}
    same = all(before["machine"].get(key) == environment[key] for key in set(environment) - VARIES)
    return before if same else {"empty": [], "trials": {}}


def nothing(name: str, identifier: str, node: str, report: Any) -> Row:
    """Return at once: a trial that takes no time."""
    return {"name": name}


def empty(sizes: Sequence[int]) -> Iterator[dict[str, float]]:
    """Measure the seconds that Ray takes for so many trials of nothing, two at a time."""
    start = time.perf_counter()
    with ray_backend.started(None, 2, 1):
        begun = time.perf_counter() - start
        for size in sizes:
            rows: list[Row] = []
            start = time.perf_counter()
            names = [str(number) for number in range(size)]
            ray_backend.run_each(names, nothing, rows.append, print, threads=1, retries=0)
            taken = time.perf_counter() - start
            assert len(rows) == size
            click.echo(f"{size} trials of nothing: {taken:.1f} s")
            yield {"trials": size, "seconds": round(taken, 3), "start": round(begun, 3)}


def throughput(version: str, trials: int, repeats: int, raw: Any) -> Any:
    """Measure wall times of whole studies of one version, each way in turn, and their trainings."""
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    fits: dict[str, list[float]] = {way: [] for way in WAYS}
    running: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, (workers, threads) in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                study = {"seeds": {version: trials}, "threads": threads}
                start = time.perf_counter()
                _run_study(root, study, raw, workers)
                walls[way].append(time.perf_counter() - start)
                rows = read_trials(root / "out" / TABLE)
                fits[way].append(mean(row["seconds"] for row in rows))
                # Once each worker has ended a trial, the start is over.
                ends = _ends_of_trials(root)[workers - 1 :]
                running[way].append((ends[-1] - ends[0]) / (len(ends) - 1))
            click.echo(f"{version}, {way}: {trials} trials in {walls[way][-1]:.1f} s")
    return {
        "trials": trials,
        "ways": {
            way: {
                "per_hour": summarise([3600 * trials / wall for wall in walls[way]]),
                "per_hour_running": summarise([3600 / seconds for seconds in running[way]]),
                "fit_seconds": summarise(fits[way]),
                # The time of a worker in which it does not fit.
                "beside_fit_seconds": summarise(
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


def _run_study(root: Path, study: Any, raw: Any, workers: int) -> None:
    """Run a study in a process of its own: TensorFlow takes its number of threads only once."""
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (root / "cost.yaml").write_text(yaml.safe_dump(study))
    environment = {n: v for n, v in os.environ.items() if n != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "digits", "study", "run", "cost.yaml", "--out", "out"]
    command += ["--data", str(paths.DATA.resolve()), "--workers", str(workers)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DigitsError(f"{' '.join(command)}: {done.stderr.strip()}")


def _ends_of_trials(root: Path) -> list[float]:
    """Return when the trials of the study in a folder ended, in seconds, the first one first."""
    runs = MlflowClient(local_store.own_address(root)).search_runs(["0"])
    return sorted(run.info.end_time / 1000 for run in runs if "trial" in run.data.tags)


def _gain(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return how many times faster two at a time are than one by one, by neighbouring pairs."""
    return {
        way: summarise([a / b for a, b in zip(seconds[way], seconds[AT_ONCE], strict=True)])
        for way in (ONE_BY_ONE, ONE_THREAD)
    }


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        sys.exit(f"digits: {error}")
