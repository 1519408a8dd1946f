"""Read and check params.yaml and the files of studies, before anything slow is imported."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from digits import DigitsError
from digits.core import files
from digits.core.schema import Params

Kind = TypeVar("Kind", bound=BaseModel)
MAX_VALUES = 100_000  # A few lines of aliases of aliases may stand for billions.


def load(path: Path, changes: Mapping[tuple[str, ...], str] | None = None) -> Params:
    """Read and check a parameter file.

    Args:
        path: a YAML 1.2 file.
        changes: values, as YAML text, to put in place of the file's own, by the keys that lead to
            each; `*` stands for the first key, such as the name of the optimizer.

    Raises:
        DigitsError: no such file, not YAML, or not valid; names the key, what it should hold and
            what it holds.
    """
    return check(read(path, changes), Params, str(path))


def read(path: Path, changes: Mapping[tuple[str, ...], str] | None = None) -> Any:
    """Return what a YAML file holds, unchecked; arguments and errors as in `load`."""
    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.load(files.regular(path).read_text(encoding="utf-8"))
        for keys, text in (changes or {}).items():
            replace(raw, keys, yaml.load(text))
        if _count(raw, {}) > MAX_VALUES:
            raise DigitsError(
                f"{path}: expected at most {MAX_VALUES:,} values, with each alias in full"
            )
        return raw
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise DigitsError(f"{path}{where}: not valid YAML: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise DigitsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error


def _count(node: Any, counts: dict[int, int]) -> int:
    """Return the number of values in what YAML holds, in which each alias counts in full.

    Args:
        counts: of the lists and mappings that were counted already, by id.
    """
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in counts:
        counts[id(node)] = 1  # for an alias to itself
        children = [*node, *node.values()] if isinstance(node, dict) else node
        counts[id(node)] = 1 + sum(_count(child, counts) for child in children)
    return counts[id(node)]


def check(raw: Any, kind: type[Kind], source: str) -> Kind:
    """Return what a file holds as an instance of a type.

    Raises:
        DigitsError: it does not fit; names the key, what it should hold and what it holds.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A misspelt key is both unknown and missing: the former says more.
        first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        raise DigitsError(f"{source}: {_explain(first, kind)}{more}") from None


def replace(raw: Any, keys: Sequence[str], value: Any) -> None:
    """Set raw[key][key]… in place; a key into a list is its index.

    Where the path does not exist, nothing is changed, and the check that follows reports why.
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
    """Return `models.v2.layers[0].Conv2D.filters: expected a positive integer, got "many"`."""
    keys, context = [*error["loc"]], error.get("ctx", {})
    keys += [context[name] for name in ("key", "tag") if context.get(name)]
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys)
    where = where.replace(".[", "[").lstrip(".")
    value = shown(context.get("value", error["input"]))
    match error["type"]:
        case "expected":
            text = f"expected {error['msg']}, got {value}"
        case "missing":
            text = "missing; it has no default"
        case "extra_forbidden":
            text = _unknown(str(keys[-1]), _allowed_keys(root, keys[:-1]))
        case "union_tag_invalid":
            text = _unknown(str(keys[-1]), context["expected_tags"].replace("'", "").split(", "))
        case "dict_type" | "model_type" | "model_attributes_type":
            text = f"expected a mapping of keys to values, got {value}"
        case "list_type":
            text = f"expected a list, got {value}"
        case _:
            text = f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {value}"
    return f"{where}: {text}" if where else text


def shown(value: Any) -> str:
    """Return a value as JSON, cut to 60 characters."""
    try:
        shown = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):  # an alias to itself, a key that is no text
        shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _unknown(name: str, allowed: list[str]) -> str:
    close = get_close_matches(name, allowed, 1)
    hint = f' (did you mean "{close[0]}"?)' if close else ""
    return f"unknown; expected one of {', '.join(allowed)}{hint}"


def _allowed_keys(root: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand in the block at a place of a file."""
    kind: Any = root
    for key in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(key)].annotation
        elif get_origin(kind) in (Union, UnionType):  # of the classes of Keras
            kind = next(k for k in map(_bare, get_args(kind)) if k.__name__ == key)
        else:  # list[X] or dict[str, X]
            kind = get_args(kind)[-1]
        kind = _bare(kind)
    return list(kind.model_fields)


def _bare(kind: Any) -> Any:
    """Return a type without its annotations and without None."""
    if get_origin(kind) is Annotated or type(None) in get_args(kind):
        return _bare(get_args(kind)[0])
    return kind
