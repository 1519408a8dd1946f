"""Race our training against Keras's `fit`, epoch by epoch in turn, and against the hardware."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from digits.core import evaluation, models, training
from digits.core.dataset import Dataset, pixels
from digits.core.keras_backend import keras, tf
from digits.core.schema import Model, Params
from digits.core.training import EpochTimer
from samples import summarise

MATRIX = 3000


@dataclass
class Contender:
    """A network in training.

    Attributes:
        seconds: of each epoch, of which the first one compiles.
        loss: of the training images in the last epoch.
    """

    model: keras.Model
    seconds: list[float] = field(default_factory=list)
    loss: float = float("nan")

    def test_accuracy(self, dataset: Dataset) -> float:
        scored = evaluation.evaluate_model([self.model], dataset.x_test, dataset.y_test)
        return float(scored.scores["accuracy"])


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures the last epoch of a Keras fit, in seconds, and the scoring in it."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self.start

    def on_test_begin(self, logs: Any = None) -> None:
        self.scored = time.perf_counter()

    def on_test_end(self, logs: Any = None) -> None:
        self.scoring = time.perf_counter() - self.scored


class Turns(EpochTimer):
    """After each epoch of ours, trains the rivals for one and measures a matrix product."""

    def __init__(
        self,
        parameters: Model,
        data: tuple[Any, Any],
        ours: Contender,
        plain: Contender,
        report: Contender,
    ) -> None:
        super().__init__()
        self.products: list[float] = []  # GFLOP/s
        self._batch_size, self._data = parameters.batch_size, data
        self._ours, self._plain, self._report = ours, plain, report
        self._multiply = matrix_product()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._ours.seconds.append(self.seconds[-1])
        self._ours.loss = logs["loss"]
        plain = self._train(self._plain, None)
        self._plain.seconds.append(plain.seconds)
        # What Keras prepares for scoring in each one-epoch fit, a longer one prepares once.
        report = self._train(self._report, self._data)
        self._report.seconds.append(plain.seconds + report.scoring)
        self.products.append(self._multiply())

    def _train(self, rival: Contender, validation: tuple[Any, Any] | None) -> Stopwatch:
        watch = Stopwatch()
        history = rival.model.fit(
            *self._data,
            batch_size=self._batch_size,
            validation_data=validation,
            callbacks=[watch],
            verbose=0,
        )
        rival.loss = history.history["loss"][0]
        return watch


def race(version: str, params: Params, dataset: Dataset, epochs: int) -> dict[str, Any]:
    """Train one version three times at once: by ours, by plain `fit`, by `fit` as in the report.

    They train one epoch each in turn, so that the machine's noise affects all of them alike. An
    epoch as in the report is one of plain `fit` and the scoring of the training images.

    Returns:
        For each contender the seconds of the median epoch, loss and test accuracy; for each rival
        the ratios of its seconds to ours; FLOP/s of ours and of a matrix product.
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
    x, y = pixels(dataset.x_train), keras.utils.to_categorical(dataset.y_train, dataset.classes)
    turns = Turns(parameters, (x, y), ours, plain, report)
    training.fit(
        ours.model,
        dataset.x_train,
        dataset.y_train,
        epochs=1 + epochs,
        batch_size=parameters.batch_size,
        seed=params.seed,
        callbacks=[turns],
    )
    products = turns.products
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
        "ratio_to_plain": summarise(_ratios(plain, ours)),
        "ratio_to_report": summarise(_ratios(report, ours)),
        "gflops": summarise([flop / s / 1e9 for s in ours.seconds[1:]]),
        "matrix_product_gflops": summarise(products[1:]),
        "share_of_matrix_product": summarise(
            [flop / s / 1e9 / p for s, p in zip(ours.seconds[1:], products[1:], strict=True)]
        ),
    }


def precisions(version: str, params: Params, dataset: Dataset, turns: int) -> dict[str, Any]:
    """Compare our training in bfloat16 with that in float32 and with plain `fit`, in turn.

    A turn trains a new network of ours for two epochs in each precision, of which the second is
    taken, since the first one compiles; then plain `fit` trains for one, without augmentation.

    Returns:
        Seconds of the median epoch of each, and the ratios to ours in bfloat16.
    """
    parameters = params.model(version)
    x, y = pixels(dataset.x_train), keras.utils.to_categorical(dataset.y_train, dataset.classes)
    plain = models.build(parameters, params.seed, len(x))
    plain.compile(optimizer=plain.optimizer, loss=plain.loss, metrics=["accuracy"])
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": [], "plain": []}
    for _ in range(1 + turns):
        for precision in ("float32", "bfloat16"):
            timer = EpochTimer()
            training.fit(
                models.build(parameters, params.seed, len(x)),
                dataset.x_train,
                dataset.y_train,
                epochs=2,
                batch_size=parameters.batch_size,
                seed=params.seed,
                augmentation=parameters.augmentation,
                precision=precision,
                callbacks=[timer],
            )
            seconds[precision].append(timer.seconds[-1])
        watch = Stopwatch()
        plain.fit(x, y, batch_size=parameters.batch_size, callbacks=[watch], verbose=0)
        seconds["plain"].append(watch.seconds)
    measured = {name: values[1:] for name, values in seconds.items()}  # Plain `fit` has compiled.
    return {
        "seconds_per_epoch": {name: median(values) for name, values in measured.items()},
        **{
            f"{name}_to_bfloat16": summarise(
                [one / other for one, other in zip(values, measured["bfloat16"], strict=True)]
            )
            for name, values in measured.items()
            if name != "bfloat16"
        },
    }


def _ratios(rival: Contender, ours: Contender) -> list[float]:
    return [r / o for r, o in zip(rival.seconds[1:], ours.seconds[1:], strict=True)]


def matrix_product() -> Callable[[], float]:
    """Return a function that measures the GFLOP/s of a product of two large float32 matrices."""
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
