"""What a command leaves behind: files, and its run in MLflow."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from digits import environment, evaluation, files, pipeline, plots, tracking, training
from digits.dataset import Dataset
from digits.pipeline import Console, Probabilities


def write_evaluation(
    name: str,
    mnist: Dataset,
    probabilities: Probabilities,
    scored: Mapping[str, Any],
    folders: Mapping[str, Path | None],
) -> None:
    """Write what an evaluation gave to those of the folders that are given."""
    if scores := folders["scores"]:
        files.write_json(scores / f"{name}.json", scored)
    if predictions := folders["predictions"]:
        for part, values in probabilities.items():
            line = "".join(map(str, evaluation.assigned(values)))
            files.write_text(predictions / name / f"assigned_labels_{part}.txt", line + "\n")
        files.write_array(predictions / name / "probabilities_test.npy", probabilities["test"])
    if confusion := folders["confusion"]:
        assigned = evaluation.assigned(probabilities["test"])
        table = {"actual": mnist.y_test.tolist(), "predicted": assigned.tolist()}
        files.write_columns(confusion / f"{name}.csv", table)


def complete_run(
    name: str,
    model: Path,
    run: tracking.Run | None,
    mnist: Dataset,
    probabilities: Probabilities,
    scored: Mapping[str, Any],
) -> None:
    """Log the scores to the run that made the model file, if there is one."""
    if run:
        pipeline.log_scores(name, scored, mnist, probabilities, run)
    else:
        click.echo(
            f"{name}: warning: MLflow has no run that made {model}; its scores are in the metrics "
            "files only",
            err=True,
        )


def console() -> Console:
    """Says lines on the terminal, with a progress bar where one can be seen."""
    return Console(click.echo, bar=sys.stderr.isatty())


@contextmanager
def logged(console: Console, run: tracking.Run) -> Iterator[None]:
    """Log what the console said to the run, whatever happens, and why it ended if it failed."""
    try:
        yield
    except BaseException as error:
        console.lines.append(f"{type(error).__name__}: {error}")
        raise
    finally:
        run.text("\n".join(console.lines) + "\n", "console.log")


def tags(version: str, reported: Mapping[str, Any]) -> dict[str, object]:
    """What a run is found by: version, stage, state of the code, and the values of 2018."""
    known = reported.get(version, {})
    names = ("parameters", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return {
        "version": version,
        "stage": os.environ.get("DVC_STAGE") or "mlflow run",
        **environment.code(),
        **environment.machine(),
        **environment.experiment(),
        **{f"reported_2018.{name}": known[name] for name in names if name in known},
    }


def log_curves(
    run: tracking.Run, version: str, epochs: Sequence[training.Epoch], reported: Mapping[str, Any]
) -> None:
    """Log the figure of the learning curves."""
    columns = {k: [float(x) for x in v] for k, v in training.history(epochs).items()}
    known = reported.get(version, {}).get("history")
    run.figure(plots.learning_curves(version, columns, known), "learning_curves.png")
