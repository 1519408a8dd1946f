"""What an open project has: targets that say what they do, and metadata that agree."""

import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from conftest import ROOT, run

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def make(target: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user does, also where `make test` runs these tests."""
    return run(ROOT, "make", "--no-print-directory", target, MAKEFLAGS="")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_make_help_has_one_line_for_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    lines = make("help").stdout.splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(targets.split())
    assert all(re.match(r"make [\w-]+ +\w+ ", line) for line in lines)


@pytest.mark.parametrize("target", ["foo", ".venv/foo.done", "requirements/foo.txt"])
def test_make_of_an_unknown_target_points_to_make_help(target: str) -> None:
    done = make(target)
    (line,) = done.stderr.splitlines()
    assert f'no target or file "{target}"; `make help` lists the targets' in line
    assert (done.returncode, done.stdout) == (2, "")


def test_the_citation_agrees_with_the_package() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_the_changelog_has_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(PROJECT['version'])} - \d{{4}}-\d\d-\d\d$", changelog, re.M)


def test_the_workflow_tests_the_versions_of_python_that_the_package_names() -> None:
    matrix = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: "
    named = [text.removeprefix(prefix) for text in PROJECT["classifiers"] if prefix in text]
    assert matrix["python"] == named


def test_the_hooks_run_what_is_installed() -> None:
    """Others would be downloaded, and be of other versions than those that are pinned."""
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
