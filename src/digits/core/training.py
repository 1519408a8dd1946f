"""Training: our own `fit` with Keras's callbacks, and `train_model`, which all trainings call."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from digits import DigitsError
from digits.core import models
from digits.core.dataset import Dataset, Images, Labels, fit_to_images, without_fold
from digits.core.evaluation import predict_probabilities, predicted_labels
from digits.core.keras_backend import fastest_precision, keras, tf
from digits.core.schema import Augmentation, Params
from digits.core.train_step import compile_train_steps, targets

History = Mapping[str, Sequence[float]]
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
# One call from Python takes so many images: enough for it to cost nothing, few enough for an
# interruption to take effect within seconds.
IMAGES_PER_CALL = 4096


class EpochTimer(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures each epoch's training pass, without validation and what other callbacks do then.

    Attributes:
        seconds: wall time of each pass, the current one included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()
        self.seconds.append(0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds[-1] = time.perf_counter() - self._start


class StopOnNonFiniteLoss(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a training whose loss is no longer a number with an error that people can act on."""

    def __init__(self, version: str, learning_rate: float) -> None:
        super().__init__()
        self._version, self._learning_rate = version, learning_rate

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise DigitsError(
                f"{self._version}: the loss is {logs['loss']} in epoch {epoch + 1}: "
                f"training diverged; lower the learning rate, now {self._learning_rate}"
            )


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes:
        network: the trained Keras model.
        history: loss (the version's own, a mean) and accuracy (0 to 1) by epoch while training;
            with held-out images val_loss and val_accuracy too. With label smoothing, both losses
            exceed the cross-entropy in nats that `evaluation.score` returns.
        timing: training_seconds of the whole fit; seconds_per_epoch and images_per_second of the
            median epoch.
        precision: float32, or bfloat16 for activations and products.
    """

    network: keras.Model
    history: History
    timing: Mapping[str, float]
    precision: str


def train_model(
    version: str,
    params: Params,
    dataset: Dataset,
    *,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Build and train one version.

    Args:
        version: one of `params.models`.
        params: all of params.yaml. Its seed alone selects the images held out, so that they stay
            the same for all trainings of a study.
        dataset: whose training images are used; its test images are not.
        seed: of the weights, the order of the images, dropout and augmentation.
        callbacks: run before those that params.yaml lists for the version.

    Raises:
        DigitsError: the layers do not fit the images, or the loss is no longer a number; names
            version and layer, or version, epoch and learning rate.
    """
    model = fit_to_images(params, version, dataset)
    training_set, held_out = without_fold(dataset, params.data.validation, params.seed, 0)
    images = len(training_set.y_train)
    precision = fastest_precision() if model.precision == "auto" else model.precision
    size = (dataset.image_shape, dataset.classes)
    network = models.build(model, seed, images, *size)
    validation = (dataset.x_train[held_out], dataset.y_train[held_out])
    timer = EpochTimer()
    listed = [
        getattr(keras.callbacks, callback.name)(**callback.arguments)
        for callback in model.callbacks
    ]
    stop = StopOnNonFiniteLoss(version, model.optimizer.arguments["learning_rate"])
    start = time.perf_counter()
    history = fit(
        network,
        training_set.x_train,
        training_set.y_train,
        epochs=model.epochs,
        batch_size=model.batch_size,
        seed=seed,
        augmentation=model.augmentation,
        precision=precision,
        validation=validation if len(held_out) else None,
        callbacks=[timer, *callbacks, stop, *listed],
    )
    timing = {
        "training_seconds": round(time.perf_counter() - start, 3),
        "seconds_per_epoch": round(statistics.median(timer.seconds), 4),
        "images_per_second": round(images / statistics.median(timer.seconds), 1),
    }
    return TrainingResult(network, history, timing, precision)


def fit(
    network: keras.Model,
    x: Images,
    y: Labels,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
    precision: str = "float32",
    validation: tuple[Images, Labels] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train a compiled network, and return its metrics by epoch.

    The callbacks' hooks are called as by Keras's own `fit`; those of batches once for each call of
    the compiled steps, as Keras does with `steps_per_execution`. Validation is one call, without
    hooks for batches.

    Args:
        x: uint8 images.
        y: (n,) labels.
        seed: of the order of the images, another one in every epoch, and of dropout.
        augmentation, precision: as `compile_train_steps` takes them.
        validation: images and labels to score after every epoch.
    """
    steps_per_epoch = -(-len(x) // batch_size)
    train_steps = compile_train_steps(
        network, x, y, seed, augmentation, precision, epochs, steps_per_epoch
    )
    calls = _calls(len(x), batch_size)
    history = keras.callbacks.History()
    hooks = keras.callbacks.CallbackList(
        [*callbacks, history],
        model=network,
        epochs=epochs,
        steps=steps_per_epoch,
        images=len(x),
        verbose=0,
    )
    network.stop_training = False
    hooks.on_train_begin()
    logs: dict[str, float] = {}
    for epoch in range(epochs):
        hooks.on_epoch_begin(epoch)
        order = np.random.default_rng([seed, epoch + 1]).permutation(len(x)).astype(np.int32)
        order, totals = tf.constant(order), np.zeros(2)
        for first, last, size in calls:
            hooks.on_train_batch_begin(first // batch_size)
            totals += train_steps(order, np.int32(first), np.int32(last), size).numpy()
            loss, accuracy = map(float, totals / last)
            logs = {"loss": loss, "accuracy": accuracy}
            hooks.on_train_batch_end((last - 1) // batch_size, logs)
            if network.stop_training:
                break
        if validation:
            hooks.on_test_begin()
            scores = _validate(network, *validation)
            hooks.on_test_end(scores)
            logs = logs | {f"val_{name}": value for name, value in scores.items()}
        hooks.on_epoch_end(epoch, logs)
        if network.stop_training:
            break
    hooks.on_train_end(logs)
    by_metric: History = history.history
    return {name: by_metric[name] for name in METRICS if name in by_metric}


def _calls(images: int, batch_size: int) -> list[tuple[int, int, int]]:
    """Return the first image, the one after the last, and the batch size, of each compiled call.

    The images that fill no batch are one smaller batch, in a call of its own.
    """
    whole = images - images % batch_size
    per_call = max(1, IMAGES_PER_CALL // batch_size) * batch_size
    calls = [(at, min(at + per_call, whole), batch_size) for at in range(0, whole, per_call)]
    return calls + ([(whole, images, images - whole)] if whole < images else [])


def _validate(network: keras.Model, x: Images, y: Labels) -> dict[str, float]:
    probabilities = predict_probabilities(network, x)
    loss = network.loss(targets(network, y), probabilities)
    return {"loss": float(loss), "accuracy": float(np.mean(predicted_labels(probabilities) == y))}


def history_columns(history: History) -> dict[str, list[str]]:
    """Return a history as columns of text, six decimals: the same for the same training."""
    epochs = len(history["loss"])
    columns = {"epoch": [str(number) for number in range(1, epochs + 1)]}
    return columns | {name: [f"{value:.6f}" for value in history[name]] for name in history}
