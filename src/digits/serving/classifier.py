"""Classify raw images with an exported network: the form in which models answer.

A logged model carries this module. It needs NumPy and ONNX Runtime alone.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from digits import DigitsError

# Names in the model, and keys of its metadata.
IMAGES, LABEL, PROBABILITIES = "images", "label", "probabilities"
MADE_OF = "made_of"
LOGGED_FILE = "data/model.onnx"  # in the folder of a model that MLflow has
MAX_BATCH = 512  # images per call, so that memory does not grow with the request


class Classifier:
    """What maps raw images to labels and probabilities. Threads may share it.

    Attributes:
        image_shape: height, width and channels of an image.
        classes: how many there are.
    """

    image_shape: tuple[int, ...]
    classes: int

    def predict(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the `label` (n,) int64, the `probabilities` (n, classes) float32 of images.

        Args:
            images: uint8 as in training: of MNIST (n, 28, 28), ink 255 on background 0.

        Raises:
            DigitsError: an image has no value above 1.
        """
        # MLflow cuts values scaled to 0 … 1 to integers when it reads them from JSON.
        pale = np.flatnonzero(images.max(axis=tuple(range(1, images.ndim)), initial=0) <= 1)
        if len(pale):
            raise DigitsError(
                f"image {pale[0]} has no ink: all its numbers are 0 or 1, expected some up to 255"
            )
        probabilities = self.probabilities(images)
        return {LABEL: probabilities.argmax(axis=1), PROBABILITIES: probabilities}

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the (n, classes) probabilities of images as `predict` takes them, ink or not."""
        batches = [images[at : at + MAX_BATCH] for at in range(0, len(images), MAX_BATCH)]
        empty = np.zeros((0, self.classes), np.float32)
        return np.concatenate([empty, *map(self._predict_batch, batches)])

    def _predict_batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError


class ImageClassifier(Classifier):
    """A network with its test-time augmentation, in ONNX Runtime.

    Attributes:
        made_of: network and TTA that it was exported from, as `export` takes them.
    """

    def __init__(self, model: bytes | Path) -> None:
        """Load a model from its bytes or its file.

        Raises:
            DigitsError: it is none; names the file.
        """
        options = onnxruntime.SessionOptions()
        # Threads that wait for work would spin on the cores that others compute on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = model.read_bytes() if isinstance(model, Path) else model
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            (images,), (_, probabilities) = self._session.get_inputs(), self._session.get_outputs()
            self.image_shape = (*images.shape[1:], 1)[:3]
            self.classes = probabilities.shape[1]
            self.made_of: str = self._session.get_modelmeta().custom_metadata_map[MADE_OF]
        except Exception as error:  # ONNX Runtime has a class for each kind.
            name = model if isinstance(model, Path) else "model"
            raise DigitsError(f"{name}: expected a model that `digits` exported as ONNX") from error

    def _predict_batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (probabilities,) = self._session.run([PROBABILITIES], {IMAGES: images})
        return np.asarray(probabilities, np.float32)
