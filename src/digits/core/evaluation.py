"""Probabilities and scores: of one network or the mean of several, with or without TTA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES
from digits.core import files
from digits.core.dataset import Dataset, Images, Labels, pixels
from digits.core.schema import Transform

BATCH_SIZE = 1000  # images in one forward pass
# Keras clips at the same value, so that a probability of 0 costs 16.1 and not infinity.
SMALLEST = 1e-7

WITHOUT_TTA = "test_without_tta"  # the part of an evaluation that takes the test images as they are

# Test images of MNIST whose label got no majority when people labelled them anew. Source:
# C. Northcutt, A. Athalye and J. Mueller, "Pervasive label errors in test sets" (2021),
# cleanlab/label-errors.
DOUBTFUL = frozenset(
    [947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729]
)

Probabilities = NDArray[np.float32]  # (n, 10)


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
    """Return a network's (n, 10) probabilities, with TTA the mean over the transforms.

    Args:
        network: its `predict` takes (n, 28, 28, 1) float32 pixels.
        images: (n, 28, 28) uint8.
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
    """Return the mean of several (n, 10) probabilities: of transforms, or of networks."""
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
        What metrics/scores/ holds: the number of parameters, the scores by part, the misclassified
        test images, the layers. And the evaluations by part: `train`, `test` and, with TTA,
        `test_without_tta`.
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
            line = "".join(map(str, predicted_labels(evaluation.probabilities)))
            files.write_text(folder / name / f"assigned_labels_{part}.txt", line + "\n")
        files.write_array(folder / name / "probabilities_test.npy", test)
    if folder := folders["confusion"]:
        table = {"actual": labels.tolist(), "predicted": predicted_labels(test).tolist()}
        files.write_columns(folder / f"{name}.csv", table)


def score(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Compare probabilities with labels.

    Returns:
        loss (nats, 6 decimals), accuracy, errors, per_class_accuracy (10 numbers; None for
        a digit that does not occur) and confusion_matrix (10 rows of 10).
    """
    matrix = confusion_matrix(labels, predicted_labels(probabilities))
    right, counts = np.diag(matrix), matrix.sum(axis=1)
    return {
        "loss": round(cross_entropy(probabilities, labels), 6),
        "accuracy": round(int(right.sum()) / len(labels), 6),
        "errors": len(labels) - int(right.sum()),
        "per_class_accuracy": [
            round(int(r) / int(n), 6) if n else None for r, n in zip(right, counts, strict=True)
        ],
        "confusion_matrix": matrix.tolist(),
    }


def predicted_labels(probabilities: Probabilities) -> Labels:
    """Return the most probable digit of each row: (n,) uint8."""
    labels: Labels = probabilities.argmax(axis=1).astype(np.uint8)
    return labels


def misclassified(probabilities: Probabilities, labels: Labels) -> list[int]:
    """Return the indices of the images whose predicted digit is not their label, ascending."""
    indices: list[int] = np.flatnonzero(predicted_labels(probabilities) != labels).tolist()
    return indices


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of -log(probability of the true digit), in nats."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(true.clip(SMALLEST, 1.0)).mean())


def confusion_matrix(labels: Labels, predicted: Labels) -> NDArray[np.int64]:
    """Return (10, 10) counts: a row for each true digit, a column for each predicted one."""
    cells = np.ravel_multi_index((labels, predicted), (CLASSES, CLASSES))
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
