"""The command: quick where nothing is computed, one line where something is wrong."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from commands import invoke
from conftest import ROOT, TINY_PARAMS, copy_database, environment, write_mirrors

from digits.cli import main
from digits.cli.study import study

PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
COMMANDS = {
    **main.commands,
    **{f"study {name}": command for name, command in study.commands.items()},
}
REFERENCE = str(ROOT / "metrics" / "report-2018.json")
DATA = ["--data", "none.npz", "--reference", REFERENCE]
TRAIN = ["--model", "m.keras", "--history", "h.csv", "--timing", "t.json", "--machine", "m.json"]
RUN2 = ["run", "--version", "2", *DATA]
MISTAKES = {
    "version 'v9': expected one of v1, v2, v3": ["train", "v9", *DATA, *TRAIN],
    "none.npz: no such file; `dvc repro fetch` makes it": ["train", "v1", *DATA, *TRAIN],
    "version 'v7': expected one of v1, v2, v3": ["run", "--version", "7", *DATA],
    "models.v2.epochs: expected a positive integer, got 0": [*RUN2, "--epochs", "0"],
    'models.v2.epochs: expected a positive integer, got "x"': [*RUN2, "--epochs", "x"],
    "seed: expected an integer from 0": [*RUN2, "--seed", "-1"],
    "Adam.learning_rate: expected a positive number": [*RUN2, "--learning-rate", "0"],
    "not valid YAML": [*RUN2, "--batch-size", "["],
    "nowhere: no model there": ["evaluate", "--data", "none.npz", "--models", "nowhere"],
    "v8.keras: params.yaml has no version 'v8': move the file away, or restore": [
        *("evaluate", "--data", "none.npz", "--models", "models"),
    ],
}
# Runs commands in one process in which every import of a slow library fails.
WITHOUT_LIBRARIES = """
import json, sys
sys.modules.update(dict.fromkeys(["tensorflow", "keras", "mlflow", "ray", "matplotlib"]))
from click.testing import CliRunner
from digits.cli import main
done = [CliRunner().invoke(main, arguments) for arguments in json.load(sys.stdin)]
print(json.dumps([(r.exit_code, r.stdout, r.stderr) for r in done]))
"""


def without_libraries(folder: Path, *commands: list[str]) -> list[Any]:
    """Exit status, standard output and standard error of each command."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES],
        input=json.dumps(commands),
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        check=True,
    )
    results: list[Any] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert f"`digits {name}`" in pages or f"`digits {name} " in pages
    command = COMMANDS[name]
    assert command.help
    for option in command.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None)


def test_help_waits_for_no_library() -> None:
    commands = [[], *(name.split() for name in COMMANDS)]
    for status, out, _ in without_libraries(ROOT, *([*c, "--help"] for c in commands)):
        assert status == 0
        assert "Usage:" in out


def test_a_missing_option_is_named() -> None:
    commands = [
        [*name.split(), *("x" for part in command.params if isinstance(part, click.Argument))]
        for name, command in COMMANDS.items()
        if any(isinstance(part, click.Option) and part.required for part in command.params)
    ]
    assert len(commands) > 4
    for status, _, error in without_libraries(ROOT, *commands):
        assert status == 2
        assert "Missing option" in error


def test_a_mistake_is_one_line_and_waits_for_no_library(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v8.keras").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    results = without_libraries(tmp_path, *MISTAKES.values())
    for message, (status, _, error) in zip(MISTAKES, results, strict=True):
        assert status == 1, error
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


@pytest.mark.usefixtures("disconnect")
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_training_that_diverges_names_version_epoch_and_rate(
    tmp_path: Path, idx_folder: Path, checksums: dict[str, str], new_database: Path
) -> None:
    write_mirrors(tmp_path, str(idx_folder), checksums)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    copy_database(new_database, tmp_path)
    done = invoke(
        tmp_path,
        *("run", "--version", "1", "--learning-rate", "1e38", "--data", "data/mnist.npz"),
        *("--reference", REFERENCE),
    )
    assert done.exit_code == 1
    assert "digits: v1: the loss is" in done.stderr
    assert "lower the learning rate, now 1e+38" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/mnist.npz").exists(), "fetched for this run alone"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("v1", "FAILED")]


@pytest.mark.parametrize("command", [["--help"], ["new", "--help"], ["new", "made"]])
def test_output_that_a_full_device_does_not_take_is_one_line(
    command: list[str], tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "digits", *command],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT / "src")),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "digits: No space left on device\n"


@pytest.mark.usefixtures("disconnect")
def test_a_command_finds_the_project_above_and_one_that_reads_creates_nothing(
    tmp_path: Path, new_database: Path
) -> None:
    (tmp_path / "MLproject").write_text("name: some\n")
    below = tmp_path / "docs"
    below.mkdir()
    (tmp_path / "v1.keras").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = invoke(below, "runs", "..")
    assert done.output == "../v1.keras: its record is gone\n"
    refusal = f"digits: {tmp_path}: no run is recorded here\n"
    assert invoke(below, "reproduce", "v1").stderr == refusal
    assert sorted(tmp_path.rglob("*")) == before
    copy_database(new_database, tmp_path)
    assert invoke(below, "runs", "../v1.keras").output == "../v1.keras: its record is gone\n"
    assert not (below / "mlflow.db").exists()
