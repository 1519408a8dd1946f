"""params.yaml, read and checked once, before anything slow is imported."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from digits import CLASSES, IMAGE_SIDE, DigitsError, catalog
from digits.catalog import Count, PositiveInt, Strict, expect, is_int

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Choice(Strict):
    """One class of Keras with its arguments: `Name`, or `Name: {argument: value, ...}`."""

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict) or len(value) != 1:
            example = f"{next(iter(cls.model_fields))}: {{...}}"
            raise _expected(f"one {cls.__name__.lower()}, such as {example}", value)
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
    def _chosen(self) -> catalog.Entry:
        chosen: catalog.Entry = getattr(self, self.name)
        return chosen


class Layer(Choice):
    AveragePooling2D: catalog.AveragePooling2D | None = None
    BatchNormalization: catalog.BatchNormalization | None = None
    Conv2D: catalog.Conv2D | None = None
    Dense: catalog.Dense | None = None
    Dropout: catalog.Dropout | None = None
    Flatten: catalog.Flatten | None = None
    GlobalAveragePooling2D: catalog.GlobalAveragePooling2D | None = None
    MaxPooling2D: catalog.MaxPooling2D | None = None
    ReLU: catalog.ReLU | None = None

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
    Adam: catalog.Adam | None = None
    AdamW: catalog.AdamW | None = None
    Nadam: catalog.Nadam | None = None
    RMSprop: catalog.RMSprop | None = None
    SGD: catalog.SGD | None = None


class Loss(Choice):
    CategoricalCrossentropy: catalog.CategoricalCrossentropy | None = None


class Model(Strict):
    """One version: an architecture and how it is trained."""

    layers: list[Layer]
    loss: Loss
    optimizer: Optimizer
    epochs: PositiveInt
    batch_size: PositiveInt

    @field_validator("layers")
    @classmethod
    def _turns_images_into_ten_probabilities(cls, layers: list[Layer]) -> list[Layer]:
        side = [IMAGE_SIDE, IMAGE_SIDE]
        for index, layer in enumerate(layers):
            what = f"layers[{index}] {layer.name}"
            window = layer.window
            if layer.name in ("Flatten", "GlobalAveragePooling2D"):
                side = []
            elif window and not side:
                raise _expected(f"{what} to come before Flatten", layer.name)
            elif (
                window
                and not layer.pads
                and min(s - w for s, w in zip(side, window, strict=True)) < 0
            ):
                raise _expected(f"{what}'s window to fit its {side[0]}×{side[1]} input", window)
            elif window:
                lost = [0, 0] if layer.pads else [w - 1 for w in window]
                side = [-(-(s - x) // t) for s, x, t in zip(side, lost, layer.strides, strict=True)]
        last = layers[-1].Dense if layers else None
        if last is None or (last.units, last.activation) != (CLASSES, "softmax"):
            found = {layers[-1].name: layers[-1].arguments} if layers else []
            raise _expected(f"last layer Dense: {{units: {CLASSES}, activation: softmax}}", found)
        if side:
            raise _expected("Flatten or GlobalAveragePooling2D before the last layer", "none")
        return layers


class Data(Strict):
    """Where MNIST comes from, how it is recognised, and how many images validate."""

    validation: Count
    sources: list[Annotated[str, expect("a folder, an https:// address or npm:name@version", bool)]]
    sha256: dict[str, Annotated[str, expect("64 hexadecimal digits", lambda v: _is_sha256(v))]]

    @field_validator("sha256")
    @classmethod
    def _names_the_four_files(cls, sha256: dict[str, str]) -> dict[str, str]:
        if set(sha256) != set(IDX_FILES):
            raise _expected(f"the keys {', '.join(IDX_FILES)}", list(sha256))
        return sha256


class Params(Strict):
    """All of params.yaml."""

    seed: Annotated[
        int, expect("an integer from 0 to 4294967295", lambda v: is_int(v, 0, 2**32 - 1))
    ]
    data: Data
    models: dict[str, Model]

    @field_validator("models")
    @classmethod
    def _names_are_file_names(cls, models: dict[str, Model]) -> dict[str, Model]:
        for name in models:
            if not name.replace("-", "").isalnum() or not name.isascii():
                raise _expected('names of letters, digits and "-"', name)
        return models

    def model(self, version: str) -> Model:
        """The parameters of one version.

        Raises:
            DigitsError: there is no such version; names those there are.
        """
        if version not in self.models:
            known = ", ".join(self.models)
            raise DigitsError(f"version {version!r}: expected one of {known} (params.yaml: models)")
        return self.models[version]


def load(path: Path, changes: Mapping[tuple[str, ...], str] | None = None) -> Params:
    """Read and check a parameter file.

    Args:
        path: a YAML 1.2 file.
        changes: values, as YAML text, to put in place of the file's own, by the keys that lead to
            each; `*` stands for the only key there is.

    Raises:
        DigitsError: no such file, not YAML, or not valid; names the key, what it should hold and
            what it holds.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"))
        for keys, text in (changes or {}).items():
            _replace(raw, keys, yaml.load(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise DigitsError(f"{path}{where}: not valid YAML: {error.problem}") from error
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DigitsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is both unknown and missing: the former says more.
        first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        raise DigitsError(f"{path}: {_explain(first)}{more}") from None


def _replace(raw: Any, keys: tuple[str, ...], value: Any) -> None:
    """Set raw[key][key]...; where the way there is not as it should be, leave that to the check."""
    for key in keys[:-1]:
        if not isinstance(raw, dict):
            return
        raw = raw.get(next(iter(raw), None) if key == "*" else key)
    if isinstance(raw, dict):
        raw[keys[-1]] = value


def _expected(what: str, found: Any) -> PydanticCustomError:
    return PydanticCustomError("expected", "{what}", {"what": what, "found": found})


def _explain(error: ErrorDetails) -> str:
    """`models.v2.layers[0].Conv2D.filters: expected a positive integer, got "many"`."""
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in error["loc"]).lstrip(".")
    value = error.get("ctx", {}).get("found", error["input"])
    found = json.dumps(value, default=str, ensure_ascii=False)
    found = found if len(found) <= 60 else found[:57] + "..."
    match error["type"]:
        case "expected":
            text = f"expected {error['msg']}, got {found}"
        case "missing":
            text = "missing; it has no default"
        case "extra_forbidden":
            known = _known_keys(error["loc"][:-1])
            close = get_close_matches(str(error["loc"][-1]), known, 1)
            meant = f' (did you mean "{close[0]}"?)' if close else ""
            text = f"unknown; expected one of {', '.join(known)}{meant}"
        case "dict_type" | "model_type" | "model_attributes_type":
            text = f"expected a mapping of keys to values, got {found}"
        case "list_type":
            text = f"expected a list, got {found}"
        case _:
            text = f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {found}"
    return f"{where}: {text}" if where else text


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a place of params.yaml."""
    kind: Any = Params
    for key in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(key)].annotation
        else:  # list[X] or dict[str, X]
            kind = get_args(kind)[-1]
        if type(None) in get_args(kind):  # X | None
            kind = get_args(kind)[0]
    return list(kind.model_fields)


def _pair(size: int | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else size


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
