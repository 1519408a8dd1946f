"""A network that answers: raw images in, labels and probabilities out.

MLflow loads it from the models that it keeps, with the code of this package that lies beside them,
for `mlflow.pyfunc` and `mlflow models serve`; `digits predict` and `digits draw` use it too.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import IMAGE_SIDE
from digits.core import models, prediction
from digits.core.keras_backend import tf
from digits.core.schema import Transform

# In the folder of a model of MLflow; the first is where `mlflow.keras` has it.
NETWORK, VIEWS = "data/model.keras", "data/tta.json"
MAX_BATCH = 512  # images at once

Answers = Mapping[str, NDArray[Any]]


class Served:
    """A network and the tta through which it sees an image. Threads may share it."""

    def __init__(self, network: Any, tta: Sequence[Transform] = ()) -> None:
        self._graph, self._views = _Graph(network), tta

    def predict(self, images: NDArray[np.uint8]) -> Answers:
        """The `label` (n,) int64 and the `probabilities` (n, 10) float32 of images.

        Args:
            images: (n, 28, 28) uint8, ink 255 on paper 0, as MNIST has them.

        Raises:
            ValueError: they are of another shape or type, or have numbers from 0 to 1 alone.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = getattr(images, "dtype", type(images).__name__)
            raise ValueError(f"expected (n, 28, 28) uint8 images, got {found}")
        if images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE):
            raise ValueError(f"expected (n, 28, 28) uint8 images, got the shape {images.shape}")
        # Numbers from 0 to 1 have been cut off by now, where MLflow read them from JSON.
        pale = np.flatnonzero(images.max(axis=(1, 2), initial=0) <= 1)
        if len(pale):
            raise ValueError(
                f"image {pale[0]} has no ink: all its numbers are 0 or 1, expected some up to 255"
            )
        parts = [self._some(images[at : at + MAX_BATCH]) for at in range(0, len(images), MAX_BATCH)]
        probabilities = np.concatenate([np.zeros((0, 10), np.float32), *parts])
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    def _some(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Filled up to a power of two: each number of images has a graph of its own to compile."""
        whole = 1 << (len(images) - 1).bit_length()
        padded = np.pad(images, ((0, whole - len(images)), (0, 0), (0, 0)))
        return prediction.probabilities(self._graph, padded, self._views)[: len(images)]


class _Graph:
    """A network whose `predict` is its graph and nothing else, without Keras's work around it."""

    def __init__(self, network: Any) -> None:
        shape = tf.TensorSpec(network.input_shape, tf.float32)
        self._graph = tf.function(
            lambda x: network(x, training=False), input_signature=[shape], autograph=False
        )

    def predict(
        self, x: NDArray[np.float32], batch_size: int, verbose: int = 0
    ) -> NDArray[np.float32]:
        parts = [self._graph(x[at : at + batch_size]) for at in range(0, len(x), batch_size)]
        return np.concatenate([part.numpy() for part in parts])


class _OfMLflow(Served):
    """Tells why it refuses images in the one way that MLflow's server hands on."""

    def predict(self, images: NDArray[np.uint8], params: object = None) -> Answers:
        try:
            return super().predict(images)
        except ValueError as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from error


def _load_pyfunc(path: str) -> Served:
    """MLflow's way in: the model in a folder that `tracking.models` made."""
    folder = Path(path)
    tta = [Transform.model_validate(view) for view in json.loads((folder / VIEWS).read_text())]
    return _OfMLflow(models.load(folder / NETWORK), tta)
