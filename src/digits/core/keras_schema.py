"""The layers, optimizers, losses and callbacks that params.yaml may name, with their arguments.

Each class has the name and the arguments of the one in Keras, so that a mistake is reported before
TensorFlow is imported. Only the arguments that params.yaml sets are passed on: Keras's own defaults
hold for the others, and those declared here tell no more than that an argument may be left out.

To allow another class of Keras, declare it here; a layer with the shape of its output. In training
a layer is called as Keras calls it, unless train_step.py:forward computes it in another way.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

# Larger sizes fit into no memory, and Keras would report that only after minutes.
MAX_SIZE = 1_000_000


def expect(what: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """Return a check whose failure reads "expected <what>"."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("expected", "{what}", {"what": what})
        return value

    return BeforeValidator(check)


def expected(what: str, value: Any, key: str = "") -> PydanticCustomError:
    """Return an error about the value under validation, or about one key inside it."""
    return PydanticCustomError("expected", "{what}", {"what": what, "value": value, "key": key})


def is_int(value: Any, low: int, high: int = MAX_SIZE) -> bool:
    """Tell whether a value is an integer, and no boolean, within limits."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number that float32 holds."""
    return type(value) in (int, float) and abs(value) <= 1e38


def _is_size(value: Any) -> bool:
    pair = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(is_int(side, 1) for side in pair)


def one_of(*words: str) -> BeforeValidator:
    """Return a check that a value is one of some words."""
    return expect("one of " + ", ".join(words), lambda v: isinstance(v, str) and v in words)


def _number(what: str, holds: Callable[[float], bool]) -> BeforeValidator:
    return expect(what, lambda v: is_number(v) and holds(v))


Flag = Annotated[bool, expect("true or false", lambda v: type(v) is bool)]
PositiveInt = Annotated[int, expect("a positive integer", lambda v: is_int(v, 1))]
Count = Annotated[int, expect("an integer of 0 or more", lambda v: is_int(v, 0))]
Number = Annotated[float, expect("a number", is_number)]
PositiveNumber = Annotated[float, _number("a positive number", lambda v: v > 0)]
NonNegative = Annotated[float, _number("a number of 0 or more", lambda v: v >= 0)]
Fraction = Annotated[
    float, _number("a number from 0 up to, not including, 1", lambda v: 0 <= v < 1)
]
Size = Annotated[int | list[int], expect("a positive integer or a pair of them", _is_size)]
Text = Annotated[str, expect("a text", lambda v: isinstance(v, str) and v != "")]
Activation = Annotated[
    str, one_of("relu", "softmax", "linear", "elu", "gelu", "silu", "tanh", "sigmoid")
]
Padding = Annotated[str, one_of("valid", "same")]
Monitor = Annotated[str, one_of("loss", "accuracy", "val_loss", "val_accuracy")]
Mode = Annotated[str, one_of("auto", "min", "max")]


class Strict(BaseModel):
    """A frozen block of params.yaml; a key that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KerasClass(Strict):
    """A class of Keras in params.yaml: `Name`, or `Name: {argument: value, …}`."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        return {} if isinstance(value, str) or value[cls.__name__] is None else value[cls.__name__]

    @model_serializer(mode="wrap")
    def _wrap(self, serialize: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        arguments = serialize(self)
        # Pydantic calls this twice for a class whose fields hold others of its union.
        return arguments if self.name in arguments else {self.name: arguments}

    @property
    def name(self) -> str:
        """The name of the class in Keras."""
        return type(self).__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that params.yaml sets; no defaults."""
        names = type(self).model_fields  # in the order of their declaration
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


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


class Add(Layer):
    """The sum of several branches of the same input.

    Attributes:
        branches: lists of layers; an empty one is the input itself, which makes the others a
            residual.
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

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape that all branches have."""
        return self._merged(
            [
                stack_shape(branch, shape, f"branches[{index}]")
                for index, branch in enumerate(self.branches)
            ]
        )

    def _merged(self, shapes: list[Shape]) -> Shape:
        if len(set(shapes)) > 1:
            raise expected("branches of the same output shape", shapes)
        return shapes[0]


class Concatenate(Add):
    """The channels, or units, of several branches of the same input."""

    def _merged(self, shapes: list[Shape]) -> Shape:
        if len({shape[:-1] for shape in shapes}) > 1:
            raise expected("branches of the same height and width", shapes)
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


class Optimizer(KerasClass):
    """An optimizer of `keras.optimizers`."""

    learning_rate: PositiveNumber


class Adam(Optimizer):
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: Flag = False


class AdamW(Adam):
    weight_decay: Fraction = 0.004


class Nadam(Optimizer):
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: PositiveNumber = 1e-7


class RMSprop(Optimizer):
    rho: Fraction = 0.9
    momentum: Fraction = 0.0
    epsilon: PositiveNumber = 1e-7


class SGD(Optimizer):
    momentum: Fraction = 0.0
    nesterov: Flag = False


class Loss(KerasClass):
    """A loss of `keras.losses`."""


class CategoricalCrossentropy(Loss):
    label_smoothing: Fraction = 0.0


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    alpha: Fraction = 0.25
    gamma: NonNegative = 2.0


class Callback(KerasClass):
    """A callback of `keras.callbacks`."""


class EarlyStopping(Callback):
    monitor: Monitor = "val_loss"
    min_delta: NonNegative = 0.0
    patience: Count = 0
    mode: Mode = "auto"
    baseline: Number | None = None
    restore_best_weights: Flag = False
    start_from_epoch: Count = 0


class ReduceLROnPlateau(Callback):
    monitor: Monitor = "val_loss"
    factor: Fraction = 0.1
    patience: Count = 10
    mode: Mode = "auto"
    min_delta: NonNegative = 0.0001
    cooldown: Count = 0
    min_lr: NonNegative = 0.0


class ModelCheckpoint(Callback):
    filepath: Text
    monitor: Monitor = "val_loss"
    save_best_only: Flag = False
    save_weights_only: Flag = False
    mode: Mode = "auto"


class CSVLogger(Callback):
    filename: Text
    append: Flag = False


class TensorBoard(Callback):
    log_dir: Text = "logs"
    histogram_freq: Count = 0


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
        raise expected("a place before Flatten", layer.name)


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


def _subclasses(base: type[KerasClass]) -> list[type[KerasClass]]:
    return [kind for child in base.__subclasses__() for kind in (child, *_subclasses(child))]


def _any_of(base: type[KerasClass]) -> Any:
    """Return the union of the subclasses of a base, told apart by the name that is written."""

    def class_name(value: Any) -> str | None:
        if isinstance(value, KerasClass):
            return value.name
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value
        return value if isinstance(value, str) else None

    kinds = _subclasses(base)
    example = f"one {base.__name__.lower()}, such as {kinds[0].__name__}: {{...}}"
    return Annotated[
        Union[tuple(Annotated[kind, Tag(kind.__name__)] for kind in kinds)],  # noqa: UP007
        Discriminator(class_name),
        expect(example, lambda value: class_name(value) is not None),
    ]


# The types of fields. mypy takes the base, pydantic the union of its subclasses.
if TYPE_CHECKING:
    AnyLayer: TypeAlias = Layer
    AnyOptimizer: TypeAlias = Optimizer
    AnyLoss: TypeAlias = Loss
    AnyCallback: TypeAlias = Callback
else:
    AnyLayer, AnyOptimizer, AnyLoss, AnyCallback = map(_any_of, (Layer, Optimizer, Loss, Callback))
    Add.model_rebuild()  # Their branches hold layers of any kind.
    Concatenate.model_rebuild()
