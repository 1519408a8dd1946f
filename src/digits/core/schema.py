"""The contents of params.yaml as types; what it may hold, and its checks."""

import re
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from digits import DigitsError
from digits.core.keras_schema import (
    AnyCallback,
    AnyLoss,
    AnyOptimizer,
    Count,
    Fraction,
    NonNegative,
    Number,
    PositiveInt,
    Strict,
    expect,
    expected,
    is_int,
    is_number,
    one_of,
)
from digits.core.layer_schema import CLASSES, AnyLayer, Dense, Layer, Shape, stack_shape

MNIST_SHAPE, MNIST_CLASSES = (28, 28, 1), 10

Share = Annotated[float, expect("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)]
# `auto` is bfloat16 where the processor multiplies it faster.
Precision = Annotated[str, one_of("float32", "bfloat16", "auto")]
Seed = Annotated[int, expect("an integer from 0 to 4294967295", lambda v: is_int(v, 0, 2**32 - 1))]


class Augmentation(Strict):
    """The limits between which training images are distorted at random; 0 turns a kind off.

    Attributes:
        rotation: degrees.
        scale: of height and of width, as a fraction.
        shear: sideways, in pixels per pixel of height.
        shift: down and across, in pixels.
        elastic: displacement of the nodes of an elastic distortion, in pixels.
        fade: the share of the epochs after which the limits shrink, steadily, towards a fifth at
            the end; 1 leaves them as they are.
        clean_epochs: the last epochs, without any distortion.
    """

    rotation: NonNegative = 0.0
    scale: Fraction = 0.0
    shear: NonNegative = 0.0
    shift: NonNegative = 0.0
    elastic: NonNegative = 0.0
    fade: Share = 1.0
    clean_epochs: Count = 0


class Transform(Strict):
    """A fixed distortion for test-time augmentation: a rotation in degrees, a shift in pixels.

    The grid moves on which the image is read: `down: 1` reads each pixel one row below, so that the
    image itself moves up.
    """

    rotation: Number = 0.0
    down: Number = 0.0
    across: Number = 0.0


TTA = Annotated[
    list[Transform],
    expect("one or more transforms", lambda v: isinstance(v, list) and len(v) > 0),
]


class Schedule(Strict):
    """The learning rate over time: a linear rise to the optimizer's, then half a cosine to 0.

    Attributes:
        warmup: duration of the rise in epochs, fractions allowed.
    """

    warmup: NonNegative


class Model(Strict):
    """One version: an architecture and how it is trained."""

    layers: list[AnyLayer]
    loss: AnyLoss
    optimizer: AnyOptimizer
    schedule: Schedule | None = None
    augmentation: Augmentation | None = None
    callbacks: list[AnyCallback] = Field([])
    epochs: PositiveInt
    batch_size: PositiveInt
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _fits_its_epochs(self) -> "Model":
        most, clean = self.epochs - 1, self.augmentation.clean_epochs if self.augmentation else 0
        if clean > most:
            raise expected(f"at most {most} epochs", clean, "augmentation.clean_epochs")
        if self.schedule and self.schedule.warmup > most:
            raise expected(f"at most {most} epochs", self.schedule.warmup, "schedule.warmup")
        if self.schedule and any(
            callback.name == "ReduceLROnPlateau" for callback in self.callbacks
        ):
            raise expected("no schedule beside ReduceLROnPlateau", "both", "schedule")
        return self

    @field_validator("layers")
    @classmethod
    def _end_in_probabilities(cls, layers: list[Layer]) -> list[Layer]:
        last = layers[-1] if layers else None
        if not isinstance(last, Dense) or last.activation != "softmax":
            value = {last.name: last.arguments} if last else []
            raise expected("last layer Dense: {units: classes, activation: softmax}", value)
        return layers

    def for_images(self, shape: Shape, classes: int) -> "Model":
        """Return the model with as many units in its last layer as there are classes.

        Args:
            shape: (height, width, channels).

        Raises:
            PydanticCustomError: the layers do not fit the images; names the first that does not.
        """
        *layers, last = self.layers
        units = last.arguments["units"]
        if units not in (CLASSES, classes):
            key = f"[{len(layers)}].Dense.units"
            raise expected(f"{CLASSES}, or the number of classes, {classes}", units, key)
        layers.append(last.model_copy(update={"units": classes}))
        output = stack_shape(layers, shape)
        if output and len(output) > 1:
            raise expected(
                "Flatten, GlobalAveragePooling2D or GlobalMaxPooling2D before the last layer",
                "none",
            )
        return self.model_copy(update={"layers": layers})


class Data(Strict):
    """Where the images come from, and how many of them validate.

    Attributes:
        validation: training images held out.
        dataset: the path of a .yaml file with mirrors, of an .npz file or of a folder; relative to
            the project's folder.
        classes: names of the classes in the order of their labels, for figures.
    """

    validation: Count
    dataset: Annotated[
        str,
        expect(
            "data/mnist.yaml or another file of mirrors, an .npz file, or a folder of images or "
            'of IDX files; "~" is not expanded',
            lambda v: isinstance(v, str) and v != "" and not v.startswith("~") and "://" not in v,
        ),
    ]
    classes: Annotated[
        list[str] | None,
        expect("null, or two names or more", lambda v: v is None or _are_names(v)),
    ] = None

    @property
    def name(self) -> str:
        """The dataset's name."""
        return PurePath(self.dataset).stem

    @property
    def is_mnist(self) -> bool:
        """Whether the images are those of MNIST."""
        return PurePath(self.dataset).name == "mnist.yaml"


class Registry(Strict):
    """The registered model, and by how much a new champion must be better, in which metric."""

    name: Annotated[
        str,
        expect(
            'letters, digits, "-" and "_"',
            lambda v: isinstance(v, str) and bool(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", v)),
        ),
    ]
    metric: Annotated[str, one_of("test_accuracy", "test_loss", "test_errors")]
    minimum_improvement: NonNegative


class Params(Strict):
    """All of params.yaml."""

    seed: Seed
    versions: list[str]
    tta: dict[str, TTA]
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
        for version in self.tta:
            if version not in self.models:
                raise expected("names that stand under `models`", version, "tta")
        return self

    @model_validator(mode="after")
    def _fit_mnist(self) -> "Params":
        """Check at once what for other images waits until they are there."""
        if not self.data.is_mnist:
            return self
        names = self.data.classes
        if names and len(names) != MNIST_CLASSES:
            raise expected(f"null or {MNIST_CLASSES} names", names, "data.classes")
        for version, model in self.models.items():
            try:
                model.for_images(MNIST_SHAPE, MNIST_CLASSES)
            except PydanticCustomError as error:
                what, value, key = (error.context or {}).values()
                raise expected(what, value, f"models.{version}.layers{key}") from None
        return self

    @model_validator(mode="after")
    def _monitored_metrics_exist(self) -> "Params":
        for version, model in self.models.items():
            for index, callback in enumerate(model.callbacks):
                monitor = getattr(callback, "monitor", "")
                # A checkpoint of every epoch looks at no metric.
                unused = callback.name == "ModelCheckpoint" and not callback.arguments.get(
                    "save_best_only"
                )
                if monitor.startswith("val_") and not self.data.validation and not unused:
                    raise expected(
                        "a metric of the training images, since data.validation is 0",
                        monitor,
                        f"models.{version}.callbacks[{index}].{callback.name}.monitor",
                    )
        return self

    def model(self, version: str) -> Model:
        """Return the parameters of one version.

        Raises:
            DigitsError: there is no such version; names those there are.
        """
        if version not in self.models:
            names = ", ".join(self.models)
            raise DigitsError(f"version {version!r}: expected one of {names} (params.yaml: models)")
        return self.models[version]


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(name, str) and 0 < len(name) <= 20 for name in value)
    )
