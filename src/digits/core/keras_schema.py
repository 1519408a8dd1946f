"""The layers, optimizers and losses that params.yaml may name, with their arguments.

Each class has the name and the arguments of the one in `keras.layers`, `keras.optimizers` or
`keras.losses`. It stands here so that a mistake is found before TensorFlow is imported. To allow
another of Keras's, add its class here and its name in schema.py. Only arguments that params.yaml
gives are passed on; the defaults here but tell that they may be left out.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

# More would not fit into any memory, and Keras would only say so after minutes.
LARGEST = 1_000_000


def expect(what: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """A check whose failure reads "expected <what>"."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("expected", "{what}", {"what": what})
        return value

    return BeforeValidator(check)


def expected(what: str, found: Any, key: str = "") -> PydanticCustomError:
    """An error of the part that is being checked, or of one key of it."""
    return PydanticCustomError("expected", "{what}", {"what": what, "found": found, "key": key})


def is_int(value: Any, low: int, high: int = LARGEST) -> bool:
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e38


def is_size(value: Any) -> bool:
    pair = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(is_int(side, 1) for side in pair)


def one_of(*words: str) -> BeforeValidator:
    return expect("one of " + ", ".join(words), lambda v: isinstance(v, str) and v in words)


Flag = Annotated[bool, expect("true or false", lambda v: type(v) is bool)]
PositiveInt = Annotated[int, expect("a positive integer", lambda v: is_int(v, 1))]
Count = Annotated[int, expect("an integer of 0 or more", lambda v: is_int(v, 0))]
Number = Annotated[float, expect("a number", is_number)]
PositiveNumber = Annotated[
    float, expect("a positive number", lambda v: is_number(v) and float(v) > 0)
]
NonNegative = Annotated[
    float, expect("a number of 0 or more", lambda v: is_number(v) and float(v) >= 0)
]
Fraction = Annotated[
    float,
    expect("a number from 0 up to, not including, 1", lambda v: is_number(v) and 0 <= v < 1),
]
Size = Annotated[int | list[int], expect("a positive integer or a pair of them", is_size)]
Activation = Annotated[
    str, one_of("relu", "softmax", "linear", "elu", "gelu", "silu", "tanh", "sigmoid")
]
Padding = Annotated[str, one_of("valid", "same")]


class Strict(BaseModel):
    """Frozen; a key that is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(Strict):
    """One thing of Keras: its class name and its arguments, given or not."""

    def arguments(self) -> dict[str, Any]:
        """The arguments that params.yaml gives; Keras's own defaults hold for the others."""
        return self.model_dump(exclude_unset=True)


class Conv2D(Entry):
    filters: PositiveInt
    kernel_size: Size
    strides: Size = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    use_bias: Flag = True


class Dense(Entry):
    units: PositiveInt
    activation: Activation = "linear"
    use_bias: Flag = True


class Pooling(Entry):
    pool_size: Size = 2
    strides: Size = 2
    padding: Padding = "valid"


class MaxPooling2D(Pooling):
    pass


class AveragePooling2D(Pooling):
    pass


class GlobalAveragePooling2D(Entry):
    pass


class Flatten(Entry):
    pass


class Dropout(Entry):
    rate: Fraction


class BatchNormalization(Entry):
    momentum: Fraction = 0.99
    epsilon: PositiveNumber = 0.001
    center: Flag = True
    scale: Flag = True


class ReLU(Entry):
    pass


class Optimizer(Entry):
    learning_rate: PositiveNumber


class Adam(Optimizer):
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: PositiveNumber = 1e-7
    amsgrad: Flag = False


class AdamW(Adam):
    weight_decay: Fraction = 0.004


class Nadam(Adam):
    pass


class RMSprop(Optimizer):
    rho: Fraction = 0.9
    momentum: Fraction = 0.0
    epsilon: PositiveNumber = 1e-7


class SGD(Optimizer):
    momentum: Fraction = 0.0
    nesterov: Flag = False


class CategoricalCrossentropy(Entry):
    label_smoothing: Fraction = 0.0
