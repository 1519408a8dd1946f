"""Training: what callbacks see of it, and bits that follow from the seed."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_MODELS, TINY_PARAMS

from digits import DigitsError
from digits.core import models, training
from digits.core.dataset import Dataset, hold_out, pixels
from digits.core.keras_backend import keras
from digits.core.schema import Model, Params
from digits.core.training import EpochTimer, History, train_model

V2 = Model.model_validate(TINY_MODELS["v2"])
ALL = Model.model_validate(
    TINY_MODELS["v2"]
    | {
        "layers": [
            {"Conv2D": {"filters": 3, "kernel_size": 3, "use_bias": False}},
            "MaxPooling2D",
            "BatchNormalization",
            "ReLU",
            {"Dropout": {"rate": 0.1}},
            "Flatten",
            {"Dense": {"units": 10, "activation": "softmax"}},
        ],
        "optimizer": {"AdamW": {"learning_rate": 0.01, "weight_decay": 0.1}},
        "loss": {"CategoricalCrossentropy": {"label_smoothing": 0.1}},
        "schedule": {"warmup": 1},
        "augmentation": {"rotation": 10, "scale": 0.1, "shear": 0.1, "shift": 2, "elastic": 1},
    }
)


def fit(
    tiny: Dataset, *, model: Model = V2, epochs: int = 3, validate: bool = False, **options: Any
) -> tuple[History, list[Any]]:
    """The history of a short training and the weights after it."""
    network = models.build(model, seed=1, images_per_epoch=80)
    history = training.fit(
        network,
        tiny.x_train,
        tiny.y_train,
        epochs=epochs,
        batch_size=8,
        seed=1,
        augmentation=model.augmentation,
        validation=(tiny.x_test, tiny.y_test) if validate else None,
        **options,
    )
    return history, network.get_weights()


def params(callbacks: list[Any] | None = None, validation: int = 0, **changes: Any) -> Params:
    """TINY_PARAMS with callbacks, and other changes, for v1."""
    v1 = TINY_MODELS["v1"] | {"callbacks": callbacks or []} | changes
    data = TINY_PARAMS["data"] | {"validation": validation}
    return Params.model_validate(
        TINY_PARAMS | {"data": data, "models": {"v1": v1}, "versions": ["v1"]}
    )


class Hooks(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes each hook that is called, with its number and the names of its logs."""

    def __init__(self, stop_in_epoch: int | None = None) -> None:
        super().__init__()
        self.called: list[Any] = []
        self.stop_in_epoch = stop_in_epoch

    def on_train_begin(self, logs: Any = None) -> None:
        self.called.append("train begin")

    def on_train_end(self, logs: Any = None) -> None:
        self.called.append("train end")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.called.append(("epoch begin", epoch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.called.append(("epoch end", epoch, sorted(logs)))
        if epoch == self.stop_in_epoch:
            self.model.stop_training = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.called.append(("batch begin", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.called.append(("batch end", batch, sorted(logs)))

    def on_test_begin(self, logs: Any = None) -> None:
        self.called.append("test begin")

    def on_test_end(self, logs: Any = None) -> None:
        self.called.append("test end")


@pytest.mark.parametrize("images_per_call", [16, 4096])
def test_callbacks_are_called_as_by_keras_with_steps_per_execution(
    tiny: Dataset, images_per_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 images in batches of 8: ten steps, two of them in a call, or all of them."""
    monkeypatch.setattr(training, "IMAGES_PER_CALL", images_per_call)
    ours, theirs = Hooks(), Hooks()
    fit(tiny, epochs=2, validate=True, callbacks=[ours])
    network = models.build(V2, seed=1)
    network.compile(
        optimizer="adam",
        loss=network.loss,
        metrics=["accuracy"],
        steps_per_execution=min(images_per_call, 80) // 8,
    )
    network.fit(
        pixels(tiny.x_train),
        np.eye(10)[tiny.y_train],
        batch_size=8,
        epochs=2,
        validation_data=(pixels(tiny.x_test), np.eye(10)[tiny.y_test]),
        callbacks=[theirs],
        verbose=0,
    )
    assert ours.called == theirs.called


def test_a_callback_may_stop_the_training(tiny: Dataset) -> None:
    hooks = Hooks(stop_in_epoch=1)
    history, _ = fit(tiny, epochs=5, callbacks=[hooks])
    assert len(history["loss"]) == 2
    assert hooks.called[-1] == "train end"


@pytest.fixture(scope="module")
def fitted(tiny: Dataset) -> dict[str, tuple[History, list[Any]]]:
    """What `fit` returns for a plain network, and for one with everything that is random."""
    return {"plain": fit(tiny, validate=True), "random": fit(tiny, model=ALL)}


def test_the_history_has_the_metrics_by_epoch(
    fitted: dict[str, tuple[History, list[Any]]],
) -> None:
    history, _ = fitted["plain"]
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert {len(values) for values in history.values()} == {3}
    assert history["loss"][2] < history["loss"][0]


def test_held_out_images_are_scored_as_keras_does(tiny: Dataset) -> None:
    network = models.build(V2, seed=1)
    held_out = (tiny.x_test, tiny.y_test)
    history = training.fit(
        network, tiny.x_train, tiny.y_train, epochs=1, batch_size=100, seed=1, validation=held_out
    )
    expected = network.evaluate(pixels(tiny.x_test), np.eye(10)[tiny.y_test], verbose=0)
    (loss,), (accuracy,) = history["val_loss"], history["val_accuracy"]
    np.testing.assert_allclose([loss, accuracy], expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "model"), [("plain", V2), ("random", ALL)])
def test_the_same_seed_gives_the_same_bits(
    name: str, model: Model, fitted: dict[str, tuple[History, list[Any]]], tiny: Dataset
) -> None:
    history, weights = fitted[name]
    again, same = fit(tiny, model=model, validate=name == "plain")
    assert history == again
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_augmentation_changes_what_is_trained_on(
    fitted: dict[str, tuple[History, list[Any]]], tiny: Dataset
) -> None:
    distorted, _ = fitted["random"]
    plain, _ = fit(tiny, model=ALL.model_copy(update={"augmentation": None}))
    assert distorted["loss"][0] != plain["loss"][0]


def test_a_result_has_network_history_and_timing(tiny: Dataset) -> None:
    timer = EpochTimer()
    result = train_model("v1", params(validation=20), tiny, seed=3, callbacks=[timer])
    assert result.network.count_params() == 7850
    assert len(result.history["val_loss"]) == 3
    assert 0 < timer.seconds[-1] < result.timing["training_seconds"]
    timing = result.timing
    assert timing["seconds_per_epoch"] * timing["images_per_second"] == pytest.approx(60, rel=0.1)


def test_only_held_out_images_differ_between_seeds_of_the_parameters(tiny: Dataset) -> None:
    """The seed of a training shapes all but the images that are held out."""
    one, same, other = (
        train_model("v1", params(validation=20), tiny, seed=seed).history for seed in (1, 1, 2)
    )
    assert one == same
    assert one["loss"] != other["loss"]


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_the_training(tiny: Dataset) -> None:
    diverging = params(optimizer={"SGD": {"learning_rate": 1e38}})
    with pytest.raises(DigitsError, match=r"v1: the loss is \S+ in epoch \d: training diverged"):
        train_model("v1", diverging, tiny, seed=1)


def test_early_stopping_restores_the_best_weights(tiny: Dataset) -> None:
    """A baseline that no epoch reaches stops the training after the patience."""
    stop = {"monitor": "val_loss", "patience": 1, "restore_best_weights": True}
    result = train_model(
        "v1",
        params([{"EarlyStopping": stop}], 20, epochs=50, optimizer={"Adam": {"learning_rate": 1}}),
        tiny,
        seed=1,
    )
    losses = result.history["val_loss"]
    assert 2 <= len(losses) < 50
    _, held_out = hold_out(tiny.y_train, 20, TINY_PARAMS["seed"])
    loss = training._validate(result.network, tiny.x_train[held_out], tiny.y_train[held_out])[
        "loss"
    ]
    assert loss == pytest.approx(min(losses), rel=1e-6)


def test_the_callbacks_of_keras_work(tiny: Dataset, tmp_path: Path) -> None:
    """Those that params.yaml may name, beside early stopping."""
    log, checkpoint, board = tmp_path / "log.csv", tmp_path / "best.keras", tmp_path / "board"
    plateau = {"monitor": "loss", "patience": 0, "min_delta": 1000.0, "factor": 0.5}
    callbacks = [
        {"CSVLogger": {"filename": str(log)}},
        {
            "ModelCheckpoint": {
                "filepath": str(checkpoint),
                "monitor": "loss",
                "save_best_only": True,
            }
        },
        {"ReduceLROnPlateau": plateau},
        {"TensorBoard": {"log_dir": str(board)}},
    ]
    result = train_model("v1", params(callbacks), tiny, seed=1)
    with log.open(newline="") as file:
        rows = [float(row["loss"]) for row in csv.DictReader(file)]
    assert rows == pytest.approx(result.history["loss"])
    assert models.load(checkpoint).count_params() == 7850
    assert float(result.network.optimizer.learning_rate) < 0.01
    assert [*board.rglob("events.out.*")]


def test_a_history_is_text_of_six_decimals() -> None:
    assert training.history_columns({"loss": [2 / 3], "accuracy": [0.5]}) == {
        "epoch": ["1"],
        "loss": ["0.666667"],
        "accuracy": ["0.500000"],
    }


def test_an_epoch_is_timed_without_validation() -> None:
    timer = EpochTimer()
    timer.on_epoch_begin(0)
    timer.on_train_batch_end(0)
    seconds = timer.seconds[-1]
    timer.on_test_end()
    assert timer.seconds == [seconds]
