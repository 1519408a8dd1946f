"""Exported networks, each with the .keras file that it was made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files
from digits.core.schema import Transform
from digits.serving.classifier import Classifier, ImageClassifier


def write(network: Any, model: Path, tta: Sequence[Transform], path: Path) -> None:
    """Export a network, read from a .keras file, with its TTA.

    Raises:
        DigitsError: a layer is the user's own; nothing is written.
    """
    from digits.serving.export import export  # Imports TensorFlow.

    files.write_bytes(path, export(network, tta, _identity(model, tta)))


def load(model: Path, tta: Sequence[Transform], exported: Path) -> Classifier:
    """Return what classifies as a .keras file with this TTA.

    That is the exported network if it was made of them. Else TensorFlow is imported, for a network
    that has been trained anew since, or that has layers of the user's own.

    Raises:
        DigitsError: there is no such .keras file, or it cannot be read.
    """
    if classifier := _current(model, tta, exported):
        return classifier

    from digits.core import models
    from digits.serving.keras_classifier import KerasClassifier

    return KerasClassifier(models.load(model), tta)


def read(model: Path, tta: Sequence[Transform], exported: Path) -> bytes:
    """Return the exported network of a .keras file with this TTA, exported if it has not been.

    Raises:
        DigitsError: there is no such .keras file, it cannot be read, or a layer is the user's own.
    """
    if _current(model, tta, exported):
        return exported.read_bytes()

    from digits.core import models
    from digits.serving.export import export

    return export(models.load(model), tta)


def _current(model: Path, tta: Sequence[Transform], exported: Path) -> ImageClassifier | None:
    """Return the exported network if it was made of this .keras file with this TTA."""
    if not (exported.exists() and model.exists()):
        return None
    try:
        classifier = ImageClassifier(exported)
    except DigitsError:  # It is damaged, and the .keras file answers as well.
        return None
    return classifier if classifier.made_of == _identity(model, tta) else None


def _identity(model: Path, tta: Sequence[Transform]) -> str:
    """Return the SHA-256 of a .keras file, and TTA."""
    return f"{files.sha256(model)} {json.dumps([transform.model_dump() for transform in tta])}"
