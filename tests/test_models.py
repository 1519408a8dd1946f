"""Networks: the three of 2018, and files that are the same for the same network."""

import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from digits import DigitsError
from digits.core import config, models
from digits.core.keras_backend import keras, tf
from digits.core.schema import Model, Schedule

PARAMS = config.load(ROOT / "params.yaml")
REPORTED = json.loads((ROOT / "metrics" / "report-2018.json").read_text())["versions"]
IMAGES = np.random.default_rng(0).random((4, 28, 28, 1), dtype=np.float32)


@pytest.mark.parametrize("version", REPORTED)
def test_parameter_counts_are_those_of_the_report(version: str) -> None:
    model = models.build(PARAMS.model(version), seed=1, images_per_epoch=1000)
    assert model.count_params() == REPORTED[version]["parameters"]
    described = models.describe(model)
    assert sum(layer["parameters"] for layer in described) == REPORTED[version]["parameters"]
    assert described[-1] == {
        "type": "Dense",
        "output_shape": [10],
        "parameters": described[-1]["parameters"],
    }


@pytest.mark.parametrize("version", REPORTED)
def test_optimizer_and_loss_are_keras_defaults(version: str) -> None:
    model = models.build(PARAMS.model(version), seed=1, images_per_epoch=1000)
    actual, default = model.optimizer.get_config(), keras.optimizers.Adam().get_config()
    assert actual | {"name": ""} == default | {"name": ""}
    assert isinstance(model.loss, keras.losses.CategoricalCrossentropy)
    assert model.jit_compile is False


def test_a_schedule_rises_and_then_falls_to_zero() -> None:
    parameters = PARAMS.model("v1").model_copy(
        update={"schedule": Schedule(warmup=1.5), "epochs": 10, "batch_size": 8}
    )
    model = models.build(parameters, seed=1, images_per_epoch=28)  # four steps an epoch
    optimizer = model.optimizer

    def rate(step: int) -> float:
        optimizer.iterations.assign(step)
        return float(optimizer.learning_rate)

    peak = parameters.optimizer.arguments["learning_rate"]
    assert rate(0) == 0
    assert rate(3) == pytest.approx(peak / 2)
    assert rate(6) == pytest.approx(peak)
    assert rate(23) == pytest.approx(peak / 2)
    assert rate(40) == pytest.approx(0, abs=1e-9)


def test_weights_follow_from_the_seed() -> None:
    one, same, other = (models.build(PARAMS.model("v1"), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.get_weights()[0], same.get_weights()[0])
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


BRANCHED = PARAMS.model("v2").model_dump() | {
    "layers": [
        {"Conv2D": {"filters": 2, "kernel_size": 5, "strides": 4}},
        {"Add": {"branches": [[], [{"Conv2D": {"filters": 2, "kernel_size": 1}}]]}},
        {"Concatenate": {"branches": [["GlobalMaxPooling2D"], ["GlobalAveragePooling2D"]]}},
        {"Dense": {"units": 10, "activation": "softmax"}},
    ]
}


def test_branches_are_described_by_the_layer_that_merges_them() -> None:
    described = models.describe(models.build(Model.model_validate(BRANCHED), seed=1))
    assert [layer["type"] for layer in described] == ["Conv2D", "Add", "Concatenate", "Dense"]
    assert [layer["output_shape"] for layer in described] == [[6, 6, 2], [6, 6, 2], [4], [10]]
    assert [layer["parameters"] for layer in described] == [52, 6, 0, 50]


@pytest.mark.parametrize(
    "parameters", [PARAMS.model("v2"), Model.model_validate(BRANCHED)], ids=["stack", "branches"]
)
def test_the_same_network_is_the_same_file_and_loads(parameters: Model, tmp_path: Path) -> None:
    for name in ("a.keras", "b.keras"):
        built = models.build(parameters, seed=1)
        built.fit(IMAGES, np.eye(10)[:4], verbose=0)
        models.save(built, tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    loaded = models.load(tmp_path / "a.keras")
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), built.predict(IMAGES, verbose=0)
    )
    assert loaded.evaluate(IMAGES, np.eye(10)[:4], verbose=0), "it is compiled"


def test_keras_itself_writes_the_date_into_the_file(tmp_path: Path) -> None:
    """If this fails, Keras has mended it and `models.save` can go."""
    model = models.build(PARAMS.model("v1"), seed=1)
    model.save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert "date_saved" in json.loads(archive.read("metadata.json"))


@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut"])
def test_a_damaged_model_is_named_and_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "v1.keras"
    models.save(models.build(PARAMS.model("v1"), seed=1), path)
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "text": b"no", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(DigitsError, match=r"v1\.keras: not a model that can be loaded") as error:
        models.load(path)
    assert "\n" not in str(error.value)


def test_code_in_a_model_file_is_refused(tmp_path: Path) -> None:
    hostile = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    )
    hostile.save(tmp_path / "v1.keras")
    with pytest.raises(DigitsError, match=r"v1\.keras: not a model that can be loaded"):
        models.load(tmp_path / "v1.keras")


def test_a_network_that_gives_no_probabilities_is_refused(tmp_path: Path) -> None:
    path, softmax = tmp_path / "v1.keras", keras.layers.Dense(10, activation="softmax")
    for last, reason in (
        (keras.layers.Dense(10), "expected softmax at the end, for probabilities"),
        (softmax, "expected finite weights, got NaN or infinity"),
    ):
        network = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), last])
        network.set_weights([np.full_like(weights, np.nan) for weights in network.get_weights()])
        network.save(path)
        with pytest.raises(DigitsError, match=rf"v1\.keras: {reason}"):
            models.load(path)


def test_a_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "v1.keras")
    with pytest.raises(DigitsError, match=r"expected a model of \(28, 28, 1\) to \(10,\)"):
        models.load(tmp_path / "v1.keras", (28, 28, 1), 10)
    with pytest.raises(DigitsError, match="expected a model of images to probabilities"):
        models.load(tmp_path / "v1.keras")


def test_asking_many_networks_in_turn_is_no_reason_for_notices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records: list[logging.LogRecord] = []
    listening = logging.Handler()
    monkeypatch.setattr(listening, "emit", records.append)
    # The linter of imports, in another test of this process, switches existing loggers off.
    monkeypatch.setattr(tf.get_logger(), "disabled", False)
    tf.get_logger().addHandler(listening)
    for seed in range(8):
        models.build(PARAMS.model("v1"), seed, images_per_epoch=4).predict(IMAGES, verbose=0)
    tf.get_logger().warning("something else")
    tf.get_logger().removeHandler(listening)
    assert [record.getMessage() for record in records] == ["something else"]
