"""The layers that params.yaml may name, with their arguments and the shapes of their outputs.

To allow another layer of Keras, declare it here, with `output_shape` if it changes the shape. A
layer of one's own is `module.Class` of a module beside this package and needs no declaration. In
training a layer is called as Keras calls it, unless train_step.py computes it in another way.
"""

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from digits.core.keras_schema import (
    OWN_TAG,
    SMALL,
    Activation,
    Flag,
    Fraction,
    Interpolation,
    KerasClass,
    Padding,
    PositiveInt,
    PositiveNumber,
    Size,
    any_of,
    expect,
    expected,
    is_int,
)

Shape = tuple[int, ...]  # of one image: (height, width, channels), or (units,) once it is flat
CLASSES = "classes"  # as `units` of the last layer: the number of classes in the data
SOURCES = Path(__file__).parents[2]  # the folder of this package, and of the user's modules


class Layer(KerasClass):
    """A layer of `keras.layers`."""

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape of the output for that of the input; None if only Keras can tell.

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
    units: Annotated[
        int | str,
        expect(
            f"a positive integer, or `{CLASSES}` in the last layer",
            lambda v: v == CLASSES or is_int(v, 1),
        ),
        SMALL,
    ]
    activation: Activation = "linear"
    use_bias: Flag = True

    def output_shape(self, shape: Shape) -> Shape:
        """Replace the last dimension, the only one that Keras multiplies."""
        if isinstance(self.units, str):
            what = f"a positive integer; `{CLASSES}` is for the last layer"
            raise expected(what, self.units, "units")
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


class CenterCrop(Layer):
    height: PositiveInt
    width: PositiveInt

    def output_shape(self, shape: Shape) -> Shape:
        """Return height, width and channels of the middle of the image."""
        _check_is_map(self, shape)
        for key, side in zip(("height", "width"), shape[:2], strict=True):
            if getattr(self, key) > side:
                raise expected(f"at most the input's {side}", getattr(self, key), key)
        return (self.height, self.width, shape[-1])


class Resizing(Layer):
    height: PositiveInt
    width: PositiveInt
    interpolation: Interpolation = "bilinear"

    def output_shape(self, shape: Shape) -> Shape:
        """Return height, width and channels after interpolation."""
        _check_is_map(self, shape)
        return (self.height, self.width, shape[-1])


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

    def output_shapes(self, shape: Shape) -> list[Shape | None]:
        """Return the shape of each branch's output for that of the input."""
        return [
            stack_shape(branch, shape, f"branches[{index}]")
            for index, branch in enumerate(self.branches)
        ]


class Add(_Branched):
    """The sum of the branches; with an empty one, the other is a residual."""

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return the shape that all branches have."""
        shapes = self.output_shapes(shape)
        if len(set(shapes) - {None}) > 1:
            raise expected("branches of the same output shape", shapes)
        return next(filter(None, shapes), None)


class Concatenate(_Branched):
    """The channels, or the units, of all branches."""

    def output_shape(self, shape: Shape) -> Shape | None:
        """Return height and width of the branches, and the sum of their channels."""
        shapes = self.output_shapes(shape)
        computed = [shape for shape in shapes if shape]
        if len({shape[:-1] for shape in computed}) > 1:
            raise expected("branches of the same height and width", shapes)
        if len(computed) < len(shapes):
            return None
        return (*computed[0][:-1], sum(shape[-1] for shape in computed))


class OwnLayer(Layer):
    """A class of the user's, `module.Class`, of a module beside this package.

    Attributes:
        class_path: the module's name and that of the class.
        keywords: its arguments, passed as they are.
    """

    class_path: str
    keywords: dict[str, Any] = Field({})

    @classmethod
    def tag(cls) -> str:
        """Return the form of the name."""
        return OWN_TAG

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        (path, keywords), *_ = value.items() if isinstance(value, dict) else [(value, {})]
        return {"class_path": path, "keywords": keywords or {}}

    @model_validator(mode="after")
    def _is_in_its_module(self) -> "OwnLayer":
        module, _, name = self.class_path.rpartition(".")
        shown = f"{SOURCES.name}/{self.module.name}"
        if not (module.isidentifier() and self.module.is_file()):
            raise expected(f"a class of a module in {SOURCES.name}, but {shown} is none", name)
        try:
            tree = ast.parse(self.module.read_bytes())
        except (SyntaxError, ValueError) as error:
            raise expected(f"Python in {shown} ({error})", name) from None
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        if name not in classes:
            raise expected(f"one of the classes of {shown}: {', '.join(classes)}", name)
        return self

    @property
    def name(self) -> str:
        """The name of the module and of the class."""
        return self.class_path

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that params.yaml sets."""
        return self.keywords

    @property
    def module(self) -> Path:
        """The file that defines the class."""
        return SOURCES / f"{self.class_path.rpartition('.')[0]}.py"

    def output_shape(self, shape: Shape) -> None:
        """Return None: what the class computes is not looked at before TensorFlow is imported."""


def stack_shape(layers: Sequence[Layer], shape: Shape, key: str = "") -> Shape | None:
    """Return the shape of the output of layers one after another; None if only Keras can tell.

    Args:
        key: of the list of layers, for the error.

    Raises:
        PydanticCustomError: a layer does not fit its input; names it.
    """
    output: Shape | None = shape
    for index, layer in enumerate(layers):
        if output is None:
            return None
        try:
            output = layer.output_shape(output)
        except PydanticCustomError as error:
            what, value, inner = (error.context or {}).values()
            where = f"{key}[{index}].{layer.name}.{inner}".rstrip(".")
            raise expected(what, value, where) from None
    return output


def own_modules(layers: Sequence[Layer]) -> set[Path]:
    """Return the files of the user's modules that layers come from, those of branches too."""
    modules: set[Path] = set()
    for layer in layers:
        if isinstance(layer, OwnLayer):
            modules.add(layer.module)
        elif isinstance(layer, _Branched):
            modules.update(*(own_modules(branch) for branch in layer.branches))
    return modules


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
