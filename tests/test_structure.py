"""The structure: imports go downwards, and each stage depends on all the code that shapes it."""

import ast
import inspect
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from importlinter import cli as import_linter

from digits.cli import main
from digits.tracking import logged_model
from digits.tracking.machine import libraries

SRC = ROOT / "src"
# They parse arguments, write what they were returned, and record it: they shape no output.
GLUE = ("digits.cli", "digits.tracking")


def test_the_layers_are_those_of_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    """See pyproject.toml: [tool.importlinter]."""
    monkeypatch.chdir(ROOT)
    assert import_linter.lint_imports(no_cache=True) == import_linter.EXIT_STATUS_SUCCESS


def modules_of(tree: ast.AST) -> Iterator[str]:
    """The modules of this project that a piece of code imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("digits"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def path_of(module: str) -> Path | None:
    base = SRC / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


def import_closure(tree: ast.AST) -> set[str]:
    """The paths, from the project's folder, of all modules that a piece of code leads to."""
    paths: set[str] = set()
    visited: set[str] = set()
    pending = [*modules_of(tree)]
    while pending:
        module = pending.pop()
        path = path_of(module)
        name = str(path.relative_to(ROOT)) if path else ""
        if path is None or module.startswith(GLUE) or name in visited:
            continue
        visited.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if len(tree.body) > 1:  # An __init__.py with a docstring alone shapes nothing.
            paths.add(name)
        pending += modules_of(tree)
    return paths


def command_closure(name: str) -> set[str]:
    """The closure of a command: of its function, and of those beside it that it calls."""
    callback = main.commands[name].callback
    assert callback
    file = Path(inspect.getfile(inspect.unwrap(callback)))
    functions = {
        node.name: node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    reached, pending = set(), [callback.__name__]
    while pending:
        function = pending.pop()
        if function in functions and function not in reached:
            reached.add(function)
            calls = (node for node in ast.walk(functions[function]) if isinstance(node, ast.Call))
            pending += [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return {path for function in reached for path in import_closure(functions[function])}


PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = {name: stage.get("do", stage) for name, stage in PIPELINE["stages"].items()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_the_code_that_shapes_its_outputs(stage: str) -> None:
    """A folder counts as all in it. What `train` draws goes to MLflow, not to its outputs."""
    command = shlex.split(STAGES[stage]["cmd"].removeprefix("${digits} "))[0]
    dependencies = [Path(path) for path in STAGES[stage]["deps"]]
    recorded = "src/digits/reports/" if command in ("train", "evaluate") else "none"
    forgotten = {
        path
        for path in command_closure(command)
        if not path.startswith(recorded)
        and not any(Path(path).is_relative_to(folder) for folder in dependencies)
    }
    assert not forgotten


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_stage_that_computes_depends_on_the_pinned_libraries(stage: str) -> None:
    assert "requirements/main.txt" in STAGES[stage]["deps"]


def test_the_closure_reaches_what_is_imported_indirectly_and_late() -> None:
    closure = command_closure("train")
    assert "src/digits/core/train_step.py" in closure, "by training.py"
    assert "src/digits/core/augmentation.py" in closure, "by evaluation.py, within a function"
    assert "src/digits/ingest/fetch.py" not in closure
    assert "src/digits/ingest/fetch.py" in command_closure("fetch")


def distribution_names(requirements: Iterable[str]) -> set[str]:
    """The names in lines such as `numpy>=2`, as the index of packages writes them."""
    names = (re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def test_a_logged_model_requires_all_libraries_that_its_code_imports() -> None:
    names = [*logged_model.REQUIREMENTS, *logged_model.KERAS_REQUIREMENTS]
    direct = [line for name in libraries(names) for line in metadata.requires(name) or ()]
    provided = distribution_names([*names, *direct])
    patterns = [*logged_model.SOURCES, *logged_model.KERAS_SOURCES]
    imported = {
        module.split(".")[0]
        for pattern in patterns
        for path in (SRC / "digits").glob(pattern)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    }
    by_module = metadata.packages_distributions()
    others = imported - sys.stdlib_module_names - {"digits"}
    assert [name for name in others if not distribution_names(by_module[name]) & provided] == []
