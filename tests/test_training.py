"""Training: what each epoch reports, and bits that follow from the seed."""

from typing import Any

import numpy as np
import pytest
from conftest import TINY_MODELS

from digits.core import models, training
from digits.core.dataset import Dataset, pixels
from digits.core.schema import Model
from digits.core.training import Epoch

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
    tiny: Dataset, *, validate: bool = False, epochs: int = 3, parameters: Model = V2
) -> tuple[list[Epoch], list[Any]]:
    model = models.build(parameters, seed=1, images=80)
    told: list[Epoch] = []
    kept = training.fit(
        model,
        tiny.x_train,
        tiny.y_train,
        epochs=epochs,
        batch_size=8,
        seed=1,
        augmentation=parameters.augmentation,
        validation=(tiny.x_test, tiny.y_test) if validate else None,
        on_epoch=told.append,
    )
    assert told == kept
    return kept, model.get_weights()


def test_every_epoch_is_reported_with_its_time(tiny: Dataset) -> None:
    epochs, _ = fit(tiny)
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert set(epochs[0].metrics) == {"loss", "accuracy"}
    assert epochs[2].metrics["loss"] < epochs[0].metrics["loss"]
    assert np.isclose(epochs[0].seconds * epochs[0].images_per_second, 80)


def test_held_out_images_are_scored_every_epoch(tiny: Dataset) -> None:
    epochs, _ = fit(tiny, validate=True, epochs=1)
    assert set(epochs[0].metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_held_out_images_are_scored_as_keras_does(tiny: Dataset) -> None:
    model = models.build(Model.model_validate(TINY_MODELS["v2"]), seed=1)
    held_out = (tiny.x_test, tiny.y_test)
    (epoch,) = training.fit(
        model, tiny.x_train, tiny.y_train, epochs=1, batch_size=100, seed=1, validation=held_out
    )
    expected = model.evaluate(pixels(tiny.x_test), np.eye(10)[tiny.y_test], verbose=0)
    found = [epoch.metrics["val_loss"], epoch.metrics["val_accuracy"]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("parameters", [V2, ALL], ids=["plain", "all that is random"])
def test_the_same_seed_gives_the_same_bits(tiny: Dataset, parameters: Model) -> None:
    epochs, weights = fit(tiny, parameters=parameters)
    again, same = fit(tiny, parameters=parameters)
    assert [epoch.metrics for epoch in epochs] == [epoch.metrics for epoch in again]
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_augmentation_changes_what_is_trained_on(tiny: Dataset) -> None:
    distort, _ = fit(tiny, epochs=1, parameters=ALL)
    as_they_are, _ = fit(tiny, epochs=1, parameters=ALL.model_copy(update={"augmentation": None}))
    assert distort[0].metrics["loss"] != as_they_are[0].metrics["loss"]


def test_a_history_is_text_of_six_decimals() -> None:
    epochs = [Epoch(1, {"accuracy": 0.5, "loss": 2 / 3}, 1.0, 1.0)]
    assert training.history(epochs) == {
        "epoch": ["1"],
        "loss": ["0.666667"],
        "accuracy": ["0.500000"],
    }
