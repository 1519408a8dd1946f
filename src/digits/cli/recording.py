"""What a command leaves behind: files, and its run in MLflow."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from digits import IMAGE_SIDE, DigitsError
from digits.core import evaluation, files, pipeline, training
from digits.core.dataset import Dataset
from digits.core.pipeline import Console, Probabilities
from digits.core.schema import Params, Transform
from digits.reports import figures
from digits.tracking import local_store, machine, promotion, registry
from digits.tracking.connection import find_run
from digits.tracking.logged_model import TTA_TAG, tta_json
from digits.tracking.outbox import one_line
from digits.tracking.run import Run


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
            line = "".join(map(str, evaluation.predicted_labels(values)))
            files.write_text(predictions / name / f"assigned_labels_{part}.txt", line + "\n")
        files.write_array(predictions / name / "probabilities_test.npy", probabilities["test"])
    if confusion := folders["confusion"]:
        assigned = evaluation.predicted_labels(probabilities["test"])
        table = {"actual": mnist.y_test.tolist(), "predicted": assigned.tolist()}
        files.write_columns(confusion / f"{name}.csv", table)


def complete_run(
    name: str,
    model: Path,
    run: Run | None,
    mnist: Dataset,
    probabilities: Probabilities,
    scored: Mapping[str, Any],
    tta: Sequence[Transform],
    classes: Sequence[str] | None = None,
) -> None:
    """Log the scores to the run that made the model file, if there is one."""
    if run:
        run.tags({TTA_TAG: tta_json(tta)})
        pipeline.log_scores(name, scored, mnist, probabilities, run, classes)
    else:
        click.echo(
            f"{name}: warning: MLflow has no run that made {model}; its scores are in the metrics "
            "files only",
            err=True,
        )


def register(
    found: Mapping[str, Path], parameters: Params, root: Path, force: bool = False
) -> None:
    """Register the models of .keras files, by version, and move the alias `champion` by the rule.

    Raises:
        DigitsError: MLflow's registry cannot be used.
    """
    own = local_store.address(root) == local_store.own_address(root)
    try:
        with local_store.alone(root) if own else nullcontext():
            reason = _register(found, parameters, root, force)
    except DigitsError:
        raise
    except Exception as error:  # of MLflow, its database or the network: any may come through
        raise DigitsError(
            f"MLflow registry: {one_line(error)}; `digits register` tries again"
        ) from error
    click.echo(f"{parameters.registry.name}@champion: {reason}")


def _register(found: Mapping[str, Path], parameters: Params, root: Path, force: bool) -> str:
    rule, entries = parameters.registry, []
    for version, path in found.items():
        run = find_run(path, root=root)
        if run is None:
            click.echo(f"{version}: not registered: MLflow has no run that made {path}", err=True)
            continue
        tta = parameters.tta.get(version, [])
        entry = registry.register(rule.name, run, tta, partial(_examples, path, tta))
        if entry:
            entries.append(entry)
        else:
            click.echo(
                f"{version}: not registered: its run has no scores with these tta: `digits "
                "send` if it waits for a server, else `dvc repro -f evaluate`",
                err=True,
            )
    present = registry.champion(rule.name)
    best, reason = promotion.select_champion(entries, present, rule, force)
    if best and best != present:
        registry.set_champion(rule.name, best)
    return reason


def _examples(path: Path, tta: Sequence[Transform]) -> Any:
    from digits.core import models, prediction

    network, blank = models.load(path), np.zeros((1, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    return network, blank, prediction.probabilities(network, blank, tta)


def console() -> Console:
    """Says lines on the terminal, with a progress bar where one can be seen."""
    return Console(click.echo, bar=sys.stderr.isatty())


@contextmanager
def logged(console: Console, run: Run) -> Iterator[None]:
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
        **machine.code(),
        **machine.machine(),
        **machine.experiment(),
        **{f"reported_2018.{name}": known[name] for name in names if name in known},
    }


def log_curves(
    run: Run, version: str, epochs: Sequence[training.Epoch], reported: Mapping[str, Any]
) -> None:
    """Log the figure of the learning curves."""
    columns = {k: [float(x) for x in v] for k, v in training.history(epochs).items()}
    known = reported.get(version, {}).get("history")
    run.figure(figures.learning_curves(version, columns, known), "learning_curves.png")
