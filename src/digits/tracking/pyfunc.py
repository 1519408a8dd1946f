"""Classify raw images with a network: the form in which models are deployed.

MLflow loads it for `mlflow.pyfunc` and `mlflow models serve`, from a logged model and the copy of
this package beside it; `digits predict` and `digits draw` use it too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits.core import models
from digits.core.evaluation import predict_probabilities
from digits.core.keras_backend import tf
from digits.core.schema import Transform

# In the folder of a logged model; `mlflow.keras` chose the first.
NETWORK_FILE, TTA_FILE = "data/model.keras", "data/tta.json"
MAX_BATCH = 512  # images per call of the network, a power of two


class ImageClassifier:
    """A network with its test-time augmentation. Threads may share it."""

    def __init__(self, network: Any, tta: Sequence[Transform] = ()) -> None:
        self._network, self._tta = _CompiledNetwork(network), tta
        self.image_shape: tuple[int, ...] = network.input_shape[1:]
        self.classes: int = network.output_shape[-1]

    def predict(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the `label` (n,) int64, the `probabilities` (n, classes) float32 of images.

        Args:
            images: uint8 as in training: of MNIST (n, 28, 28), ink 255 on background 0.

        Raises:
            MlflowException: an image has no value above 1.
        """
        # Values scaled to 0 … 1 arrive here truncated to integers when MLflow reads them from JSON.
        pale = np.flatnonzero(images.max(axis=tuple(range(1, images.ndim)), initial=0) <= 1)
        if len(pale):
            from mlflow.exceptions import MlflowException

            # MLflow's server answers this error with status 400 and its text.
            raise MlflowException.invalid_parameter_value(
                f"image {pale[0]} has no ink: all its numbers are 0 or 1, expected some up to 255"
            )
        batches = [images[at : at + MAX_BATCH] for at in range(0, len(images), MAX_BATCH)]
        empty = np.zeros((0, self.classes), np.float32)
        probabilities = np.concatenate([empty, *map(self._predict_batch, batches)])
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    def _predict_batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pad a batch to a power of two, since XLA compiles a transform anew for each size."""
        size = 1 << (len(images) - 1).bit_length()
        rest = [(0, 0)] * (images.ndim - 1)
        padded = np.pad(images, [(0, size - len(images)), *rest])
        return predict_probabilities(self._network, padded, self._tta)[: len(images)]


class _CompiledNetwork:
    """A network whose `predict` calls its graph directly, without Keras's overhead per call."""

    def __init__(self, network: Any) -> None:
        self._graph = tf.function(
            lambda x: network(x, training=False),
            input_signature=[tf.TensorSpec(network.input_shape, tf.float32)],
            autograph=False,
        )

    def predict(self, x: NDArray[np.float32], **_options: Any) -> NDArray[np.float32]:
        """Return (n, classes) probabilities; Keras's options, as batch_size, do not matter here."""
        probabilities: NDArray[np.float32] = self._graph(x).numpy()
        return probabilities


def _load_pyfunc(path: str) -> ImageClassifier:
    """Load the logged model in a folder; MLflow calls this function by its name."""
    folder = Path(path)
    tta = json.loads((folder / TTA_FILE).read_text())
    transforms = [Transform.model_validate(transform) for transform in tta]
    return ImageClassifier(models.load(folder / NETWORK_FILE), transforms)
