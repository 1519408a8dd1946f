"""Our training against Keras's `fit`, epoch by epoch in turn, and against the hardware."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from digits import CLASSES
from digits.core import evaluation, models, training
from digits.core.dataset import Dataset, pixels
from digits.core.keras_backend import keras, tf
from digits.core.schema import Params

MATRIX = 3000


@dataclass
class Contender:
    """Seconds of each epoch, of which the first one compiles, and the last training loss."""

    model: keras.Model
    seconds: list[float] = field(default_factory=list)
    loss: float = float("nan")

    def test_accuracy(self, dataset: Dataset) -> float:
        probabilities = models.predict(self.model, pixels(dataset.x_test))
        return float(evaluation.score(probabilities, dataset.y_test)["accuracy"])


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """The seconds of the last epoch of a Keras fit, and of the scoring in it."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self.start

    def on_test_begin(self, logs: Any = None) -> None:
        self.scored = time.perf_counter()

    def on_test_end(self, logs: Any = None) -> None:
        self.scoring = time.perf_counter() - self.scored


def race(version: str, params: Params, dataset: Dataset, epochs: int) -> dict[str, Any]:
    """Train one version thrice at once: ours, plain `fit`, and `fit` as the report did.

    One epoch each in turn, so that the machine's noise meets all of them. An epoch as in the report
    is one of plain `fit` and the scoring of the training images.

    Returns:
        Per contender seconds of the median epoch, loss and test accuracy; per rival the ratios of
        its seconds to ours; FLOP/s of ours and of a matrix product.
    """
    parameters = params.model(version)
    images = len(dataset.x_train)
    ours, plain, report = (
        Contender(models.build(parameters, params.seed, images)) for _ in range(3)
    )
    for rival in (plain, report):
        rival.model.compile(  # with Keras's own defaults
            optimizer=rival.model.optimizer, loss=rival.model.loss, metrics=["accuracy"]
        )
    x, y = pixels(dataset.x_train), keras.utils.to_categorical(dataset.y_train, CLASSES)
    products: list[float] = []
    multiply = matrix_product()

    def take_turns(epoch: training.Epoch) -> None:
        ours.seconds.append(epoch.seconds)
        ours.loss = epoch.metrics["loss"]
        for rival, validation in ((plain, None), (report, (x, y))):
            watch = Stopwatch()
            told = rival.model.fit(
                x,
                y,
                batch_size=parameters.batch_size,
                validation_data=validation,
                callbacks=[watch],
                verbose=0,
            )
            # What Keras prepares for scoring in each one-epoch fit, a longer one prepares once.
            rival.seconds.append(plain.seconds[-1] + watch.scoring if validation else watch.seconds)
            rival.loss = told.history["loss"][0]
        products.append(multiply())

    training.fit(
        ours.model,
        dataset.x_train,
        dataset.y_train,
        epochs=1 + epochs,
        batch_size=parameters.batch_size,
        seed=params.seed,
        on_epoch=take_turns,
    )
    flop = 6 * models.multiply_adds(ours.model) * len(x)
    named = {"ours": ours, "plain": plain, "report": report}
    return {
        "contenders": {
            name: {
                "first_epoch": c.seconds[0],
                "seconds_per_epoch": median(c.seconds[1:]),
                "training_loss": c.loss,
                "test_accuracy": c.test_accuracy(dataset),
            }
            for name, c in named.items()
        },
        "ratio_to_plain": spread(_ratios(plain, ours)),
        "ratio_to_report": spread(_ratios(report, ours)),
        "gflops": spread([flop / s / 1e9 for s in ours.seconds[1:]]),
        "matrix_product_gflops": spread(products[1:]),
        "share_of_matrix_product": spread(
            [flop / s / 1e9 / p for s, p in zip(ours.seconds[1:], products[1:], strict=True)]
        ),
    }


def _ratios(rival: Contender, ours: Contender) -> list[float]:
    return [r / o for r, o in zip(rival.seconds[1:], ours.seconds[1:], strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest of some measurements, and how many they were."""
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def matrix_product() -> Callable[[], float]:
    """A function that returns the GFLOP/s of one float32 product of two large square matrices."""
    matrix = tf.random.normal((MATRIX, MATRIX))
    multiply = tf.function(lambda: tf.matmul(matrix, matrix)[0, 0])
    multiply()

    def measure() -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            multiply().numpy()
            seconds.append(time.perf_counter() - start)
        return 2 * MATRIX**3 / median(seconds) / 1e9

    return measure
