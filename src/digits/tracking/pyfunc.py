"""A logged model as MLflow loads it for `mlflow.pyfunc` and `mlflow models serve`.

It comes with a copy of this module and of those that it imports.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from digits import DigitsError
from digits.serving.classifier import LOGGED_FILE, Classifier, ImageClassifier

# In the folder of a logged model; `mlflow.keras` chose the first.
NETWORK_FILE, TTA_FILE = "data/model.keras", "data/tta.json"


class PyfuncModel:
    """A classifier whose errors MLflow's server answers with status 400 and their text."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return what `ImageClassifier.predict` returns.

        Raises:
            MlflowException: an image has no value above 1.
        """
        try:
            return self._classifier.predict(images)
        except DigitsError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def classifier(folder: Path) -> Classifier:
    """Return the classifier of the logged model in a folder."""
    exported = folder / LOGGED_FILE
    return ImageClassifier(exported) if exported.exists() else _keras_classifier(folder)


def _keras_classifier(folder: Path) -> Classifier:
    """Return that of a network with the user's own layers, or of one that earlier code logged."""
    from digits.core import models
    from digits.core.schema import Transform
    from digits.serving.keras_classifier import KerasClassifier

    tta = json.loads((folder / TTA_FILE).read_text())
    transforms = [Transform.model_validate(transform) for transform in tta]
    return KerasClassifier(models.load(folder / NETWORK_FILE), transforms)


def _load_pyfunc(path: str) -> PyfuncModel:
    """Load the logged model in a folder; MLflow calls this function by its name."""
    return PyfuncModel(classifier(Path(path)))
