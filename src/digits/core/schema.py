"""What params.yaml may hold: the whole of it, as types."""

import re
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import field_validator, model_validator

from digits import CLASSES, IMAGE_SIDE, DigitsError
from digits.core import keras_schema
from digits.core.keras_schema import (
    Count,
    Fraction,
    NonNegative,
    Number,
    PositiveInt,
    Strict,
    expect,
    expected,
    is_int,
    one_of,
)

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _is_full_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


Seed = Annotated[int, expect("an integer from 0 to 4294967295", lambda v: is_int(v, 0, 2**32 - 1))]


class Choice(Strict):
    """One class of Keras with its arguments: `Name`, or `Name: {argument: value, ...}`."""

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict) or len(value) != 1:
            example = f"{next(iter(cls.model_fields))}: {{...}}"
            raise expected(f"one {cls.__name__.lower()}, such as {example}", value)
        return {name: {} if arguments is None else arguments for name, arguments in value.items()}

    @property
    def name(self) -> str:
        """The class's name in Keras."""
        return next(iter(self.model_fields_set))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that params.yaml gives; Keras's own defaults hold for the others."""
        return self._chosen.model_dump(exclude_unset=True)

    @property
    def _chosen(self) -> keras_schema.Entry:
        chosen: keras_schema.Entry = getattr(self, self.name)
        return chosen


class Layer(Choice):
    AveragePooling2D: keras_schema.AveragePooling2D | None = None
    BatchNormalization: keras_schema.BatchNormalization | None = None
    Conv2D: keras_schema.Conv2D | None = None
    Dense: keras_schema.Dense | None = None
    Dropout: keras_schema.Dropout | None = None
    Flatten: keras_schema.Flatten | None = None
    GlobalAveragePooling2D: keras_schema.GlobalAveragePooling2D | None = None
    MaxPooling2D: keras_schema.MaxPooling2D | None = None
    ReLU: keras_schema.ReLU | None = None

    @property
    def window(self) -> list[int]:
        """Height and width of the kernel or pool; empty for other layers."""
        return _pair(getattr(self._chosen, "kernel_size", getattr(self._chosen, "pool_size", [])))

    @property
    def strides(self) -> list[int]:
        """Vertical and horizontal step of the window; a pool's is by default its size."""
        by_default: int | list[int] = getattr(self._chosen, "pool_size", 1)
        return _pair(self.arguments.get("strides", by_default))

    @property
    def pads(self) -> bool:
        """Whether the window may reach over the edge of its input."""
        return bool(getattr(self._chosen, "padding", "valid") == "same")


class Optimizer(Choice):
    Adam: keras_schema.Adam | None = None
    AdamW: keras_schema.AdamW | None = None
    Nadam: keras_schema.Nadam | None = None
    RMSprop: keras_schema.RMSprop | None = None
    SGD: keras_schema.SGD | None = None


class Loss(Choice):
    CategoricalCrossentropy: keras_schema.CategoricalCrossentropy | None = None


class Augmentation(Strict):
    """The limits between which training images are distort at random; 0 is not at all.

    Attributes:
        rotation: degrees.
        scale: of height and of width, as a fraction.
        shear: sideways, in pixels per pixel of height.
        shift: down and across, in pixels.
        elastic: displacement of the nodes of an elastic distortion, in pixels.
    """

    rotation: NonNegative = 0.0
    scale: Fraction = 0.0
    shear: NonNegative = 0.0
    shift: NonNegative = 0.0
    elastic: NonNegative = 0.0


class Schedule(Strict):
    """The learning rate by epoch: a linear rise to that of the optimizer, then half a cosine to 0.

    Attributes:
        warmup: epochs of the rise, also a part of one.
    """

    warmup: NonNegative


class Model(Strict):
    """One version: an architecture and how it is trained."""

    layers: list[Layer]
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule | None = None
    augmentation: Augmentation | None = None
    epochs: PositiveInt
    batch_size: PositiveInt

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "Model":
        most = self.epochs - 1
        if self.schedule and self.schedule.warmup > most:
            raise expected(f"at most {most} epochs", self.schedule.warmup, "schedule.warmup")
        return self

    @field_validator("layers")
    @classmethod
    def _turns_images_into_ten_probabilities(cls, layers: list[Layer]) -> list[Layer]:
        side = [IMAGE_SIDE, IMAGE_SIDE]
        for index, layer in enumerate(layers):
            what = f"layers[{index}] {layer.name}"
            window = layer.window
            if layer.name == "Flatten":
                side = []
            elif (window or layer.name == "GlobalAveragePooling2D") and not side:
                raise expected(f"{what} to come before Flatten", layer.name)
            elif layer.name == "GlobalAveragePooling2D":
                side = []
            elif (
                window
                and not layer.pads
                and min(s - w for s, w in zip(side, window, strict=True)) < 0
            ):
                raise expected(f"{what}'s window to fit its {side[0]}×{side[1]} input", window)
            elif window:
                lost = [0, 0] if layer.pads else [w - 1 for w in window]
                side = [-(-(s - x) // t) for s, x, t in zip(side, lost, layer.strides, strict=True)]
        last = layers[-1].Dense if layers else None
        if last is None or (last.units, last.activation) != (CLASSES, "softmax"):
            found = {layers[-1].name: layers[-1].arguments} if layers else []
            raise expected(f"last layer Dense: {{units: {CLASSES}, activation: softmax}}", found)
        if side:
            raise expected("Flatten or GlobalAveragePooling2D before the last layer", "none")
        return layers


class Transform(Strict):
    """A way to look at an image: turned by degrees, moved by pixels."""

    rotation: Number = 0.0
    down: Number = 0.0
    across: Number = 0.0


class Ensemble(Strict):
    """A version and the same version trained with other seeds, whose probabilities are averaged.

    Attributes:
        version: one of `models`, which is itself the first member.
        seeds: of the other members.
    """

    version: str
    seeds: Annotated[list[Seed], expect("one to four different seeds", lambda v: _are_few(v))]


class Data(Strict):
    """Where MNIST comes from, how it is recognised, and how many images validate.

    Attributes:
        dataset: other images, which nothing verifies; else MNIST is fetched.
        classes: names of the ten classes, for figures.
    """

    validation: Count
    dataset: Annotated[
        str | None,
        expect(
            "null, an .npz file or a folder, an https:// address or npm:name@version of IDX files",
            lambda v: v is None or (isinstance(v, str) and _may_be_source(v)),
        ),
    ] = None
    classes: Annotated[
        list[str] | None, expect("null or ten names", lambda v: v is None or _are_ten_names(v))
    ] = None
    mirrors: list[Annotated[str, expect("a folder, an https:// address or npm:name@version", bool)]]
    sha256: dict[str, Annotated[str, expect("64 hexadecimal digits", lambda v: _is_sha256(v))]]

    @property
    def origins(self) -> list[str]:
        """Where the images may be from."""
        return [self.dataset] if self.dataset else self.mirrors

    @property
    def name(self) -> str:
        """Of the images."""
        return PurePath(self.dataset).stem if self.dataset else "mnist"

    @field_validator("sha256")
    @classmethod
    def _names_the_four_files(cls, sha256: dict[str, str]) -> dict[str, str]:
        if set(sha256) != set(IDX_FILES):
            raise expected(f"the keys {', '.join(IDX_FILES)}", list(sha256))
        return sha256


class Registry(Strict):
    """The registered model, and what its champion must be better in, by how much at least."""

    name: Annotated[str, expect('letters, digits, "-" and "_"', lambda v: _is_plain_name(v))]
    metric: Annotated[str, one_of("test_accuracy", "test_loss", "test_errors")]
    minimum_improvement: NonNegative


class Params(Strict):
    """All of params.yaml."""

    seed: Seed
    versions: list[str]
    ensemble: Ensemble
    tta: dict[str, Annotated[list[Transform], expect("one or more tta", _is_full_list)]]
    registry: Registry
    data: Data
    models: dict[str, Model]

    @field_validator("models")
    @classmethod
    def _names_are_file_names(cls, models: dict[str, Model]) -> dict[str, Model]:
        if not models:
            raise expected("at least one version", models)
        for name in models:
            if len(name) > 40 or not name.replace("-", "").isalnum() or not name.isascii():
                raise expected('names of letters, digits and "-"', name)
        return models

    @model_validator(mode="after")
    def _versions_are_models(self) -> "Params":
        if not self.versions:
            raise expected("one or more of those under `models`", [], "versions")
        for index, version in enumerate(self.versions):
            if version not in self.models or version in self.versions[:index]:
                raise expected(
                    "names that stand under `models`, each once", version, f"versions[{index}]"
                )
        if self.ensemble.version not in self.models:
            raise expected("a name under `models`", self.ensemble.version, "ensemble.version")
        for version in self.tta:
            if version not in self.models:
                raise expected("names that stand under `models`", version, "tta")
        return self

    def model(self, version: str) -> Model:
        """The parameters of one version.

        Raises:
            DigitsError: there is no such version; names those there are.
        """
        if version not in self.models:
            known = ", ".join(self.models)
            raise DigitsError(f"version {version!r}: expected one of {known} (params.yaml: models)")
        return self.models[version]


def _pair(size: int | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else size


def _are_few(seeds: Any) -> bool:
    return isinstance(seeds, list) and 1 <= len(seeds) == len(set(map(str, seeds))) <= 4


def _may_be_source(text: str) -> bool:
    return text != "" and not (text.endswith(".npz") and "://" in text)


def _are_ten_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == CLASSES
        and all(isinstance(name, str) and 0 < len(name) <= 20 for name in value)
    )


def _is_plain_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value))


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
