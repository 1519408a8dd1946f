"""Classify raw images with Keras: networks with layers of the user's own, which have no ONNX."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits.core.evaluation import predict_probabilities
from digits.core.keras_backend import tf
from digits.core.schema import Transform
from digits.serving.classifier import Classifier


class KerasClassifier(Classifier):
    """A network with its test-time augmentation, in TensorFlow."""

    def __init__(self, network: Any, tta: Sequence[Transform] = ()) -> None:
        self._network, self._tta = CompiledNetwork(network), tta
        self.image_shape = network.input_shape[1:]
        self.classes = network.output_shape[-1]

    def _predict_batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pad a batch to a power of two, since XLA compiles a transform anew for each size."""
        size = 1 << (len(images) - 1).bit_length()
        rest = [(0, 0)] * (images.ndim - 1)
        padded = np.pad(images, [(0, size - len(images)), *rest])
        return predict_probabilities(self._network, padded, self._tta)[: len(images)]


class CompiledNetwork:
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
