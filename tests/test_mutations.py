"""params.yaml, spoiled in two hundred ways: one line that names the key, never a traceback."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from digits import DigitsError
from digits.core import config
from digits.core.schema import Params

TEXT = (ROOT / "params.yaml").read_text()
LINES = TEXT.splitlines()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from([10**400, "9" * 5000, {"a": {"b": {}}}, [[[]]], "2018-13-45", "=", "!!python"]),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in params.yaml."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    return [
        found
        for key, value in inner
        for found in [
            (*path, key),
            *(places(value, (*path, key)) if isinstance(value, dict | list) else []),
        ]
    ]


def parsed() -> Any:
    return YAML(typ="safe", pure=True).load(TEXT)


PLACES = places(parsed())


def spoil(path: tuple[Any, ...], how: str, value: Any) -> Any:
    raw = parsed()
    node = raw
    for key in path[:-1]:
        node = node[key]
    if how == "replace":
        node[path[-1]] = value
    elif how == "remove":
        del node[path[-1]]
    elif isinstance(node, dict):
        node["unheard"] = value
    return raw


def loaded(file: Path) -> Params | str:
    """The parameters, or what is said of the file; anything else raised is a fault."""
    try:
        return config.load(file)
    except DigitsError as error:
        return str(error)


# The same ones each time; with `derandomize` off, others.
many = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
mutated = pytest.mark.faults(
    "params.yaml mutated: types, ranges, keys, huge numbers, broken text",
    "accepted, or refused in one line with the key's path; never a traceback",
)


@mutated
def test_a_spoiled_value_is_named_by_its_keys(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    file, tried = tmp_path / "params.yaml", []

    @many
    @given(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "add"]), VALUES)
    def check(path: tuple[Any, ...], how: str, value: Any) -> None:
        tried.append(path)
        with file.open("w", encoding="utf-8") as opened:
            YAML(typ="safe", pure=True).dump(spoil(path, how, value), opened)
        found = loaded(file)
        if isinstance(found, str):
            assert "\n" not in found
            place = re.match(r".*params\.yaml(?:, line \d+)?: ([\w.\[\]-]+|not valid YAML)", found)
            assert place is not None, found
            known = (str(path[0]), "unheard", "versions", "ensemble", "tta", "not")
            assert place[1].startswith(known), found

    check()
    record_property("times", len(tried))


@mutated
def test_spoiled_text_is_one_line(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    file, tried = tmp_path / "params.yaml", []

    @many
    @given(st.integers(0, len(TEXT)), st.text(max_size=4), st.integers(0, 3))
    def check(at: int, put: str, cut: int) -> None:
        tried.append(at)
        file.write_bytes((TEXT[:at] + put + TEXT[at + cut :]).encode("utf-8", "surrogatepass"))
        found = loaded(file)
        assert isinstance(found, Params) or "\n" not in found

    check()
    record_property("times", len(tried))


@mutated
def test_a_key_twice_is_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    file = tmp_path / "params.yaml"
    keys = [at for at, line in enumerate(LINES) if re.match(r" *\w+: \S", line)]
    for at in keys:
        file.write_text("\n".join([*LINES[: at + 1], LINES[at], *LINES[at + 1 :]]))
        found = loaded(file)
        assert isinstance(found, str)
        assert "not valid YAML" in found
    record_property("times", len(keys))
