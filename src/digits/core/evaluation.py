"""How well probabilities match labels. Plain numpy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES

# Keras clips at the same value, so that a probability of 0 costs 16.1 and not infinity.
SMALLEST = 1e-7

WITHOUT_TTA = "test_without_tta"  # scores of the test images as they are

# Test images whose label got no majority when people labelled them anew. Source: C. Northcutt,
# A. Athalye and J. Mueller, "Pervasive label errors in test sets" (2021), cleanlab/label-errors.
DOUBTFUL = frozenset(
    [947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729]
)


def predicted_labels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The most probable digit for each row of (n, 10) probabilities: (n,) uint8."""
    digits: NDArray[np.uint8] = probabilities.argmax(axis=1).astype(np.uint8)
    return digits


def misclassified(probabilities: NDArray[np.float32], y: NDArray[np.uint8]) -> list[int]:
    """The indices of the images whose assigned digit is not their label, ascending."""
    wrong: list[int] = np.flatnonzero(predicted_labels(probabilities) != y).tolist()
    return wrong


def cross_entropy(probabilities: NDArray[np.float32], y: NDArray[np.uint8]) -> float:
    """Mean of -log(probability of the true digit), in nats."""
    true = probabilities[np.arange(len(y)), y].astype(np.float64)
    return float(-np.log(true.clip(SMALLEST, 1.0)).mean())


def confusion_matrix(y: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(10, 10) counts: row the true digit, column the assigned one."""
    cells = np.ravel_multi_index((y, predicted), (CLASSES, CLASSES))
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def score(probabilities: NDArray[np.float32], y: NDArray[np.uint8]) -> dict[str, Any]:
    """All that is reported of one set of images.

    Returns:
        loss (nats, 6 decimals), accuracy, errors, per_class_accuracy (10 numbers; None for
        a digit that does not occur) and confusion_matrix (10 rows of 10).
    """
    matrix = confusion_matrix(y, predicted_labels(probabilities))
    right, counts = np.diag(matrix), matrix.sum(axis=1)
    return {
        "loss": round(cross_entropy(probabilities, y), 6),
        "accuracy": round(int(right.sum()) / len(y), 6),
        "errors": len(y) - int(right.sum()),
        "per_class_accuracy": [
            round(int(r) / int(n), 6) if n else None for r, n in zip(right, counts, strict=True)
        ],
        "confusion_matrix": matrix.tolist(),
    }
