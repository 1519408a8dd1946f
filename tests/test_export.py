"""A network as ONNX answers as Keras does, and its bytes follow from it alone."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, TINY_PARAMS, environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from digits import DigitsError
from digits.core import config, models
from digits.core.dataset import Dataset
from digits.core.evaluation import predict_probabilities
from digits.core.keras_backend import keras
from digits.core.layer_schema import Layer
from digits.core.schema import Model, Params, Transform
from digits.serving import exported
from digits.serving.classifier import ImageClassifier
from digits.serving.export import CONVERTERS, export
from digits.serving.keras_classifier import KerasClassifier

TTA = [Transform(rotation=-5, down=-0.5, across=-0.5), Transform(rotation=5, down=0.5, across=1)]
HEAD = ["Flatten", {"Dense": {"units": "classes", "activation": "softmax"}}]
TRAINING: dict[str, Any] = {
    "loss": "CategoricalCrossentropy",
    "optimizer": {"Adam": {"learning_rate": 0.01}},
    "epochs": 1,
    "batch_size": 8,
}
PARAMS = config.load(ROOT / "params.yaml")

activations = st.sampled_from(
    ["relu", "softmax", "linear", "elu", "gelu", "silu", "tanh", "sigmoid"]
)
sizes = st.integers(1, 4) | st.lists(st.integers(1, 4), min_size=2, max_size=2)
paddings = st.sampled_from(["valid", "same"])


def layer(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({name: st.fixed_dictionaries({}, optional=arguments)})


def convolution(**fixed: Any) -> st.SearchStrategy[Any]:
    options: dict[str, Any] = {
        "filters": st.integers(2, 5),
        "kernel_size": sizes,
        "strides": st.integers(1, 2),
        "padding": paddings,
        "activation": activations,
        "use_bias": st.booleans(),
    }
    options |= {name: st.just(value) for name, value in fixed.items()}
    return st.fixed_dictionaries({"Conv2D": st.fixed_dictionaries(options)})


pools = st.fixed_dictionaries({"pool_size": sizes, "padding": paddings})
residual = st.lists(
    convolution(filters=3, strides=1, padding="same") | st.just("ReLU"), min_size=1, max_size=2
)
heads = st.just({"branches": [["GlobalMaxPooling2D"], ["GlobalAveragePooling2D"]]})
maps = st.one_of(
    convolution(),
    st.fixed_dictionaries({"MaxPooling2D": pools}),
    st.fixed_dictionaries({"AveragePooling2D": pools}),
    layer("BatchNormalization", center=st.booleans(), scale=st.booleans()),
    st.fixed_dictionaries(
        {"Dense": st.fixed_dictionaries({"units": st.integers(2, 4), "activation": activations})}
    ),
    st.just("ReLU"),
    st.just({"Dropout": {"rate": 0.3}}),
    st.sampled_from(["bilinear", "nearest", "bicubic"]).map(
        lambda how: {"Resizing": {"height": 9, "width": 13, "interpolation": how}}
    ),
    st.just({"CenterCrop": {"height": 5, "width": 6}}),
    residual.map(lambda branch: {"Add": {"branches": [[], branch]}}),
    residual.map(lambda branch: {"Concatenate": {"branches": [branch, []]}}),
)
ends = st.one_of(
    st.just(["Flatten"]),
    st.just(["GlobalAveragePooling2D"]),
    st.just(["GlobalMaxPooling2D", "BatchNormalization"]),
    heads.map(lambda branches: [{"Concatenate": branches}, {"Dense": {"units": 5}}]),
)
architectures = st.builds(
    lambda stem, end: [*stem, *end, HEAD[1]], st.lists(maps, max_size=4), ends
)


def model(layers: list[Any]) -> Model:
    return Model.model_validate({"layers": layers, **TRAINING})


def with_random_weights(network: Any) -> Any:
    """A network none of whose weights, moving means and variances is what it starts with."""
    random = np.random.default_rng(1)
    network.set_weights([w + random.normal(0, 0.05, w.shape) for w in network.get_weights()])
    network.optimizer.build(network.trainable_variables)  # as a training does; it is saved, too
    return network


def assert_equal_answers(network: Any, images: Any, tta: list[Transform]) -> None:
    expected = predict_probabilities(network, images, tta)
    answers = ImageClassifier(export(network, tta)).predict(images)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert answers["label"].tolist() == answers["probabilities"].argmax(axis=1).tolist()


@pytest.mark.parametrize("version", PARAMS.models)
def test_every_version_answers_as_keras_does(version: str, tiny: Dataset) -> None:
    network = with_random_weights(models.build(PARAMS.model(version), 1, images_per_epoch=80))
    for tta in ([], TTA):
        assert_equal_answers(network, tiny.x_train, tta)


def test_every_layer_that_params_yaml_may_name_is_converted() -> None:
    names = {kind.__name__ for kind in Layer.__subclasses__() if not kind.__name__.startswith("_")}
    assert names - {"OwnLayer"} <= set(CONVERTERS)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    architectures,
    st.sampled_from([(28, 28, 1), (12, 10, 3)]),
    st.sampled_from([[], TTA[:1], TTA]),
)
def test_any_architecture_answers_as_keras_does(
    layers: list[Any], shape: tuple[int, int, int], tta: list[Transform]
) -> None:
    try:
        block = model(layers).for_images(shape, 3)
    except PydanticCustomError:
        return  # It does not fit the image.
    network = with_random_weights(models.build(block, 1, shape=shape, classes=3))
    network.run_eagerly = True  # Tracing such a network takes longer than computing it.
    images = np.random.default_rng(2).integers(0, 256, (5, *shape), dtype=np.uint8)
    assert_equal_answers(network, images[..., 0] if shape[2] == 1 else images, tta)


def test_the_bytes_are_equal_here_and_in_a_fresh_process() -> None:
    script = """
import hashlib, sys
from pathlib import Path
from digits.core import config, models
from digits.core.schema import Transform
from digits.serving.export import export
network = models.build(config.load(Path(sys.argv[1])).model("v4"), 1, 80)
print(hashlib.sha256(export(network, [Transform(rotation=5)])).hexdigest())
"""
    fresh = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "params.yaml")],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    models.build(PARAMS.model("v1"), 3)  # Keras counts its layers.
    content = export(models.build(PARAMS.model("v4"), 1, 80), [Transform(rotation=5)])
    assert fresh.stdout.strip() == hashlib.sha256(content).hexdigest()


def test_the_exported_network_answers_only_for_what_it_was_made_of(tmp_path: Path) -> None:
    network = with_random_weights(models.build(Params.model_validate(TINY_PARAMS).model("v1"), 1))
    file, onnx = tmp_path / "v1.keras", tmp_path / "v1.onnx"
    models.save(network, file)
    exported.write(network, file, TTA, onnx)
    assert isinstance(exported.load(file, TTA, onnx), ImageClassifier)
    assert isinstance(exported.load(file, [], onnx), KerasClassifier)
    models.save(with_random_weights(network), file)
    assert isinstance(exported.load(file, TTA, onnx), KerasClassifier)


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v1.onnx").write_bytes(content)
    with pytest.raises(DigitsError, match=r"v1\.onnx: expected a model that `digits` exported"):
        ImageClassifier(tmp_path / "v1.onnx")


def test_a_damaged_export_does_not_stop_the_keras_file_from_answering(tmp_path: Path) -> None:
    network = with_random_weights(models.build(Params.model_validate(TINY_PARAMS).model("v1"), 1))
    models.save(network, tmp_path / "v1.keras")
    (tmp_path / "v1.onnx").write_bytes(b"no model")
    assert isinstance(
        exported.load(tmp_path / "v1.keras", [], tmp_path / "v1.onnx"), KerasClassifier
    )


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        ("same", "in ONNX it gives other probabilities"),
        ("valid", r"no network that can be ex.*: \["),
    ],
)
def test_an_option_that_is_not_converted_is_noticed(padding: str, message: str) -> None:
    layers = [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(2, 3, dilation_rate=3, padding=padding, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    with pytest.raises(DigitsError, match=message):
        export(keras.Sequential(layers))


def test_a_layer_of_ones_own_has_no_onnx(tmp_path: Path) -> None:
    layers = [{"my_layers.SqueezeExcitation": {"ratio": 1}}, *HEAD]
    network = with_random_weights(models.build(model(layers), 1))
    with pytest.raises(DigitsError, match="expected layers of Keras; it has no form in ONNX"):
        export(network)
    file = tmp_path / "mine.keras"
    models.save(network, file)
    with pytest.raises(DigitsError):
        exported.write(network, file, [], tmp_path / "mine.onnx")
    assert not (tmp_path / "mine.onnx").exists()
    assert isinstance(exported.load(file, [], tmp_path / "mine.onnx"), KerasClassifier)


def test_an_answer_imports_neither_tensorflow_nor_keras_nor_mlflow(
    tmp_path: Path, tiny: Dataset
) -> None:
    network = models.build(Params.model_validate(TINY_PARAMS).model("v1"), 1)
    (tmp_path / "v1.onnx").write_bytes(export(network))
    np.save(tmp_path / "images.npy", tiny.x_test)
    script = """
import sys
sys.modules.update(dict.fromkeys(["tensorflow", "keras", "mlflow"]))
import hashlib, numpy
from pathlib import Path
from digits.serving.classifier import ImageClassifier
answers = ImageClassifier(Path("v1.onnx")).predict(numpy.load("images.npy"))
print(hashlib.sha256(answers["probabilities"].tobytes()).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = ImageClassifier(tmp_path / "v1.onnx").predict(tiny.x_test)["probabilities"]
    assert done.stdout.strip() == hashlib.sha256(answers.tobytes()).hexdigest()
