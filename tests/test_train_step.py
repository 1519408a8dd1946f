"""The arrangement of training for a CPU: the declared network, Keras's own arithmetic."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from digits.core import augmentation, config, models, train_step
from digits.core.dataset import Dataset, pixels
from digits.core.keras_backend import keras, tf
from digits.core.schema import Augmentation, Model

PARAMS = config.load(ROOT / "params.yaml")
HEAD = ["Flatten", {"Dense": {"units": 10, "activation": "softmax"}}]
TRAINING = {
    "loss": "CategoricalCrossentropy",
    "optimizer": {"Adam": {"learning_rate": 0.001}},
    "epochs": 1,
    "batch_size": 8,
}


def conv(kernel_size: Any = 3, filters: int = 3, **arguments: Any) -> dict[str, Any]:
    return {"Conv2D": {"filters": filters, "kernel_size": kernel_size, **arguments}}


def pool(size: Any = 2, **arguments: Any) -> dict[str, Any]:
    return {"MaxPooling2D": {"pool_size": size, **arguments}}


STEMS: dict[str, list[Any]] = {
    "pool drops an edge": [conv(4, activation="relu"), conv(3, activation="relu"), pool()],
    "pool drops more": [conv(2), pool(5)],
    "pool overlaps": [conv(3, activation="relu"), pool(3, strides=2)],
    "pool skips": [conv(3, activation="relu"), pool(2, strides=3)],
    "oblong": [conv([4, 2], activation="relu"), pool([2, 3])],
    "padded pool": [conv(4, activation="relu"), pool(2, padding="same")],
    "padded convolution": [conv(3, padding="same", activation="relu"), pool(3)],
    "convolution with strides": [conv(3, strides=2, activation="relu"), pool()],
    "no bias": [conv(3, use_bias=False, activation="relu"), pool()],
    "not monotone": [conv(3, activation="gelu"), pool()],
    "no activation, then one": [conv(3), pool(), "ReLU"],
    "pool first": [pool(3), conv(3, activation="relu")],
    # A bias there would have no gradient but noise, which Adam makes large.
    "normalised": [
        conv(3, use_bias=False),
        "BatchNormalization",
        "ReLU",
        pool(),
        conv(3, activation="relu"),
    ],
    "residual": [conv(3), {"Add": {"branches": [[conv(3, padding="same"), "ReLU"], []]}}, pool()],
    "small maps": [
        conv(5, strides=4, filters=16),
        conv([2, 4], padding="same", filters=16),
        conv([3, 2], activation="relu", filters=16),
    ],
    # In bfloat16, oneDNN computes such kernels wrong.
    "few channels": [conv(5), conv(3, filters=8), conv([2, 8])],
    "cropped and enlarged": [
        {"CenterCrop": {"height": 25, "width": 21}},
        {"Resizing": {"height": 28, "width": 27}},
        conv(3, activation="relu"),
        pool(),
    ],
    "two heads": [
        conv(3, activation="relu"),
        {"Concatenate": {"branches": [["GlobalMaxPooling2D"], ["GlobalAveragePooling2D"]]}},
    ],
    "branches in branches": [
        {"Add": {"branches": [[conv(1)], [{"Add": {"branches": [[conv(1)], [conv(1)]]}}]]}},
        pool(),
    ],
    "normalised, no convolution": [
        "Flatten",
        {"Dense": {"units": 16, "use_bias": False}},
        "BatchNormalization",
        "ReLU",
    ],
}


def network(layers: list[Any]) -> Model:
    return Model.model_validate({"layers": [*layers, *HEAD], **TRAINING})


def without_dropout(parameters: Model) -> Model:
    layers = [layer for layer in parameters.layers if layer.name != "Dropout"]
    return parameters.model_copy(update={"layers": layers})


NETWORKS = {name: network(stem) for name, stem in STEMS.items()} | {
    version: without_dropout(model) for version, model in PARAMS.models.items()
}


def outputs_and_gradients(model: keras.Model, y: Any, compute: Callable[[], Any]) -> list[Any]:
    with tf.GradientTape() as tape:
        probabilities = compute()
        loss = model.loss(tf.one_hot(y, 10), probabilities)
    return [probabilities, *tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_keras(name: str, tiny: Dataset) -> None:
    model = models.build(NETWORKS[name], seed=1, images_per_epoch=80)
    for weight in model.trainable_variables:  # biases start at zero, where they cannot be seen
        weight.assign_add(0.1 * keras.random.normal(weight.shape, seed=2))
    x, y = tf.constant(pixels(tiny.x_train[:20])), tiny.y_train[:20]
    expected = outputs_and_gradients(model, y, lambda: model(x, training=True))
    computed = outputs_and_gradients(
        model, y, lambda: train_step.forward(model, x, tf.constant(0), seed=1)
    )
    for one, other in zip(computed, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "normalised", "normalised, no convolution"])
def test_an_epoch_is_that_of_keras(name: str, tiny: Dataset) -> None:
    """Losses and weights after three whole batches and a smaller one, in the given order."""
    ours, theirs = (models.build(NETWORKS[name], seed=1, images_per_epoch=80) for _ in range(2))
    x, y = tiny.x_train[:28], tiny.y_train[:28]
    run = train_step.compile_train_steps(ours, x, y, seed=1)
    order = tf.range(28)
    loss, right = run(order, np.int32(0), np.int32(24), 8) + run(
        order, np.int32(24), np.int32(28), 4
    )
    categories = keras.utils.to_categorical(y, 10)
    history = theirs.fit(pixels(x), categories, batch_size=8, shuffle=False, verbose=0).history
    assert np.isclose(loss / 28, history["loss"][0], rtol=1e-4)
    assert np.isclose(right / 28, history["accuracy"][0])
    assert int(ours.optimizer.iterations) == 4
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("rate", [0.2, 0.25, 0.4])
@pytest.mark.parametrize("pooled", [False, True])
def test_dropout_drops_its_share_and_scales_the_rest(rate: float, pooled: bool) -> None:
    dropout = {"Dropout": {"rate": rate}}
    before = [conv(1, use_bias=False), pool(1)] if pooled else []
    parameters = network([*before, dropout])
    model = models.build(parameters, seed=1)
    # What follows is not asked here.
    model = keras.Sequential(model.layers[: len(before) + 1])
    model.layers[0].kernel.assign(np.ones((1, 1, 1, 3))) if pooled else None
    dropped = train_step.forward(model, tf.ones((300, 28, 28, 1)), tf.constant(7), seed=1).numpy()
    values, counts = np.unique(dropped, return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate) / dropped.size)
    assert abs(counts[0] / dropped.size - rate) < 4 * spread


def test_random_bits_look_independent() -> None:
    """Of one another, of the next step's, of another layer's and of another seed's."""
    size = 200_000
    keys = [(3, 1, 2), (4, 1, 2), (3, 1, 3), (3, 2, 2)]
    draw = tf.function(augmentation.random_bits, jit_compile=True, autograph=False)
    drawn = [draw(size, tuple(map(np.uint32, key))).numpy() / 2**32 for key in keys]
    shifted = [drawn[0][1:], drawn[0][28:], drawn[0][1024:]]
    for other in [*drawn[1:], *shifted]:
        correlation = np.corrcoef(drawn[0][: len(other)], other)[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(len(other))
    counts, _ = np.histogram(drawn[0], bins=256, range=(0, 1))
    expected = size / 256
    # Chi-squared with 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 4 * 22.6
    np.testing.assert_array_equal(
        drawn[0], draw(size, tuple(map(np.uint32, keys[0]))).numpy() / 2**32
    )


def test_dropout_differs_by_step_layer_and_seed(tiny: Dataset) -> None:
    layers = ["Flatten", {"Dropout": {"rate": 0.5}}, {"Dropout": {"rate": 0.5}}]
    model = models.build(Model.model_validate({"layers": layers + HEAD[1:], **TRAINING}), seed=1)
    one = keras.Sequential(model.layers[:2])
    two = keras.Sequential(model.layers[:3])
    x = tf.ones((4, 28, 28, 1))

    def zeros(model: keras.Model, step: int, seed: int) -> Any:
        return train_step.forward(model, x, tf.constant(step), seed).numpy() == 0

    first = zeros(one, 1, 1)
    np.testing.assert_array_equal(first, zeros(one, 1, 1))
    for other in (zeros(one, 2, 1), zeros(one, 1, 2), zeros(one, 1, 4_294_967_295)):
        assert 0.4 < np.mean(first == other) < 0.6
    assert 0.7 < np.mean(zeros(two, 1, 1)) < 0.8  # the same mask twice would drop a half


@pytest.mark.parametrize(
    ("name", "images"),
    [
        *((name, 80) for name in ("v2", "v4", "normalised", "residual", "two heads")),
        # On small maps the images become channels, and oneDNN is wrong for few channels.
        *((name, images) for name in ("small maps", "few channels") for images in (8, 12, 80)),
    ],
)
def test_bfloat16_is_near_float32_and_the_weights_stay_float32(
    name: str, images: int, tiny: Dataset
) -> None:
    model = models.build(NETWORKS[name], seed=1, images_per_epoch=80)
    x, y = tf.constant(pixels(tiny.x_train[:images])), tiny.y_train[:images]

    def compute(precision: str) -> list[Any]:
        images = tf.cast(x, precision)
        step = tf.constant(0)
        forward = train_step.forward
        return outputs_and_gradients(model, y, lambda: forward(model, images, step, seed=1))

    exact, rounded = compute("float32"), compute("bfloat16")
    np.testing.assert_allclose(rounded[0], exact[0], atol=0.02)
    for one, other in zip(rounded, exact, strict=True):
        assert one.dtype == "float32"
        # bfloat16 has 8 bits; the errors of a gradient's many terms are independent.
        difference = np.linalg.norm(one - other) / np.linalg.norm(other)
        assert difference < 0.35


def test_dropout_in_branches_differs(tiny: Dataset) -> None:
    branch = [{"Dropout": {"rate": 0.5}}]
    merged = [{"Concatenate": {"branches": [branch, branch]}}]
    model = models.build(network(merged), seed=1)
    shown = keras.Sequential(model.layers[:1])
    x = train_step.forward(shown, tf.ones((9, 28, 28, 1)), tf.constant(0), seed=1).numpy() == 0
    assert 0.4 < np.mean(x[..., 0] == x[..., 1]) < 0.6


def test_augmentation_fades_and_ends() -> None:
    limits = Augmentation(rotation=10, fade=0.5, clean_epochs=1)
    strengths = [float(train_step._strength(limits, step, 10, 4)) for step in range(40)]
    assert strengths[:21] == [1.0] * 21
    assert strengths[28] == pytest.approx(1 - 0.8 * 0.4)
    assert strengths[35] == pytest.approx(1 - 0.8 * 0.75)
    assert strengths[36:] == [0.0] * 4
    unfaded = Augmentation(rotation=10)
    assert {float(train_step._strength(unfaded, step, 10, 4)) for step in range(40)} == {1.0}
