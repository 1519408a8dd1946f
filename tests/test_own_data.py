"""Other images than MNIST, and layers of one's own: from arrays to a model that MLflow serves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, TINY_PARAMS, copy_database, environment

from digits import DigitsError
from digits.core import augmentation, config, dataset, models, training
from digits.core.dataset import Dataset
from digits.core.evaluation import evaluate_on, predict_probabilities
from digits.core.schema import Augmentation, Params, Transform

TRAINING = {"optimizer": {"Adam": {"learning_rate": 0.01}}, "epochs": 2, "batch_size": 8}
SOFTMAX = {"Dense": {"units": "classes", "activation": "softmax"}}
LAYERS: list[Any] = [
    {"Conv2D": {"filters": 16, "kernel_size": 3, "activation": "relu"}},
    {"my_layers.SqueezeExcitation": {"ratio": 4}},
    "GlobalAveragePooling2D",
    SOFTMAX,
]


def params(layers: list[Any], loss: str = "CategoricalCrossentropy", **block: Any) -> Params:
    """Parameters of one version, `mine`, for images that are not MNIST."""
    data = TINY_PARAMS["data"] | {"dataset": "here.npz"}
    mine = {"layers": layers, "loss": loss, **TRAINING, **block}
    raw = {**TINY_PARAMS, "data": data, "models": {"mine": mine}, "versions": ["mine"], "tta": {}}
    return config.check(raw, Params, "params.yaml")


@pytest.fixture(scope="module")
def colours() -> Dataset:
    """Images of 12 × 10 pixels in three classes: red, green and blue."""
    y = np.arange(36, dtype=np.uint8) % 3
    x = np.random.default_rng(0).integers(0, 60, (36, 12, 10, 3), dtype=np.uint8)
    x[np.arange(36), 2:10, 2:8, y] += 180
    return Dataset(x[:24], y[:24], x[24:], y[24:], ("red", "green", "blue"))


@pytest.mark.parametrize(
    ("loss", "precision"),
    [("CategoricalCrossentropy", "float32"), ("SparseCategoricalCrossentropy", "bfloat16")],
)
def test_shape_and_classes_of_a_network_follow_from_the_data(
    loss: str, precision: str, colours: Dataset
) -> None:
    block = {"augmentation": {"rotation": 5, "elastic": 0.5}, "epochs": 20, "precision": precision}
    parameters = params(LAYERS, loss, **block)
    network = training.train_model("mine", parameters, colours, seed=1).network
    assert (network.input_shape, network.output_shape) == ((None, 12, 10, 3), (None, 3))
    scores, _ = evaluate_on([network], colours, [Transform(rotation=5)])
    assert scores["test"]["errors"] == 0
    assert [scores["test"][name] for name in ("precision", "recall", "f1")] == [[1.0] * 3] * 3
    assert np.trace(scores["test"]["confusion_matrix"]) == 12


def test_both_crossentropies_train_the_same_network(colours: Dataset) -> None:
    one, other = (
        training.train_model("mine", params(LAYERS, loss), colours, seed=1).history
        for loss in ("CategoricalCrossentropy", "SparseCategoricalCrossentropy")
    )
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["accuracy"] == other["accuracy"]


def test_the_channels_of_an_image_are_distorted_alike(colours: Dataset) -> None:
    limits = Augmentation(rotation=10, scale=0.1, shear=0.1, shift=1, elastic=0.5)
    key = (np.uint32(1), np.uint32(2))
    whole = np.asarray(augmentation.distort(limits, colours.x_train, key))
    for channel in range(3):
        grey = augmentation.distort(limits, colours.x_train[..., channel], key)
        np.testing.assert_allclose(whole[..., channel], np.asarray(grey)[..., 0], atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"Conv2D": {"filters": 4, "kernel_size": 11}}, "Flatten", SOFTMAX],
            r"models.mine.layers\[0\].Conv2D: expected a window that fits its 12×10 input, got "
            r"\[11, 11\] \(for images of 12×10×3 in 3 classes\)",
        ),
        (
            ["Flatten", {"Dense": {"units": 10, "activation": "softmax"}}],
            r"layers\[1\].Dense.units: expected classes, or the number of classes, 3, got 10",
        ),
        (
            ["Flatten", {"Dense": {"units": "classes"}}, SOFTMAX],
            r"layers\[1\].Dense.units: expected a positive integer; `classes` is for the last",
        ),
        ([SOFTMAX], "expected Flatten, GlobalAveragePooling2D or GlobalMaxPooling2D before the"),
        (
            [{"my_layers.SqueezeExcitation": {"ration": 4}}, *LAYERS[2:]],
            "my_layers.SqueezeExcitation: a layer that cannot be built: .*ratio",
        ),
        (
            [LAYERS[1], "Flatten", LAYERS[0], "GlobalAveragePooling2D", SOFTMAX],
            "Conv2D: a layer that cannot be built: ",
        ),
        ([LAYERS[1], SOFTMAX], "layers: expected 3 probabilities, got"),
    ],
)
def test_layers_that_do_not_fit_the_data_are_one_line(
    layers: list[Any], message: str, colours: Dataset
) -> None:
    with pytest.raises(DigitsError, match=message) as error:
        training.train_model("mine", params(layers), colours, seed=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_layers.Squeeze", "one of the classes of src/my_layers.py: SqueezeExcitation"),
        ("my_layer.Squeeze", "a class of a module in src, but src/my_layer.py is none"),
        ("os.path.Squeeze", "a class of a module in src"),
        ("module.Class", "a class of a module in src"),
    ],
)
def test_a_layer_that_is_not_in_its_module_is_refused_before_it_is_imported(
    name: str, message: str
) -> None:
    with pytest.raises(DigitsError, match=message):
        params([{name: {"ratio": 4}}, *LAYERS[2:]])


def test_names_of_classes_are_those_of_params_or_of_the_data(colours: Dataset) -> None:
    parameters = params(LAYERS)
    assert dataset.class_names(parameters, colours) == ("red", "green", "blue")
    data = parameters.data.model_copy(update={"classes": ["R", "G"]})
    with pytest.raises(DigitsError, match=r"data\.classes: expected null or 3 names, .* got 2"):
        dataset.class_names(parameters.model_copy(update={"data": data}), colours)


@pytest.mark.usefixtures("disconnect")
def test_an_own_layer_is_saved_logged_and_loaded_where_the_project_is_not(
    colours: Dataset, tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from digits.tracking.logged_model import log_model

    monkeypatch.chdir(tmp_path)
    network = training.train_model("mine", params(LAYERS), colours, seed=1).network
    expected = predict_probabilities(network, colours.x_test)
    models.save(network, tmp_path / "mine.keras")
    again = models.load(tmp_path / "mine.keras", (12, 10, 3), 3)
    np.testing.assert_array_equal(predict_probabilities(again, colours.x_test), expected)

    copy_database(new_database, tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with mlflow.start_run() as run:
        address = f"models:/{log_model(network, (), run.info.run_id)}"
    folder = mlflow.artifacts.download_artifacts(address)
    np.save(tmp_path / "images.npy", colours.x_test)
    script = """
import json, mlflow, numpy, os, sys
sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "digits"))]
result = mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.load("images.npy"))
print(json.dumps(numpy.asarray(result["probabilities"]).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)
    assert (Path(folder) / "code/my_layers.py").read_bytes() == (
        ROOT / "src/my_layers.py"
    ).read_bytes()
