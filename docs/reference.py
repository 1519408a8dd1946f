"""Tables of what may be configured and called, made from the schema and from the commands.

A page calls these functions between two marks, and generate.py puts what they print there.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

from digits import DigitsError
from digits.cli import main
from digits.core import config
from digits.core.keras_schema import Callback, KerasClass, Loss, Optimizer, subclasses
from digits.core.layer_schema import Layer
from digits.core.schema import Params
from digits.reports.tables import MISSING, columns, row

BLOCK = "a block"
MEANINGS = config.read(Path(__file__).with_name("meanings.yaml"))
# The classes of Keras by the module that holds them.
GROUPS: dict[str, type[KerasClass]] = {
    "layers": Layer,
    "optimizers": Optimizer,
    "losses": Loss,
    "callbacks": Callback,
}
# Where Keras has another default than the schema declares, or none.
DEFAULTS: dict[str, dict[str, Any]] = {
    "MaxPooling2D": {"strides": "pool_size"},
    "AveragePooling2D": {"pool_size": PydanticUndefined, "strides": "pool_size"},
}


@dataclass(frozen=True)
class Key:
    """A key of params.yaml. In its name VERSION stands for any version, [] for any place."""

    name: str
    value: str
    default: str
    meaning: str


def parameters(*blocks: str) -> None:
    """Print the keys of params.yaml that are, or lie in, these blocks."""
    print(columns("key", "value", "default", "meaning", left=4))
    for key in keys_of():
        if re.split(r"[.[]", key.name)[0] in blocks:
            print(row(f"`{key.name}`", key.value, key.default, key.meaning))


def keys_of(kind: type[BaseModel] = Params, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a block and of the blocks in it, in the order of their declaration.

    Raises:
        DigitsError: neither meanings.yaml nor the docstring of a class says what a key means.
    """
    meanings = dict(re.findall(r"^    (\w+): (.*)\.$", inspect.getdoc(kind) or "", re.M))
    for field_name, field in kind.model_fields.items():
        name = prefix + field_name
        places, block = _block(field.annotation)
        value = _expectation(field.annotation, field.metadata)
        if value != BLOCK:
            meaning = MEANINGS.get(name) or meanings.get(field_name) or _summary(block)
            if not meaning:
                raise DigitsError(f"{name}: no meaning; add it to docs/meanings.yaml")
            yield Key(name, value, _default(field), meaning)
        if block:
            yield from keys_of(block, f"{name}{places}.")


def _block(kind: Any) -> tuple[str, type[BaseModel] | None]:
    """Return the block that a type holds, if any, and the places in between, as in `Key.name`."""
    arguments = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "", None if issubclass(kind, KerasClass) else kind
    if get_origin(kind) in (list, dict):
        places, block = _block(arguments[-1])
        return ("[]" if get_origin(kind) is list else ".VERSION") + places, block
    return _block(arguments[0]) if arguments else ("", None)


def _expectation(kind: Any, checks: Sequence[Any] = ()) -> str:
    """Return what a type takes: as its check would report it, or else by its structure."""
    for check in checks:
        if isinstance(check, BeforeValidator) and (expected := _refusal(check)):
            return expected
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Annotated:
        return _expectation(arguments[0], arguments[1:])
    if origin is list:
        return f"a list, each {_expectation(arguments[0])}"
    if origin is dict:
        value = _expectation(arguments[1])
        return value if value == BLOCK else f"by name: {value}"
    if type(None) in arguments:
        return f"null or {_expectation(arguments[0])}"
    if origin in (Union, UnionType):
        return _expectation(arguments[0])
    if kind is str:
        return "a name"
    for group in GROUPS.values():
        if issubclass(kind, group):
            return f"{'an' if group is Optimizer else 'a'} {group.__name__.lower()}"
    return BLOCK


def _refusal(check: BeforeValidator) -> str | None:
    """Return what a check says that it expects; None if it takes an empty text."""
    try:
        check.func("")  # type: ignore[call-arg]
    except PydanticCustomError as error:
        return error.message()
    return None


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return f"`{as_yaml(field.default)}`"


def as_yaml(value: Any) -> str:
    """Return a value as it stands in params.yaml."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _summary(kind: type[BaseModel] | None) -> str:
    """Return the first sentence of a class in the form of the other meanings."""
    line = (inspect.getdoc(kind) or "").split("\n")[0].rstrip(".") if kind else ""
    return line[:1].lower() + line[1:]


def classes() -> None:
    """Print the classes of Keras with their arguments."""
    print(columns("class", "kind", "arguments", left=3))
    for group in GROUPS.values():
        for kind in declared(group):
            cells = map("`{}`".format, (kind.__name__, *signature(kind)))
            print(row(next(cells), group.__name__.lower(), ", ".join(cells) or MISSING))


def declared(group: type[KerasClass]) -> list[type[KerasClass]]:
    """Return the classes of Keras in a group; the user's own have no signature here."""
    return [kind for kind in subclasses(group) if kind.tag() == kind.__name__]


def signature(kind: type[KerasClass]) -> Iterator[str]:
    """Yield the arguments of a class as `name` or `name = default`."""
    for name, field in kind.model_fields.items():
        default = DEFAULTS.get(kind.__name__, {}).get(name, field.default)
        yield name if default is PydanticUndefined else f"{name} = {as_yaml(default)}"


def arguments() -> None:
    """Print the arguments of all classes of Keras.

    Raises:
        DigitsError: meanings.yaml does not say what an argument means.
    """
    print(columns("argument", "value", "meaning", left=3))
    values = {
        (name, _expectation(field.annotation, field.metadata))
        for group in GROUPS.values()
        for kind in declared(group)
        for name, field in kind.model_fields.items()
    }
    for name, value in sorted(values):
        meaning = MEANINGS["arguments"].get(name)
        if not meaning:
            raise DigitsError(f"{name}: no meaning; add it to docs/meanings.yaml, arguments")
        print(row(f"`{name}`", value, meaning))


def commands() -> None:
    """Print the commands of `digits` with their options."""
    for name, command in _commands(main, "digits"):
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        print(f"## {name}\n\n`{usage}`: {' '.join((command.help or '').split())}\n")
        options = [param for param in command.params if isinstance(param, click.Option)]
        if options:
            print(columns("option", "meaning", "default", left=3))
            for option in options:
                words = "/".join(option.opts + option.secondary_opts)
                value = "" if option.is_flag else f" {option.make_metavar(context)}"
                print(row(f"`{words}{value}`", option.help, _option_default(option)))
            print()


def _commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for child, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} {child}")
        else:
            yield f"{name} {child}", command


def _option_default(option: click.Option) -> str:
    if option.required:
        return "required"
    if option.secondary_opts:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"`{option.default}`" if option.show_default else MISSING
