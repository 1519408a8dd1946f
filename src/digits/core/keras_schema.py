"""The optimizers, losses and callbacks that params.yaml may name, and the types of its values.

Each class has the name and the arguments of the one in Keras, so that a mistake is reported before
TensorFlow is imported. Only the arguments that params.yaml sets are passed on: Keras's own defaults
hold for the others, and those declared here tell no more than that an argument may be left out.

To allow another class of Keras, declare it here; a layer, in layer_schema.py.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

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

OWN_TAG = "module.Class"  # of the user's, in layer_schema.py
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


def _is_small(value: Any) -> bool:
    sides = value if isinstance(value, list) else [value]
    return all(type(side) is not int or side <= MAX_SIZE for side in sides)


def _number(what: str, holds: Callable[[float], bool]) -> BeforeValidator:
    return expect(what, lambda v: is_number(v) and holds(v))


Flag = Annotated[bool, expect("true or false", lambda v: type(v) is bool)]
# The last check of a value is made first.
SMALL = expect(f"at most {MAX_SIZE:,}", _is_small)
PositiveInt = Annotated[int, expect("a positive integer", lambda v: is_int(v, 1)), SMALL]
Count = Annotated[int, expect("an integer of 0 or more", lambda v: is_int(v, 0))]
Number = Annotated[float, expect("a number", is_number)]
PositiveNumber = Annotated[float, _number("a positive number", lambda v: v > 0)]
NonNegative = Annotated[float, _number("a number of 0 or more", lambda v: v >= 0)]
Fraction = Annotated[
    float, _number("a number from 0 up to, not including, 1", lambda v: 0 <= v < 1)
]
Size = Annotated[int | list[int], expect("a positive integer or a pair of them", _is_size), SMALL]
Text = Annotated[str, expect("a text", lambda v: isinstance(v, str) and v != "")]
Interpolation = Annotated[str, one_of("bilinear", "nearest", "bicubic")]
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

    @classmethod
    def tag(cls) -> str:
        """Return what an error lists among the names that may stand here."""
        return cls.__name__

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        return {} if isinstance(value, str) or value[cls.__name__] is None else value[cls.__name__]

    @model_serializer
    def _wrap(self) -> dict[str, Any]:
        return {self.name: self.arguments}

    @property
    def name(self) -> str:
        """The name of the class in Keras."""
        return type(self).__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that params.yaml sets; no defaults."""
        names = type(self).model_fields  # in the order of their declaration
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


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


class SparseCategoricalCrossentropy(Loss):
    pass


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


def subclasses(base: type[KerasClass]) -> list[type[KerasClass]]:
    """Return the classes of Keras that derive from a base; a name with `_` is none of Keras."""
    kinds = [kind for child in base.__subclasses__() for kind in (child, *subclasses(child))]
    return [kind for kind in kinds if not kind.__name__.startswith("_")]


def any_of(base: type[KerasClass]) -> Any:
    """Return the union of the subclasses of a base, told apart by the name that is written."""

    def class_name(value: Any) -> str | None:
        if isinstance(value, KerasClass):
            return value.tag()
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value
        if not isinstance(value, str):
            return None
        return OWN_TAG if "." in value else value

    kinds = subclasses(base)
    example = f"one {base.__name__.lower()}, such as {kinds[0].__name__}: {{...}}"
    return Annotated[
        Union[tuple(Annotated[kind, Tag(kind.tag())] for kind in kinds)],  # noqa: UP007
        Discriminator(class_name),
        expect(example, lambda value: class_name(value) is not None),
    ]


# The types of fields. mypy takes the base, pydantic the union of its subclasses.
if TYPE_CHECKING:
    AnyOptimizer: TypeAlias = Optimizer
    AnyLoss: TypeAlias = Loss
    AnyCallback: TypeAlias = Callback
else:
    AnyOptimizer, AnyLoss, AnyCallback = map(any_of, (Optimizer, Loss, Callback))
