"""Tiny synthetic digits, and a project in a temporary folder that trains on them."""

import gzip
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from filelock import FileLock
from numpy.typing import NDArray

from digits.core.dataset import Dataset
from digits.core.files import write_json
from digits.ingest.fetch import IDX_FILES
from digits.tracking.local_store import DATABASE, relocate
from digits.tracking.machine import libraries, machine

ROOT = Path(__file__).parent.parent
# What git knows of the project and its stages need; not its results.
SOURCES = (
    *("src", "dvc.yaml", "MLproject", "python_env.yaml"),
    *(".gitignore", ".dvcignore", "data"),
)

TINY_MODELS: dict[str, Any] = {
    "v1": {
        "layers": ["Flatten", {"Dense": {"units": 10, "activation": "softmax"}}],
        "loss": "CategoricalCrossentropy",
        "optimizer": {"Adam": {"learning_rate": 0.01}},
        "epochs": 3,
        "batch_size": 8,
    },
    "v2": {
        "layers": [
            {"Conv2D": {"filters": 2, "kernel_size": 3, "activation": "relu"}},
            {"MaxPooling2D": {"pool_size": 4}},
            {"Dropout": {"rate": 0.1}},
            "Flatten",
            {"Dense": {"units": 10, "activation": "softmax"}},
        ],
        "loss": "CategoricalCrossentropy",
        "optimizer": {"Adam": {"learning_rate": 0.01}},
        "epochs": 2,
        "batch_size": 8,
    },
}

TINY_PARAMS: dict[str, Any] = {
    "seed": 1,
    "versions": list(TINY_MODELS),
    "tta": {"v1": [{"rotation": -5}, {"down": 0.5}]},
    "registry": {"name": "mnist-digits", "metric": "test_accuracy", "minimum_improvement": 0.0},
    "data": {"validation": 0, "dataset": "data/mnist.yaml", "classes": None},
    "models": TINY_MODELS,
}


def fake_images(y: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Noise, with a bright bar at a height that depends on the digit."""
    images = np.random.default_rng(seed).integers(0, 60, (len(y), 28, 28), dtype=np.uint8)
    for image, digit in zip(images, y, strict=True):
        image[2 * digit + 3 : 2 * digit + 5, 4:24] = 255
    return images


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """80 training and 20 test images, every digit equally often."""
    y_train = np.tile(np.arange(10, dtype=np.uint8), 8)
    y_test = np.tile(np.arange(10, dtype=np.uint8), 2)
    return Dataset(fake_images(y_train, 1), y_train, fake_images(y_test, 2), y_test)


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture(scope="session")
def idx_files(tiny: Dataset) -> dict[str, bytes]:
    """The tiny dataset as the four files of MNIST, by name."""
    arrays = (tiny.x_train, tiny.y_train, tiny.x_test, tiny.y_test)
    return {name: idx(array) for name, array in zip(IDX_FILES, arrays, strict=True)}


@pytest.fixture(scope="session")
def checksums(idx_files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in idx_files.items()}


@pytest.fixture(scope="session")
def idx_folder(idx_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four files, two of them packed."""
    folder = tmp_path_factory.mktemp("mirror")
    for name, content in idx_files.items():
        if "labels" in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database without runs, to be copied, since MLflow takes a second for one."""
    from digits.tracking.connection import create_database  # Not all tests need MLflow.

    folder = tmp_path_factory.mktemp("new")
    create_database(folder)
    return folder


@pytest.fixture
def disconnect() -> Iterator[None]:
    """Leave this process connected to no store."""
    import mlflow  # Not all tests need it.

    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def first_result(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project after its first `dvc repro`, to be copied: one for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "first result/digits"
    with FileLock(shared / "first-result.lock"):
        if not folder.exists():
            shutil.rmtree(shared / "partial result", ignore_errors=True)
            partial = make_project(shared / "partial result/digits", idx_folder, checksums)
            done = run(partial, "dvc", "repro")
            assert done.returncode == 0, done.stdout + done.stderr
            partial.parent.rename(folder.parent)
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**extra: str) -> dict[str, str]:
    """This environment as an activated .venv gives it, without what a run around us may set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "PYTEST_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return kept | {"PATH": path, "COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true"} | extra


def run(folder: Path, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder and return what it printed and its status."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def digits(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the `digits` command of this checkout in a folder."""
    return run(
        folder, sys.executable, "-m", "digits", *arguments, PYTHONPATH=str(ROOT / "src"), **extra
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def mlflow_server(
    folder: Path, port: int, *command: str, python: str = sys.executable, **extra: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An `mlflow ui`, `server` or `models serve`, once it answers, and its address."""
    whole = [python, "-m", "mlflow", *command, "--port", str(port)]
    # MLflow's job runner is for GenAI, and starts eight more processes that import MLflow.
    variables = environment(**{"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | extra)
    with (folder / "server.log").open("ab") as log:
        started = subprocess.Popen(
            whole, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while started.poll() is None and time.monotonic() < end:
            try:
                requests.get(f"{address}/health", timeout=1)
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield started, address
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def write_mirrors(folder: Path, mirror: str, checksums: dict[str, str]) -> None:
    """Write the file that says where MNIST is, for a project in a folder."""
    (folder / "data").mkdir(exist_ok=True)
    mirrors = {"mirrors": [mirror], "sha256": checksums}
    (folder / "data" / "mnist.yaml").write_text(yaml.safe_dump(mirrors))


def make_project(folder: Path, idx_folder: Path, checksums: dict[str, str]) -> Path:
    """A copy of this project's code in a git repository of its own, set to tiny data."""
    for name in (*SOURCES, "requirements/main.txt", "metrics/report-2018.json"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == "data":
            target.mkdir()
            shutil.copy(source / ".gitignore", target)
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    write_mirrors(folder, str(idx_folder), checksums)
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS, sort_keys=False))
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def copy_database(folder: Path, target: Path) -> None:
    """Copy the database of a project's folder to another, as if it had been made there."""
    shutil.copy(folder / DATABASE, target)
    relocate(target)


def copy_project(project: Path, folder: Path) -> Path:
    """Copy a project's folder, whose database then points to its own artifacts."""
    shutil.copytree(project, folder, symlinks=True)
    relocate(folder)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", type=Path, help="JSON file to write: how many faults survived")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the report of a test say which fault it tries, and what is promised then."""
    if marker := item.get_closest_marker("faults"):
        fault, promise = marker.args
        item.user_properties += [("fault", fault), ("promise", promise)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After the tests of faults, a table: what was tried, and how often the project survived it."""
    rows: dict[str, dict[str, Any]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(report.user_properties)
            if report.when == "call" and "fault" in told:
                row = rows.setdefault(
                    told["fault"], {"promise": told["promise"], "tried": 0, "survived": 0}
                )
                times = told.get("times", 1)
                row["tried"] += times
                row["survived"] += times if outcome == "passed" else 0
    if rows:
        terminalreporter.section("faults")
        width = max(map(len, rows))
        terminalreporter.write_line(f"{'':{width}}  tried  survived")
        for fault in sorted(rows):
            tried, survived = rows[fault]["tried"], rows[fault]["survived"]
            terminalreporter.write_line(f"{fault:{width}}  {tried:5}  {survived:8}")
    if counts := terminalreporter.config.getoption("--counts"):
        write_json(counts, {"faults": dict(sorted(rows.items())), **environment_of_tests()})


def environment_of_tests() -> dict[str, str]:
    """What the counts were made with."""
    return machine() | {"mlflow": libraries()["mlflow"], "dvc": libraries()["dvc"]}
