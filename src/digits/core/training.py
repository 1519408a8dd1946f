"""Fitting a network to images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from digits import CLASSES
from digits.core import models, schema, train_step
from digits.core.dataset import pixels
from digits.core.keras_backend import keras, tf

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
# In one call from Python: so many that it costs nothing, so few that an interruption takes effect
# within seconds.
IMAGES_PER_CALL = 4096


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave.

    Attributes:
        number: from 1.
        metrics: loss (mean, nats) and accuracy (0 to 1) while training, and val_loss and
            val_accuracy where there are validation images. A probability below 1e-7 counts as
            1e-7 in val_loss, as in the loss of the test images.
        seconds: wall time of the pass, without validation.
        images_per_second: training images over that time.
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
    seed: int,
    augmentation: schema.Augmentation | None = None,
    validation: tuple[Images, Labels] | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: bool = False,
) -> list[Epoch]:
    """Train a compiled network and return what each epoch gave.

    Args:
        x: (n, 28, 28) images, 0 to 255.
        y: (n,) labels.
        seed: of the order of the images, another one in every epoch, and of dropout.
        validation: images and labels to score after every epoch.
        on_epoch: is called after every epoch.
        progress: draw a progress bar.
    """
    random_distortion = None
    if augmentation:
        random_distortion = partial(distort, augmentation)
    steps = train_step.steps(model, x, y, seed, random_distortion)
    whole, called = len(x) - len(x) % batch_size, max(1, IMAGES_PER_CALL // batch_size) * batch_size
    calls = [(at, min(at + called, whole), batch_size) for at in range(0, whole, called)]
    if whole < len(x):
        calls.append((whole, len(x), len(x) - whole))
    done = []
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        order = np.random.default_rng([seed, number]).permutation(len(x)).astype(np.int32)
        order, totals = tf.constant(order), np.zeros(2)
        with tqdm(
            total=len(x), desc=f"epoch {number}/{epochs}", leave=False, disable=not progress
        ) as bar:
            for first, last, size in calls:
                totals += steps(order, np.int32(first), np.int32(last), size).numpy()
                bar.update(last - first)
        seconds = time.perf_counter() - start
        loss, accuracy = map(float, totals / len(x))
        metrics = {"loss": loss, "accuracy": accuracy}
        if validation:
            metrics |= _validate(model, *validation)
        done.append(Epoch(number, metrics, seconds, len(x) / seconds))
        on_epoch(done[-1])
    return done


def _validate(model: keras.Model, x: Images, y: Labels) -> dict[str, float]:
    probabilities = models.predict(model, pixels(x))
    loss = model.loss(keras.utils.to_categorical(y, CLASSES), probabilities)
    return {
        "val_loss": float(loss),
        "val_accuracy": float(np.mean(probabilities.argmax(axis=1) == y)),
    }


def history(epochs: Sequence[Epoch]) -> dict[str, list[str]]:
    """The metrics by epoch as columns of text, six decimals: the same for the same training."""
    names = [name for name in METRICS if name in epochs[0].metrics]
    columns = {"epoch": [str(epoch.number) for epoch in epochs]}
    return columns | {name: [f"{e.metrics[name]:.6f}" for e in epochs] for name in names}
