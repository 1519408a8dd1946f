"""Layers of your own: `my_layers.SqueezeExcitation: {ratio: 4}` in params.yaml is the class here.

Every stage of training depends on this file. Arguments are passed as params.yaml has them; what
`get_config` returns is saved with the network.
"""

from typing import Any

from digits.core.keras_backend import keras


class SqueezeExcitation(keras.layers.Layer):  # type: ignore[misc]
    """Weighs each channel by what the whole map shows.

    Source: J. Hu, L. Shen and G. Sun, "Squeeze-and-excitation networks" (2018).
    """

    def __init__(self, ratio: int, **options: Any) -> None:
        """Take the number of channels for each unit in the middle."""
        super().__init__(**options)
        self.ratio = ratio

    def build(self, shape: tuple[int, ...]) -> None:
        """Make the two dense layers for inputs (n, height, width, channels)."""
        channels = shape[-1]
        self.squeeze = keras.layers.Dense(max(channels // self.ratio, 1), activation="relu")
        self.excite = keras.layers.Dense(channels, activation="sigmoid")
        self.squeeze.build((None, channels))
        self.excite.build((None, self.squeeze.units))

    def call(self, x: Any) -> Any:
        """Return the input, each channel multiplied by its weight."""
        weights = self.excite(self.squeeze(keras.ops.mean(x, axis=(1, 2))))
        return x * keras.ops.expand_dims(weights, (1, 2))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "ratio": self.ratio}
