"""What this project promises: valid parameters, and stages that lead from images to a champion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from digits.core import config, files

ROOT = Path(__file__).parent.parent
# Small, so that it does not matter for which images the networks of params.yaml are made.
NETWORK = {
    "layers": ["Flatten", {"Dense": {"units": 10, "activation": "softmax"}}],
    "loss": "CategoricalCrossentropy",
    "optimizer": {"Adam": {"learning_rate": 0.01}},
    "epochs": 2,
    "batch_size": 8,
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with this Python in a folder, and return what it printed and its status."""
    outer = ("DVC_", "MLFLOW_", "PYTEST_")  # of a run around these tests
    variables = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    path = os.pathsep.join([str(Path(sys.executable).parent), variables["PATH"]])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=variables | {"PATH": path, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project, with tiny images and a tiny network, after its first `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", ".dvc/plots", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")

    labels = np.tile(np.arange(10, dtype=np.uint8), 5)
    images = np.random.default_rng(1).integers(0, 60, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 3 : 2 * label + 5] = 255
    np.savez(
        folder / "tiny.npz",
        x_train=images[:40],
        y_train=labels[:40],
        x_test=images[40:],
        y_test=labels[40:],
    )
    params = config.read(ROOT / "params.yaml")
    params |= {"versions": ["tiny"], "tta": {}, "models": {"tiny": NETWORK}}
    params["data"] |= {"dataset": "tiny.npz", "classes": None, "validation": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_parameters_are_valid() -> None:
    config.load(ROOT / "params.yaml")


def test_the_stages_lead_from_images_to_a_champion(project: Path) -> None:
    name = config.load(project / "params.yaml").registry.name
    store = MlflowClient(f"sqlite:///{project}/mlflow.db")
    champion = store.get_model_version_by_alias(name, "champion")
    logged = store.get_run(champion.run_id).data.metrics
    scores = files.read_json(project / "metrics/scores/tiny.json")
    assert logged["test_accuracy"] == scores["test"]["accuracy"]
    assert (project / "metrics/figures/tiny-confusion.png").exists()


def test_a_second_repro_does_nothing(project: Path) -> None:
    done = run(project, "dvc", "repro")
    assert "Data and pipelines are up to date." in done.stdout
    assert "Running stage" not in done.stdout


def test_a_mistake_in_the_parameters_is_one_line(tmp_path: Path) -> None:
    params = config.read(ROOT / "params.yaml") | {"seed": "one"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (tmp_path / "src").symlink_to(ROOT / "src")
    done = run(tmp_path, "digits", "fetch", "--out", "images.npz")
    assert done.returncode == 1
    assert done.stderr == (
        'digits: params.yaml: seed: expected an integer from 0 to 4294967295, got "one"\n'
    )
