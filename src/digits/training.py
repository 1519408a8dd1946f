"""Fitting a network to images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES
from digits.backend import keras

Images = NDArray[np.float32]
Labels = NDArray[np.uint8]
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Attributes:
        number: from 1.
        metrics: loss (mean cross-entropy, nats) and accuracy (0 to 1) while training, and
            val_loss and val_accuracy where there are validation images.
        seconds: wall time.
        images_per_second: training images over wall time.
    """

    number: int
    metrics: dict[str, float]
    seconds: float
    images_per_second: float


def fit(
    model: keras.Model,
    x: Images,
    y: Labels,
    *,
    epochs: int,
    batch_size: int,
    validation: tuple[Images, Labels] | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: bool = False,
) -> list[Epoch]:
    """Train a compiled network and return what each epoch gave.

    Args:
        x: (n, 28, 28, 1) from 0 to 1.
        y: (n,) labels.
        on_epoch: is called after every epoch.
        progress: draw a progress bar.
    """
    log = _Log(len(x), on_epoch)
    model.fit(
        x,
        keras.utils.to_categorical(y, CLASSES),
        epochs=epochs,
        batch_size=batch_size,
        validation_data=validation
        and (validation[0], keras.utils.to_categorical(validation[1], CLASSES)),
        callbacks=[log],
        verbose=1 if progress else 0,
    )
    return log.epochs


class _Log(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps what Keras reports at the end of an epoch, with the time that it took."""

    def __init__(self, images: int, on_epoch: Callable[[Epoch], None]) -> None:
        super().__init__()
        self.images = images
        self.on_epoch = on_epoch
        self.epochs: list[Epoch] = []
        self.start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.perf_counter() - self.start
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.epochs.append(Epoch(epoch + 1, metrics, seconds, self.images / seconds))
        self.on_epoch(self.epochs[-1])


def history(epochs: Sequence[Epoch]) -> dict[str, list[str]]:
    """The metrics by epoch as columns of text, six decimals: the same for the same training."""
    names = [name for name in METRICS if name in epochs[0].metrics]
    columns = {"epoch": [str(epoch.number) for epoch in epochs]}
    return columns | {name: [f"{e.metrics[name]:.6f}" for e in epochs] for name in names}
