"""What the commands record of a training and of its scores: everything that a run is to have."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits.cli.options import Reference, root

if TYPE_CHECKING:
    from digits.core.dataset import Dataset
    from digits.core.schema import Params
    from digits.core.training import TrainingResult
    from digits.tracking.console import ConsoleLog
    from digits.tracking.run import Run


def train_recorded(
    version: str,
    parameters: "Params",
    images: "Dataset",
    file: Path | None,
    run: "Run",
    console: "ConsoleLog",
    reported: Reference,
) -> "TrainingResult":
    """Train a version, with everything about it logged to a run.

    Args:
        file: that the images were read from; None if they were fetched into memory.
    """
    from digits.reports.figures import learning_curves, png
    from digits.tracking import dvc_source
    from digits.tracking.machine import experiment, machine
    from digits.tracking.provenance import code
    from digits.tracking.training import train_tracked

    source = code()

    values = reported.get(version, {})
    names = ("parameters", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    run.tags(
        {
            "version": version,
            "stage": os.environ.get("DVC_STAGE") or "mlflow run",
            **source.tags,
            **(machine() | experiment()),
            **{f"reported_2018.{n}": round(values[n], 6) for n in names if n in values},
        }
    )
    result = train_tracked(
        version,
        parameters,
        images,
        parameters.seed,
        run,
        [console],
        patch=source.patch,
        source=dvc_source.find(images, file, root()),
    )
    console.print(f"trained in {result.timing['training_seconds']:.1f} s")
    curves = learning_curves(
        version, result.history, values.get("history"), parameters.model(version)
    )
    run.image(png(curves), "learning_curves.png")
    return result


def log_scores(
    run: "Run",
    name: str,
    scores: Mapping[str, Any],
    probabilities: Any,
    images: "Dataset",
    dataset_name: str,
    classes: Sequence[str],
) -> dict[str, bytes]:
    """Complete a run with the final scores and with figures of the errors, which are returned.

    Args:
        name: of the version or ensemble.
        probabilities: (n, classes) of the test images.
        dataset_name: of the images.
        classes: their names; empty if they have none.

    Returns:
        The PNG files by name.
    """
    from digits.reports import figures

    log_final_metrics(run, scores, images, dataset_name)
    matrix, test = scores["test"]["confusion_matrix"], (images.x_test, images.y_test, probabilities)
    drawn = {
        "confusion.png": figures.confusion(name, matrix, "test", classes),
        "misclassified.png": figures.misclassified(name, *test, classes),
    }
    pictures = {file: figures.png(figure) for file, figure in drawn.items()}
    for file, png in pictures.items():
        run.image(png, file)
    return pictures


def log_final_metrics(
    run: "Run", scores: Mapping[str, Any], images: "Dataset", dataset_name: str, version: str = ""
) -> None:
    """Log the final metrics, each with the images that it was computed on."""
    from digits.core.evaluation import final_metrics
    from digits.tracking.run import CONTEXTS

    metrics, prefix = final_metrics(scores), f"{version}." if version else ""
    for part, context in CONTEXTS.items():
        run.metrics(
            {f"{prefix}{n}": value for n, value in metrics.items() if n.startswith(f"{part}_")},
            images=(f"{dataset_name}-{context}", images.digest(part)),
        )


def complete_run(
    run: "Run",
    version: str,
    parameters: "Params",
    scores: Mapping[str, Any],
    parts: Mapping[str, Any],
    images: "Dataset",
    classes: Sequence[str],
) -> None:
    """Log a version's scores to the run that trained it, with the TTA that they were made with."""
    from digits.tracking.logged_model import TTA_TAG, tta_json

    run.tags({TTA_TAG: tta_json(parameters.tta.get(version, ()))})
    test = parts["test"].probabilities
    log_scores(run, version, scores, test, images, parameters.data.name, classes)
