"""Export a network as ONNX: raw images in, labels and probabilities out, TTA inside.

The graph is built node by node from the layers that params.yaml may name, so that its bytes depend
on nothing but the network and its TTA.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from digits import DigitsError
from digits.core.augmentation import apply_transform
from digits.core.evaluation import predict_probabilities
from digits.core.keras_backend import keras
from digits.core.models import one_line
from digits.core.schema import Transform
from digits.serving.classifier import (
    IMAGES,
    LABEL,
    MADE_OF,
    PROBABILITIES,
    ImageClassifier,
)

OPSET, IR_VERSION = 20, 10
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
CHECKED = 8  # random images, for which Keras and ONNX Runtime are compared
TOLERANCE = 1e-3
BASIS = 1024  # images of one pixel that are transformed at once


def export(network: keras.Model, tta: Sequence[Transform] = (), made_of: str = "") -> bytes:
    """Return an ONNX model as bytes, the same for the same network, TTA and `made_of`.

    It maps `images`, uint8 as in training, of MNIST (n, 28, 28), to `label`, (n,) int64, and
    `probabilities`, (n, classes) float32: with TTA, the mean over the transforms.

    Args:
        made_of: what identifies network and TTA; stands in the model's metadata.

    Raises:
        DigitsError: a layer is none of those that params.yaml may name, but the user's own; or the
            model gives other probabilities than the network.
    """
    try:
        content = _export(network, tta, made_of)
    except DigitsError:
        raise
    except Exception as error:  # ONNX raises anything at all for nodes that do not fit.
        raise DigitsError(f"no network that can be exported: {one_line(error)}") from error
    shape = network.input_shape[1:] if network.input_shape[-1] > 1 else network.input_shape[1:3]
    images = np.random.default_rng(1).integers(0, 256, (CHECKED, *shape), dtype=np.uint8)
    expected = predict_probabilities(network, images, tta)
    if not np.allclose(ImageClassifier(content).probabilities(images), expected, atol=TOLERANCE):
        raise DigitsError(
            "expected a network whose layers have the options that params.yaml may set: in ONNX it "
            "gives other probabilities"
        )
    return content


def _export(network: keras.Model, tta: Sequence[Transform], made_of: str) -> bytes:
    graph = _Graph()
    _, height, width, channels = network.input_shape
    image_shape = (height, width, channels) if channels > 1 else (height, width)
    pixels = graph.add("Cast", IMAGES, to=TensorProto.FLOAT)
    pixels = graph.add("Div", pixels, graph.constant(np.float32(255)))
    shape = graph.constant(np.array([-1, height, width, channels]))
    if tta:
        flat = graph.constant(np.array([-1, height * width, channels]))
        pixels = graph.add("Reshape", pixels, flat)
        views = [_transform(graph, pixels, t, (height, width)) for t in tta]
        pixels = graph.add("Concat", *views, axis=0) if len(views) > 1 else views[0]
    output = _stack(graph, network.layers, _Tensor(graph.add("Reshape", pixels, shape), 4))
    classes = network.output_shape[-1]
    by_view = graph.constant(np.array([max(len(tta), 1), -1, classes]))
    several = graph.add("Reshape", graph.last_axis(output), by_view)
    axis = graph.constant(np.array([0]))
    graph.add("ReduceMean", several, axis, keepdims=0, output=PROBABILITIES)
    graph.add("ArgMax", PROBABILITIES, axis=1, keepdims=0, output=LABEL)
    return graph.serialize(image_shape, classes, made_of)


@dataclass(frozen=True)
class _Tensor:
    """The name of a tensor in the graph, and where its channels are.

    Attributes:
        rank: 4 for images, 2 for vectors.
        channels_first: whether it is (n, channels, height, width), as ONNX computes images.
    """

    name: str
    rank: int
    channels_first: bool = False


@dataclass
class _Graph:
    """Nodes and constants, in the order in which they are added, named by their numbers."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        name = output or f"{len(self.nodes)}_{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant, and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def channels_first(self, x: _Tensor) -> str:
        """Return an image tensor as (n, channels, height, width)."""
        return x.name if x.channels_first else self.add("Transpose", x.name, perm=TO_NCHW)

    def last_axis(self, x: _Tensor) -> str:
        """Return a tensor whose channels are its last axis."""
        return self.add("Transpose", x.name, perm=TO_NHWC) if x.channels_first else x.name

    def serialize(self, image_shape: Sequence[int], classes: int, made_of: str) -> bytes:
        """Return the checked model."""
        value = helper.make_tensor_value_info
        images = value(IMAGES, TensorProto.UINT8, ["n", *image_shape])
        outputs = [
            value(LABEL, TensorProto.INT64, ["n"]),
            value(PROBABILITIES, TensorProto.FLOAT, ["n", classes]),
        ]
        graph = helper.make_graph(self.nodes, "digits", [images], outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, producer_name="digits", opset_imports=opsets, ir_version=IR_VERSION
        )
        helper.set_model_props(model, {MADE_OF: made_of})
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _transform(graph: _Graph, pixels: str, transform: Transform, sides: tuple[int, int]) -> str:
    """Return (n, pixels, channels) transformed: each of four pixels times its weight, added."""
    sources, weights = _interpolation(transform, sides)
    parts = [
        graph.add(
            "Mul",
            graph.add("Gather", pixels, graph.constant(source), axis=1),
            graph.constant(weight[:, np.newaxis]),
        )
        for source, weight in zip(sources, weights, strict=True)
    ]
    return graph.add("Sum", *parts)


def _interpolation(
    transform: Transform, sides: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return which pixels each pixel of a transformed image comes from, and their weights.

    Returns:
        Two (4, height * width) arrays; a weight of 0 stands for fewer than four pixels.
    """
    size = math.prod(sides)
    sources, weights = np.zeros((4, size), np.int32), np.zeros((4, size), np.float32)
    filled = np.zeros(size, int)
    for first in range(0, size, BASIS):
        pixels = np.arange(first, min(first + BASIS, size))
        basis = np.zeros((len(pixels), size), np.uint8)
        basis[np.arange(len(pixels)), pixels] = 255
        moved = np.asarray(apply_transform(transform, basis.reshape(-1, *sides)))
        for row, target in zip(*np.nonzero(moved.reshape(len(pixels), size)), strict=True):
            sources[filled[target], target] = pixels[row]
            weights[filled[target], target] = moved.reshape(len(pixels), size)[row, target]
            filled[target] += 1
    return sources, weights


def _stack(graph: _Graph, layers: Sequence[Any], x: _Tensor) -> _Tensor:
    """Add layers one after another."""
    for layer in layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        kind = "branches" if isinstance(layer, keras.Model) else type(layer).__name__
        if kind not in CONVERTERS or not type(layer).__module__.startswith("keras."):
            raise DigitsError(f"{kind}: expected layers of Keras; it has no form in ONNX")
        x = CONVERTERS[kind](graph, layer, x)
        if hasattr(layer, "activation"):
            x = _activate(graph, layer.activation.__name__, x)
    return x


def _convolve(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    inputs = [graph.channels_first(x), graph.constant(np.transpose(layer.kernel, (3, 2, 0, 1)))]
    if layer.use_bias:
        inputs.append(graph.constant(np.asarray(layer.bias)))
    return _windowed(graph, "Conv", layer, layer.kernel_size, inputs)


def _pool(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    kind = "MaxPool" if isinstance(layer, keras.layers.MaxPooling2D) else "AveragePool"
    return _windowed(graph, kind, layer, layer.pool_size, [graph.channels_first(x)])


def _windowed(
    graph: _Graph, kind: str, layer: Any, window: Sequence[int], inputs: Sequence[str]
) -> _Tensor:
    padding = "SAME_UPPER" if layer.padding == "same" else "VALID"
    options = {"kernel_shape": window, "strides": layer.strides, "auto_pad": padding}
    return _Tensor(graph.add(kind, *inputs, **options), 4, channels_first=True)


def _multiply(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    name = graph.add("MatMul", graph.last_axis(x), graph.constant(np.asarray(layer.kernel)))
    if layer.use_bias:
        name = graph.add("Add", name, graph.constant(np.asarray(layer.bias)))
    return _Tensor(name, x.rank)


def _normalize(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    scale = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
    offset = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
    constants = [graph.constant(value) for value in (scale, offset, mean, variance)]
    name = graph.channels_first(x) if x.rank == 4 else x.name
    name = graph.add("BatchNormalization", name, *constants, epsilon=layer.epsilon)
    return _Tensor(name, x.rank, channels_first=x.rank == 4)


def _resample(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    """Multiply images by a matrix on either side: what the layer does to rows and to columns."""
    height, width = layer.input.shape[1:3]
    of_rows, of_columns = np.eye(height)[:, :, np.newaxis], np.eye(width)[:, np.newaxis, :]
    rows = layer(np.repeat(of_rows, width, 2)[..., np.newaxis].astype(np.float32))
    columns = layer(np.repeat(of_columns, height, 1)[..., np.newaxis].astype(np.float32))
    left = np.asarray(rows)[:, :, 0, 0].T
    right = np.asarray(columns)[:, 0, :, 0]
    name = graph.add("MatMul", graph.constant(left), graph.channels_first(x))
    return _Tensor(graph.add("MatMul", name, graph.constant(right)), 4, channels_first=True)


def _reduce(kind: str) -> "Converter":
    def convert(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
        axes = graph.constant(np.array([2, 3]))
        return _Tensor(graph.add(kind, graph.channels_first(x), axes, keepdims=0), 2)

    return convert


def _flatten(graph: _Graph, layer: Any, x: _Tensor) -> _Tensor:
    return _Tensor(graph.add("Flatten", graph.last_axis(x), axis=1), 2)


def _merge(graph: _Graph, model: Any, x: _Tensor) -> _Tensor:
    """Add the branches of one input, and merge them; see models.py:_branches."""
    merge = model.layers[-1]
    sources = [tensor._keras_history.operation for tensor in merge.input]
    branches = [
        _stack(graph, source.layers, x) if isinstance(source, keras.Sequential) else x
        for source in sources
    ]
    names = [graph.last_axis(branch) for branch in branches]
    if isinstance(merge, keras.layers.Add):
        return _Tensor(graph.add("Sum", *names), branches[0].rank)
    return _Tensor(graph.add("Concat", *names, axis=-1), branches[0].rank)


def _activate(graph: _Graph, activation: str, x: _Tensor) -> _Tensor:
    if activation == "linear":
        return x
    if activation == "silu":
        name = graph.add("Mul", x.name, graph.add("Sigmoid", x.name))
    elif activation == "softmax":
        name = graph.add("Softmax", x.name, axis=1 if x.channels_first else -1)
    else:
        name = graph.add(ACTIVATIONS[activation], x.name)
    return _Tensor(name, x.rank, x.channels_first)


Converter = Callable[[_Graph, Any, _Tensor], _Tensor]
ACTIVATIONS = {
    "relu": "Relu",
    "elu": "Elu",
    "gelu": "Gelu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
CONVERTERS: Mapping[str, Converter] = {
    "AveragePooling2D": _pool,
    "BatchNormalization": _normalize,
    "CenterCrop": _resample,
    "Conv2D": _convolve,
    "Dense": _multiply,
    "Dropout": lambda graph, layer, x: x,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _reduce("ReduceMean"),
    "GlobalMaxPooling2D": _reduce("ReduceMax"),
    "MaxPooling2D": _pool,
    "ReLU": lambda graph, layer, x: _activate(graph, "relu", x),
    "Resizing": _resample,
    "branches": _merge,
}
