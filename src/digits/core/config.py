"""params.yaml and the files of studies, read and checked before anything slow is imported."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from digits import DigitsError
from digits.core.schema import Params

Kind = TypeVar("Kind", bound=BaseModel)


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
    return check(read(path, changes), Params, str(path))


def read(path: Path, changes: Mapping[tuple[str, ...], str] | None = None) -> Any:
    """What a YAML file holds, unchecked; arguments and errors as in `load`."""
    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"))
        for keys, text in (changes or {}).items():
            replace(raw, keys, yaml.load(text))
        return raw
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise DigitsError(f"{path}{where}: not valid YAML: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise DigitsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error


def check(raw: Any, kind: type[Kind], source: str) -> Kind:
    """What a file holds, as a type.

    Raises:
        DigitsError: it is not of that type; names the key, what it should hold and what it holds.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is both unknown and missing: the former says more.
        first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        raise DigitsError(f"{source}: {_explain(first, kind)}{more}") from None


def replace(raw: Any, keys: Sequence[str], value: Any) -> None:
    """Set raw[key][key]...; where the way there is not as it should be, leave that to the check.

    A key into a list is its index.
    """
    for key in keys[:-1]:
        if isinstance(raw, list) and key.isdigit() and int(key) < len(raw):
            raw = raw[int(key)]
        elif isinstance(raw, dict):
            raw = raw.get(next(iter(raw), None) if key == "*" else key)
        else:
            return
    if isinstance(raw, dict):
        raw[keys[-1]] = value


def _explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    """`models.v2.layers[0].Conv2D.filters: expected a positive integer, got "many"`."""
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in error["loc"]).lstrip(".")
    context = error.get("ctx", {})
    where = ".".join(part for part in (where, context.get("key")) if part)
    value = context.get("found", error["input"])
    try:
        found = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):  # an alias to itself, a key that is no text
        found = repr(value)
    found = found if len(found) <= 60 else found[:57] + "..."
    match error["type"]:
        case "expected":
            text = f"expected {error['msg']}, got {found}"
        case "missing":
            text = "missing; it has no default"
        case "extra_forbidden":
            known = _known_keys(root, error["loc"][:-1])
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


def _known_keys(root: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a place of a file."""
    kind: Any = root
    for key in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(key)].annotation
        else:  # list[X] or dict[str, X]
            kind = get_args(kind)[-1]
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        if type(None) in get_args(kind):  # X | None
            kind = get_args(kind)[0]
    return list(kind.model_fields)
