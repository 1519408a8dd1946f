"""The command: quick where nothing is computed, one line where something is wrong."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest
from conftest import ROOT, digits, environment

from digits.cli import main
from digits.cli.study import study

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    **main.commands,
    **{f"study {name}": command for name, command in study.commands.items()},
}
# Makes every import of TensorFlow, Keras, MLflow or Ray fail.
WITHOUT = "import sys; sys.modules.update(tensorflow=None, keras=None, mlflow=None, ray=None); "


def without_tensorflow(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + "from digits.cli import main; main()", *arguments],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    found = COMMANDS[command]
    assert f"`digits {command}`" in README or f"`digits {command} " in README
    assert found.help
    for option in found.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None)


@pytest.mark.parametrize("command", [[], *(name.split() for name in COMMANDS)])
def test_help_waits_for_no_library(command: list[str]) -> None:
    done = without_tensorflow(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


DATA = ["--data", "none.npz", "--reference", str(ROOT / "metrics" / "report-2018.json")]
TRAIN = ["--model", "m.keras", "--history", "h.csv", "--timing", "t.json", "--machine", "m.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "v9", *DATA, *TRAIN], "version 'v9': expected one of v1, v2, v3"),
        (["train", "v1", *DATA, *TRAIN], "none.npz: no such file; `dvc repro fetch` makes it"),
        (["run", "--version", "7", *DATA], "version 'v7': expected one of v1, v2, v3"),
        (
            ["run", "--version", "2", "--epochs", "0", *DATA],
            "models.v2.epochs: expected a positive",
        ),
        (
            ["run", "--version", "2", "--epochs", "x", *DATA],
            "models.v2.epochs: expected a positive",
        ),
        (["run", "--version", "v2", "--seed", "-1", *DATA], "seed: expected an integer from 0"),
        (
            ["run", "--version", "2", "--learning-rate", "0", *DATA],
            "Adam.learning_rate: expected a",
        ),
        (["run", "--version", "2", "--batch-size", "[", *DATA], "not valid YAML"),
        (["evaluate", "--data", "none.npz", "--models", "nowhere"], "nowhere: no model there"),
    ],
)
def test_a_mistake_is_one_line_and_waits_for_no_library(arguments: list[str], message: str) -> None:
    done = without_tensorflow(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (ROOT / "m.keras").exists()


def test_a_model_of_no_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "v8.keras").write_bytes(b"")
    done = without_tensorflow("evaluate", "--data", "none.npz", "--models", str(tmp_path))
    assert (
        "v8.keras: params.yaml has no version 'v8': move the file away, or restore" in done.stderr
    )


def test_a_training_that_diverges_names_version_epoch_and_rate(
    tmp_path: Path, idx_folder: Path, checksums: dict[str, str]
) -> None:
    from conftest import make_project

    project = make_project(tmp_path / "project", idx_folder, checksums)
    done = digits(
        project,
        *("run", "--version", "1", "--learning-rate", "1e38", "--data", "data/mnist.npz"),
        *("--reference", "metrics/report-2018.json"),
    )
    assert done.returncode == 1
    assert "digits: v1: the loss is" in done.stderr
    assert "lower the learning rate, now 1e+38" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "data" / "mnist.npz").exists(), "fetched for this run alone"
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("v1", "FAILED")]
