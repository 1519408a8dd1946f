"""`make frameworks`: race our training against other frameworks; writes metrics/frameworks.json."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from threading import Timer
from typing import IO, Any

import click
import numpy as np

import frameworks_figure
import paths
from digits import DigitsError
from digits.core import dataset, files
from digits.tracking.machine import libraries, machine
from digits.tracking.provenance import code
from environments import OURS, WORKER, Contender, contenders, install, installed, last_error
from samples import summarise

EPOCHS = {"v1": 15, "v2": 15, "v3": 3}
STANDARD_ERRORS = 3  # further from ours than so many, an accuracy differs
PATIENCE = 3600  # seconds for an epoch
POSITIVE = click.IntRange(min=1)


@dataclass
class Training:
    """A contender in training, in a process of its own; see worker.py.

    Attributes:
        errors: what the process writes to standard error.
        import_seconds: the time of its import.
        seconds: of each epoch, of which the first one compiles.
        scores: what the process measured after the last epoch.
    """

    process: "subprocess.Popen[bytes]"
    errors: IO[str]
    import_seconds: float = 0
    seconds: list[float] = field(default_factory=list)
    scores: Mapping[str, float] = field(default_factory=dict)

    def receive(self) -> Any:
        """Return the next line of the process.

        Raises:
            DigitsError: the process has ended, or has been silent for an hour; says why.
        """
        assert self.process.stdout
        timer = Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:  # After Ctrl-C the timer would keep this process for an hour.
            timer.cancel()
        if line:
            return json.loads(line)
        if (status := self.process.wait()) < 0:
            raise DigitsError(f"killed by {signal.Signals(-status).name}")
        self.errors.seek(0)
        raise DigitsError(last_error(self.errors.read()))

    def proceed(self) -> Any:
        """Let the process do its next part, and return what it prints then.

        Raises:
            DigitsError: as `receive`.
        """
        assert self.process.stdin
        with suppress(BrokenPipeError):  # The process has ended, and `receive` says why.
            self.process.stdin.write(b"\n")
        return self.receive()


def start(
    stack: ExitStack,
    contender: Contender,
    version: str,
    epochs: int,
    seed: int,
    data: Path,
    threads: int,
) -> Training:
    """Start a contender's process, which ends with the stack; arguments as of worker.py.

    Raises:
        DigitsError: its import fails.
    """
    errors = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))  # noqa: SIM115
    command = [str(contender.python), str(WORKER), str(contender.path)]
    process = subprocess.Popen(
        [*command, version, str(epochs), str(seed), str(data)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | _threads(threads) | contender.variables,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    training = Training(process, errors)
    training.import_seconds = training.receive()["import_seconds"]
    return training


def _threads(count: int) -> dict[str, str]:
    """Return the variables that hold every framework to so many threads.

    XLA has none: it takes as many as there are cores.
    """
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    counts = {f"{name}_NUM_THREADS": str(count) for name in names}
    return counts | {"TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": str(count)}


def train_in_turn(
    entrants: Sequence[Contender], version: str, epochs: int, seed: int, data: Path, threads: int
) -> tuple[dict[str, Training], dict[str, str]]:
    """Train a version by each contender, one epoch each in turn, so that noise affects all alike.

    Every turn begins with another contender.

    Returns:
        The trainings by the contender's name, and of those that failed the reasons.
    """
    trainings: dict[str, Training] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for contender in entrants:
            try:
                trainings[contender.name] = start(
                    stack, contender, version, epochs, seed, data, threads
                )
            except DigitsError as error:
                failures[contender.name] = str(error)
        for turn in range(epochs + 1):
            names = deque(trainings)
            names.rotate(-turn)
            for name in names:
                try:
                    answer = trainings[name].proceed()
                except DigitsError as error:
                    failures[name] = str(error)
                    del trainings[name]
                    continue
                if turn < epochs:
                    trainings[name].seconds.append(answer["seconds"])
                else:
                    trainings[name].scores = answer
    return trainings, failures


def compare(
    entrants: Sequence[Contender], version: str, epochs: int, seeds: int, data: Path, threads: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure one version by each contender.

    Returns:
        By name the test accuracies over the seeds, seconds by epoch without the first, ratios to
        ours, and what else worker.py measures; and of those that failed the reasons.

    Raises:
        DigitsError: ours fails.
    """
    trainings: dict[str, list[Training]] = {contender.name: [] for contender in entrants}
    failures: dict[str, str] = {}
    for seed in range(1, seeds + 1):
        able = [contender for contender in entrants if contender.name not in failures]
        click.echo(f"{version}, seed {seed}: {', '.join(contender.name for contender in able)}")
        trained, failed = train_in_turn(able, version, epochs, seed, data, threads)
        failures |= failed
        if OURS in failures:
            raise DigitsError(f"ours, {version}: {failures[OURS]}")
        for name, training in trained.items():
            trainings[name].append(training)
    completed = {name: trainings[name] for name in trainings if name not in failures}
    ours = _later(completed[OURS])
    results = {
        name: {
            "accuracy": [run.scores["accuracy"] for run in runs],
            "import_seconds": [run.import_seconds for run in runs],
            "first_epoch_seconds": median(run.seconds[0] for run in runs),
            "epoch_seconds": summarise(_later(runs)),
            "ratio_to_ours": summarise(
                [theirs / our for theirs, our in zip(_later(runs), ours, strict=True)]
            ),
            **{
                key: median(run.scores[key] for run in runs)
                for key in ("one_image_seconds", "test_images_seconds", "megabytes")
            },
        }
        for name, runs in completed.items()
    }
    return results, failures


def _later(runs: Sequence[Training]) -> list[float]:
    """Return the seconds of all epochs but each run's first one, which compiles."""
    return [seconds for run in runs for seconds in run.seconds[1:]]


def differing(accuracies: Mapping[str, Sequence[float]]) -> set[str]:
    """Return the contenders whose mean accuracy differs from ours.

    That is, by more than three standard errors, with the standard deviation over seeds pooled over
    all contenders, since each has but a few.
    """
    several = [values for values in accuracies.values() if len(values) > 1]
    if not several:
        return set()
    deviation = fmean(stdev(values) ** 2 for values in several) ** 0.5
    ours = accuracies[OURS]
    return {
        name
        for name, values in accuracies.items()
        if abs(fmean(values) - fmean(ours))
        > STANDARD_ERRORS * deviation * (1 / len(values) + 1 / len(ours)) ** 0.5
    }


def mark_differing(entries: Mapping[str, Any]) -> None:
    """Mark each result by whether its accuracy differs from ours."""
    results = {name: entry["result"] for name, entry in entries.items() if "result" in entry}
    deviating = differing({name: result["accuracy"] for name, result in results.items()})
    for name, result in results.items():
        result["differs"] = name in deviating


def conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two records of a version must share for their contenders to be compared."""
    facts = {name: value for name, value in record["machine"].items() if name != "date"}
    return {**record, "machine": facts, "contenders": None}


def part_of(data: Path, images: int, folder: Path) -> Path:
    """Write the first training images, and a sixth as many test images, to an .npz file."""
    mnist = dataset.load(data)
    path = folder / "images.npz"
    tests = max(1, images // 6)
    np.savez(
        path,
        x_train=mnist.x_train[:images],
        y_train=mnist.y_train[:images],
        x_test=mnist.x_test[:tests],
        y_test=mnist.y_test[:tests],
    )
    return path


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--version",
    "versions",
    type=click.Choice([*EPOCHS]),
    multiple=True,
    default=[*EPOCHS],
    help="Only these; what was measured of the others stays.",
)
@click.option(
    "--images",
    type=click.IntRange(1, 60_000),
    default=60_000,
    show_default=True,
    help="Training images.",
)
@click.option("--seeds", type=POSITIVE, default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=2), help="Of each version, instead of 15, 15, 3.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Instead of the committed results; for a part."
)
def main(
    names: Sequence[str],
    versions: Sequence[str],
    images: int,
    seeds: int,
    epochs: int | None,
    out: Path | None,
) -> None:
    """Train v1, v2 and v3 by each contender, or by those NAMES and ours, in turn.

    Run it on a machine with nothing else to do. Each version is written once it is measured; what
    was measured of contenders that are not named stays.
    """
    if not out and (images, seeds, epochs) != (60_000, 3, None):
        raise DigitsError(f"a part of it does not replace {frameworks_figure.RESULTS}: add --out")
    threads = len(os.sched_getaffinity(0))
    settings = {"images": images, "seeds": seeds, "threads": threads}
    environment, tags = machine() | libraries(), dict(code().tags)
    records: dict[str, dict[str, Any]] = {
        version: {
            **settings,
            **{"epochs": epochs or EPOCHS[version], "machine": environment, "contenders": {}},
        }
        for version in sorted(set(versions))
    }
    written = out or frameworks_figure.RESULTS
    before = files.read_json(written) if written.exists() else {}
    if names:
        for version in before.keys() & records.keys():
            if conditions(before[version]) != conditions(records[version]):
                raise DigitsError(
                    f"{written}: {version} was measured on another machine or with other options: "
                    "measure all contenders, or add another --out"
                )
            records[version]["contenders"] = before[version]["contenders"]
    rows: dict[str, dict[str, Any]] = {}
    entrants: list[Contender] = []
    for contender in contenders(sorted({OURS, *names}) if names else ()):
        click.echo(f"environment: {contender.name}")
        row = rows[contender.name] = {"code": tags}
        if reason := install(contender):
            row["absent"] = reason
        else:
            entrants.append(contender)
        if contender.package and contender.is_installed:
            row["version"], row["environment_megabytes"] = installed(contender)
    with tempfile.TemporaryDirectory() as folder:
        data = part_of(paths.DATA, images, Path(folder))
        for version, record in records.items():
            able = [contender for contender in entrants if version in contender.versions]
            results, failures = compare(able, version, record["epochs"], seeds, data, threads)
            record["contenders"] |= {
                name: row
                | ({"result": results[name]} if name in results else {})
                | ({"failed": failures[name]} if name in failures else {})
                for name, row in rows.items()
            }
            mark_differing(record["contenders"])
            before[version] = record
            files.write_json(written, dict(sorted(before.items())))
            click.echo(f"wrote {version} to {written}")
    if not out:
        frameworks_figure.main()


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        click.echo(f"frameworks: {error}", err=True)
        sys.exit(1)
