"""Probabilities and scores: of one network or the mean of several, with or without TTA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits.core import files
from digits.core.dataset import Dataset, Images, Labels, pixels
from digits.core.schema import Transform

BATCH_SIZE = 1000  # images in one forward pass
# Keras clips at the same value, so that a probability of 0 costs 16.1 and not infinity.
SMALLEST = 1e-7

WITHOUT_TTA = "test_without_tta"  # the part of an evaluation that takes the test images as they are

Probabilities = NDArray[np.float32]  # (n, classes)


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating networks on labelled images.

    Attributes:
        probabilities: the mean over the networks.
        member_probabilities: of each network.
        scores: as `score` returns them.
    """

    probabilities: Probabilities
    member_probabilities: Sequence[Probabilities]
    scores: dict[str, Any]


def predict_probabilities(
    network: Any, images: Images, tta: Sequence[Transform] = ()
) -> Probabilities:
    """Return a network's (n, classes) probabilities, with TTA the mean over the transforms.

    Args:
        network: its `predict` takes (n, height, width, channels) float32 pixels.
        images: uint8.
    """
    if not tta:
        return _predict(network, pixels(images))
    from digits.core.augmentation import apply_transform  # Imports TensorFlow.

    return average_probabilities(
        [_predict(network, np.asarray(apply_transform(transform, images))) for transform in tta]
    )


def _predict(network: Any, x: NDArray[np.float32]) -> Probabilities:
    probabilities: Probabilities = network.predict(x, batch_size=BATCH_SIZE, verbose=0)
    return probabilities


def average_probabilities(several: Sequence[Probabilities]) -> Probabilities:
    """Return the mean of several (n, classes) probabilities: of transforms, or of networks."""
    mean: Probabilities = np.mean(several, axis=0)
    return mean


def evaluate_model(
    networks: Sequence[Any], images: Images, labels: Labels, tta: Sequence[Transform] = ()
) -> Evaluation:
    """Score a network, or the ensemble of several, on labelled images."""
    members = [predict_probabilities(network, images, tta) for network in networks]
    mean = average_probabilities(members) if len(members) > 1 else members[0]
    return Evaluation(mean, members, score(mean, labels))


def evaluate_on(
    networks: Sequence[Any], dataset: Dataset, tta: Sequence[Transform] = ()
) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    """Evaluate a network, or the ensemble of several, on all images of a dataset.

    Returns:
        What metrics/scores/ holds: the number of parameters, the names of the classes if the data
        have any, the scores by part, the misclassified test images, the layers. And the evaluations
        by part: `train`, `test` and, with TTA, `test_without_tta`.
    """
    from digits.core import models  # Imports TensorFlow, for which `score` need not wait.

    parts = {
        "train": evaluate_model(networks, dataset.x_train, dataset.y_train, tta),
        "test": evaluate_model(networks, dataset.x_test, dataset.y_test, tta),
    }
    if tta:
        parts[WITHOUT_TTA] = evaluate_model(networks, dataset.x_test, dataset.y_test)
    scores = {
        "parameters": sum(network.count_params() for network in networks),
        **({"class_names": [*dataset.class_names]} if dataset.class_names else {}),
        **{part: evaluation.scores for part, evaluation in parts.items()},
        "misclassified": misclassified(parts["test"].probabilities, dataset.y_test),
        "layers": models.describe(networks[0]),
    }
    return scores, parts


def final_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return train_loss, train_accuracy, train_errors, test_loss, … of a version's scores."""
    return {
        f"{part}_{name}": scores[part][name]
        for part in ("train", "test", WITHOUT_TTA)
        if part in scores
        for name in ("loss", "accuracy", "errors")
    }


def write_evaluation(
    name: str,
    labels: Labels,
    scores: Mapping[str, Any],
    parts: Mapping[str, Evaluation],
    folders: Mapping[str, Path | None],
) -> None:
    """Write an evaluation to the folders `scores`, `predictions`, `confusion`, if they are set.

    Args:
        name: of the version.
        labels: (n,) of the test images.
        scores, parts: as `evaluate_on` returns them.
    """
    test = parts["test"].probabilities
    if folder := folders["scores"]:
        files.write_json(folder / f"{name}.json", scores)
    if folder := folders["predictions"]:
        for part, evaluation in parts.items():
            separator = "" if test.shape[1] <= 10 else " "  # Ten digits need none.
            line = separator.join(map(str, predicted_labels(evaluation.probabilities)))
            files.write_text(folder / name / f"assigned_labels_{part}.txt", line + "\n")
        files.write_array(folder / name / "probabilities_test.npy", test)
    if folder := folders["confusion"]:
        table = {"actual": labels.tolist(), "predicted": predicted_labels(test).tolist()}
        files.write_columns(folder / f"{name}.csv", table)


def score(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Compare probabilities with labels.

    Returns:
        loss (nats), accuracy, errors; by class its precision, recall and f1, None where there is
        nothing to divide by; confusion_matrix, a row for each true class. Numbers have 6 decimals.
    """
    matrix = confusion_matrix(labels, predicted_labels(probabilities), probabilities.shape[1])
    right, true, assigned = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "loss": round(cross_entropy(probabilities, labels), 6),
        "accuracy": round(int(right.sum()) / len(labels), 6),
        "errors": len(labels) - int(right.sum()),
        "precision": _shares(right, assigned),
        "recall": _shares(right, true),
        "f1": _shares(2 * right, true + assigned),
        "confusion_matrix": matrix.tolist(),
    }


def _shares(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> list[float | None]:
    return [
        round(int(count) / int(total), 6) if total else None
        for count, total in zip(counts, totals, strict=True)
    ]


def predicted_labels(probabilities: Probabilities) -> Labels:
    """Return the most probable class of each row: (n,) uint8."""
    labels: Labels = probabilities.argmax(axis=1).astype(np.uint8)
    return labels


def misclassified(probabilities: Probabilities, labels: Labels) -> list[int]:
    """Return the indices of the images whose predicted class is not their label, ascending."""
    indices: list[int] = np.flatnonzero(predicted_labels(probabilities) != labels).tolist()
    return indices


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of -log(probability of the true class), in nats."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(true.clip(SMALLEST, 1.0)).mean())


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return (classes, classes) counts: a row for each true class, a column for each predicted."""
    cells = np.ravel_multi_index((labels, predicted), (classes, classes))
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
