"""`make frameworks`: race our training against other frameworks; writes metrics/frameworks.json."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import IO, Any

import click
import numpy as np

import frameworks_figure
import paths
from digits import DigitsError
from digits.core import dataset, files
from digits.tracking.machine import libraries, machine
from digits.tracking.provenance import code
from environments import WORKER, Contender, contenders, install, installed
from samples import summarise

OUT = Path("metrics/frameworks.json")
EPOCHS = {"v1": 15, "v2": 15, "v3": 3}
DEVIATIONS = 3  # beyond so many standard errors an accuracy is another one
POSITIVE = click.IntRange(min=1)


@dataclass
class Trainee:
    """A contender in training, in a process of its own; see worker.py.

    Attributes:
        seconds: of each epoch, of which the first one compiles.
        scores: what the process measured after the last epoch.
    """

    process: "subprocess.Popen[str]"
    errors: IO[str]
    import_seconds: float = 0
    seconds: list[float] = field(default_factory=list)
    scores: Mapping[str, float] = field(default_factory=dict)

    def receive(self) -> Any:
        """Return the next line of the process.

        Raises:
            DigitsError: the process has ended; says why.
        """
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["no message"]
            raise DigitsError(lines[-1].strip()[:200])
        return json.loads(line)

    def proceed(self) -> Any:
        """Let the process do its next part, and return what it says then."""
        assert self.process.stdin
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # What it said before it ended is the reason.
        return self.receive()


def start(
    stack: ExitStack,
    contender: Contender,
    version: str,
    epochs: int,
    seed: int,
    data: Path,
    threads: int,
) -> Trainee:
    """Start a contender's process, which ends with the stack; arguments as of worker.py."""
    errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
    command = [str(contender.python), str(WORKER), str(contender.path)]
    process = subprocess.Popen(
        [*command, version, str(epochs), str(seed), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=os.environ | _threads(threads) | contender.variables,
    )
    stack.enter_context(process)  # closes its input, which ends it, and waits
    trainee = Trainee(process, errors)
    trainee.import_seconds = trainee.receive()["import_seconds"]
    return trainee


def _threads(count: int) -> dict[str, str]:
    """Return the variables that hold every framework to so many threads.

    Without them scikit-learn and PyTensor can be tens of times slower. XLA takes as many as there
    are cores.
    """
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    counts = {f"{name}_NUM_THREADS": str(count) for name in names}
    return counts | {"TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": str(count)}


def train_in_turn(
    field: Sequence[Contender], version: str, epochs: int, seed: int, data: Path, threads: int
) -> tuple[dict[str, Trainee], dict[str, str]]:
    """Train a version by each contender, one epoch each in turn, so that noise affects all alike.

    Returns:
        The trainees by name, and of those that failed the reasons.
    """
    trainees: dict[str, Trainee] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for contender in field:
            try:
                trainees[contender.name] = start(
                    stack, contender, version, epochs, seed, data, threads
                )
            except DigitsError as error:
                failures[contender.name] = str(error)
        for turn in range(epochs + 1):
            for name in list(trainees):
                try:
                    answer = trainees[name].proceed()
                except DigitsError as error:
                    failures[name] = str(error)
                    del trainees[name]
                    continue
                if turn < epochs:
                    trainees[name].seconds.append(answer["seconds"])
                else:
                    trainees[name].scores = answer
    return trainees, failures


def compare(
    field: Sequence[Contender], version: str, epochs: int, seeds: int, data: Path, threads: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure one version by each contender.

    Returns:
        By name the test accuracies over the seeds, seconds by epoch without the first, ratios to
        ours, and what else worker.py measures; and of those that failed the reasons.
    """
    runs: dict[str, list[Trainee]] = {contender.name: [] for contender in field}
    failures: dict[str, str] = {}
    for seed in range(1, seeds + 1):
        alive = [contender for contender in field if contender.name not in failures]
        click.echo(f"{version}, seed {seed}: {', '.join(contender.name for contender in alive)}")
        trainees, failed = train_in_turn(alive, version, epochs, seed, data, threads)
        failures |= failed
        for name, trainee in trainees.items():
            runs[name].append(trainee)
    measured = {name: runs[name] for name in runs if name not in failures}
    accuracies = {name: [run.scores["accuracy"] for run in measured[name]] for name in measured}
    far = differing(accuracies)
    results = {
        name: {
            "accuracy": accuracies[name],
            "differs": name in far,
            "import_seconds": [run.import_seconds for run in trained],
            "first_epoch_seconds": median(run.seconds[0] for run in trained),
            "epoch_seconds": summarise(_later(trained)),
            "ratio_to_ours": summarise(
                [
                    one / ours
                    for one, ours in zip(_later(trained), _later(measured["ours"]), strict=True)
                ]
            ),
            **{
                key: median(run.scores[key] for run in trained)
                for key in ("one_image_seconds", "test_images_seconds", "megabytes")
            },
        }
        for name, trained in measured.items()
    }
    return results, failures


def _later(runs: Sequence[Trainee]) -> list[float]:
    """Return the seconds of all epochs but each run's first one, which compiles."""
    return [seconds for run in runs for seconds in run.seconds[1:]]


def differing(accuracies: Mapping[str, Sequence[float]]) -> set[str]:
    """Return the contenders whose mean is another one than ours by more than chance.

    That is, further from it than three standard errors, with the standard deviation over seeds
    pooled over all contenders, since each has but a few.
    """
    several = [values for values in accuracies.values() if len(values) > 1]
    if not several:
        return set()
    deviation = fmean(stdev(values) ** 2 for values in several) ** 0.5
    ours = accuracies["ours"]
    return {
        name
        for name, values in accuracies.items()
        if abs(fmean(values) - fmean(ours))
        > DEVIATIONS * deviation * (1 / len(values) + 1 / len(ours)) ** 0.5
    }


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
@click.option("--images", type=POSITIVE, default=60_000, show_default=True, help="For training.")
@click.option("--seeds", type=POSITIVE, default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=2), help="Of each version, instead of 15, 15, 3.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(names: Sequence[str], images: int, seeds: int, epochs: int | None, out: Path) -> None:
    """Train v1, v2 and v3 by each contender, or by those NAMES and ours, in turn.

    Run it on a machine with nothing else to do.
    """
    absent: dict[str, str] = {}
    field: list[Contender] = []
    for contender in contenders(sorted({"ours", *names}) if names else ()):
        click.echo(f"environment: {contender.name}")
        if reason := install(contender):
            absent[contender.name] = reason
        else:
            field.append(contender)
    field = [contender for contender in field if contender.file]
    threads = len(os.sched_getaffinity(0))
    versions: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = part_of(paths.DATA, images, Path(folder))
        for version, full in EPOCHS.items():
            able = [contender for contender in field if version in contender.versions]
            count = epochs or full
            versions[version], failures = compare(able, version, count, seeds, data, threads)
            absent |= failures
    rows = {}
    for contender in contenders():
        row: dict[str, Any] = {}
        if contender.is_installed and contender.package:
            row["version"], row["environment_megabytes"] = installed(contender)
        row["versions"] = {
            version: results[contender.name]
            for version, results in versions.items()
            if contender.name in results
        }
        if contender.name in absent:
            row["absent"] = absent[contender.name]
        if row["versions"] or contender.name in absent:
            rows[contender.name] = row
    settings = {"images": images, "seeds": seeds, "threads": threads}
    counts = {version: epochs or full for version, full in EPOCHS.items()}
    environment = machine() | libraries() | dict(code().tags)
    files.write_json(
        out, {**settings, "epochs": counts, "machine": environment, "contenders": rows}
    )
    if out == OUT:
        frameworks_figure.main()
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        click.echo(f"frameworks: {error}", err=True)
        sys.exit(1)
