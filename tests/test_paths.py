"""Every path that a command takes leads to something else: one line, and never a traceback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import mlflow
import pytest
import yaml
from commands import invoke, train_command
from conftest import ROOT, TINY_MODELS, TINY_PARAMS
from test_cli import COMMANDS

from digits.core import dataset
from digits.core.dataset import Dataset

REFERENCE = ["--reference", "report.json"]
METRICS = ["--scores", "metrics/scores", "--predictions", "data/predictions"]
EVALUATE = ["--data", "data/mnist.npz", "--models", "data/models", *METRICS]
STUDY = ["studies/one.yaml", "--data", "data/mnist.npz", "--out", "metrics/studies/one"]
# The arguments with which each command works.
WORKING = {
    "fetch": ["--out", "fetched.npz"],
    "train": train_command("v1", "report.json")[1:],
    "evaluate": [*EVALUATE, "--confusion", "data/confusion"],
    "plot": [
        *("--data", "data/mnist.npz", *REFERENCE, "--history", "metrics/history", *METRICS),
        *("--figures", "metrics/figures", "--curves", "metrics/curves.csv"),
    ],
    "report": ["--timing", "data/timing", "--machine", "data/machine", "metrics"],
    "run": ["--version", "1", "--data", "data/mnist.npz", *REFERENCE],
    "study run": STUDY,
    "study report": [*STUDY, *REFERENCE],
    "predict": ["one.png", "--models", "data/models", "--scores", "metrics/scores"],
    "register": ["--models", "data/models"],
    "runs": ["data/models"],
    "mlflow-env": ["."],
    "new": ["new"],
    "reproduce": ["v1", "--data", "data/mnist.npz", "--epochs", "1"],
}
OTHERS = ["missing/x", "folder", "text.txt", "/dev/full", "/dev/null/x"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset) -> Iterator[Path]:
    """A project whose v1 is trained and scored."""
    folder = tmp_path_factory.mktemp("paths")
    dataset.save(tiny, folder / "data/mnist.npz")
    params = TINY_PARAMS | {"versions": ["v1"], "models": {"v1": TINY_MODELS["v1"]}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "studies").mkdir()
    (folder / "studies/one.yaml").write_text("seeds: {v1: 1}\n")
    shutil.copy(ROOT / "metrics/report-2018.json", folder / "report.json")
    shutil.copy(ROOT / "MLproject", folder)
    shutil.copy(ROOT / "python_env.yaml", folder)
    for name in ("train", "evaluate", "plot"):
        done = invoke(folder, *name.split(), *WORKING[name])
        assert done.exit_code == 0, done.output
    yield folder
    mlflow.set_tracking_uri(None)


def cases() -> Iterator[tuple[str, str]]:
    """Yield each command with each of its paths."""
    for name in WORKING:
        for part in COMMANDS[name].params:
            if isinstance(part.type, click.Path):
                yield name, part.opts[0]


@pytest.mark.faults(
    "a path that leads to nothing, a folder, a text, a full device or into a file, for every path "
    "of every command",
    "accepted, or refused in one line; never a traceback",
    times=len(OTHERS),
)
@pytest.mark.parametrize(("command", "option"), list(cases()))
def test_another_path_is_no_traceback(
    command: str, option: str, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    for other in OTHERS:
        shutil.copytree(project, folder)
        (folder / "folder").mkdir()
        (folder / "text.txt").write_text("a: [text\n")
        arguments = [*WORKING[command]]
        if not option.startswith("-"):
            arguments[-1 if command == "report" else 0] = other
        elif option in arguments:
            arguments[arguments.index(option) + 1] = other
        else:
            arguments += [option, other]
        done = invoke(folder, *command.split(), *arguments)
        assert done.exit_code in (0, 1, 2), done.output
        assert not Path("/dev/full").is_file(), "it is still a device"
        shutil.rmtree(folder)
