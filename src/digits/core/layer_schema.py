"""The layers that params.yaml may name, with their arguments and the shapes of their outputs.

To allow another layer of Keras, declare it here, with `output_shape` if it changes the shape. In
training a layer is called as Keras calls it, unless train_step.py computes it in another way.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic_core import PydanticCustomError

from digits.core.keras_schema import (
    Activation,
    Flag,
    Fraction,
    KerasClass,
    Padding,
    PositiveInt,
    PositiveNumber,
    Size,
    any_of,
    expect,
    expected,
)

Shape = tuple[int, ...]  # of one image: (height, width, channels), or (units,) once it is flat


class Layer(KerasClass):
    """A layer of `keras.layers`."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for that of the input.

        Raises:
            PydanticCustomError: the layer does not fit this input.
        """
        return shape


class Conv2D(Layer):
    filters: PositiveInt
    kernel_size: Size
    strides: Size = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    use_bias: Flag = True

    def output_shape(self, shape: Shape) -> Shape:
        """Return height, width and filters."""
        return (*_windows(self, self.kernel_size, self.strides, shape), self.filters)


class Dense(Layer):
    units: PositiveInt
    activation: Activation = "linear"
    use_bias: Flag = True

    def output_shape(self, shape: Shape) -> Shape:
        """Replace the last dimension, the only one that Keras multiplies."""
        return (*shape[:-1], self.units)


class MaxPooling2D(Layer):
    pool_size: Size = 2
    strides: Size = 2
    padding: Padding = "valid"

    def output_shape(self, shape: Shape) -> Shape:
        """Return height, width and channels."""
        # A pool moves by its own size unless params.yaml says otherwise.
        strides = self.arguments.get("strides", self.pool_size)
        return (*_windows(self, self.pool_size, strides, shape), shape[-1])


class AveragePooling2D(MaxPooling2D):
    pool_size: Size


class GlobalAveragePooling2D(Layer):
    def output_shape(self, shape: Shape) -> Shape:
        """Return one value for each channel."""
        _check_is_map(self, shape)
        return shape[-1:]


class GlobalMaxPooling2D(GlobalAveragePooling2D):
    pass


class Flatten(Layer):
    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of values."""
        return (math.prod(shape),)


class Dropout(Layer):
    rate: Fraction


class BatchNormalization(Layer):
    momentum: Fraction = 0.99
    epsilon: PositiveNumber = 0.001
    center: Flag = True
    scale: Flag = True


class ReLU(Layer):
    pass


class _Branched(Layer):
    """Several branches of the same input, whose outputs are merged.

    Attributes:
        branches: lists of layers; an empty one is the input itself.
    """

    branches: Annotated[
        list[list["AnyLayer"]],
        expect(
            "two or more lists of layers, at most one of them empty",
            lambda v: (
                isinstance(v, list)
                and len(v) > 1
                and all(isinstance(branch, list) for branch in v)
                and v.count([]) < 2
            ),
        ),
    ]

    def output_shapes(self, shape: Shape) -> list[Shape]:
        """Return the shape of each branch's output for that of the input."""
        return [
            stack_shape(branch, shape, f"branches[{index}]")
            for index, branch in enumerate(self.branches)
        ]


class Add(_Branched):
    """The sum of the branches; with an empty one, the other is a residual."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape that all branches have."""
        shapes = self.output_shapes(shape)
        if len(set(shapes)) > 1:
            raise expected("branches of the same output shape", shapes)
        return shapes[0]


class Concatenate(_Branched):
    """The channels, or the units, of all branches."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return height and width of the branches, and the sum of their channels."""
        shapes = self.output_shapes(shape)
        if len({shape[:-1] for shape in shapes}) > 1:
            raise expected("branches of the same height and width", shapes)
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


def stack_shape(layers: Sequence[Layer], shape: Shape, key: str = "") -> Shape:
    """Return the shape of the output of layers one after another.

    Args:
        key: of the list of layers, for the error.

    Raises:
        PydanticCustomError: a layer does not fit its input; names it.
    """
    for index, layer in enumerate(layers):
        try:
            shape = layer.output_shape(shape)
        except PydanticCustomError as error:
            what, value, inner = (error.context or {}).values()
            where = f"{key}[{index}].{layer.name}.{inner}".rstrip(".")
            raise expected(what, value, where) from None
    return shape


def _check_is_map(layer: Layer, shape: Shape) -> None:
    if len(shape) != 3:
        raise expected("a place where the image still has height and width", layer.name)


def _windows(layer: Any, window: int | list[int], strides: int | list[int], shape: Shape) -> Shape:
    """Return how many positions a window has along height and width."""
    _check_is_map(layer, shape)
    sides, window = shape[:2], _pair(window)
    lost = (0, 0) if layer.padding == "same" else tuple(side - 1 for side in window)
    if any(side <= least for side, least in zip(sides, lost, strict=True)):
        raise expected(f"a window that fits its {sides[0]}×{sides[1]} input", window)
    return tuple(-(-(s - x) // t) for s, x, t in zip(sides, lost, _pair(strides), strict=True))


def _pair(size: int | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else size


# mypy takes the base, pydantic the union of its subclasses.
if TYPE_CHECKING:
    AnyLayer: TypeAlias = Layer
else:
    AnyLayer = any_of(Layer)
    Add.model_rebuild()  # Its branches hold layers of any kind.
    Concatenate.model_rebuild()
