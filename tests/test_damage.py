"""Full disks, folders that cannot be written, files replaced by garbage: one line, nothing lost."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path

import mlflow
import pytest
import requests
from click.testing import Result
from commands import invoke, train_command
from conftest import free_port, make_project, mlflow_server, run

from digits.core.keras_backend import keras

TRAIN = train_command("v1")
EVALUATE = ["evaluate", "--data", "data/mnist.npz", "--models", "data/models"]
EVALUATE += ["--scores", "scores", "--predictions", "predictions", "--confusion", "confusion"]
PLOT = ["plot", "--data", "data/mnist.npz", "--reference", "metrics/report-2018.json"]
PLOT += ["--scores", "metrics/scores", "--predictions", "data/predictions", "--figures", "figures"]
PLOT += ["--history", "metrics/history", "--curves", "curves.csv"]
damaged = pytest.mark.faults(
    "`data/mnist.npz`, a model, a history, scores or probabilities cut off, emptied or garbage",
    "what reads it fails and names it; `dvc repro` finds it by checksum and restores it",
)


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project with its results, to be copied."""
    folder = make_project(tmp_path_factory.mktemp("damage") / "project", idx_folder, checksums)
    assert run(folder, "dvc", "repro").returncode == 0
    return folder


@pytest.fixture
def project(done: Path, tmp_path: Path) -> Iterator[Path]:
    folder = Path(shutil.copytree(done, tmp_path / "ein Prüfprojekt, 100 %", symlinks=True))
    assert invoke(folder, "relocate").stdout.startswith(f"was {done}")
    yield folder
    mlflow.set_tracking_uri(None)


def only_line(finished: Result) -> str:
    """Return what a failed command prints on standard error, which is one line for people."""
    assert finished.exit_code == 1, finished.output
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("digits: ")
    return lines[0]


@pytest.fixture
def small_disk(project: Path) -> Iterator[Path]:
    """Mount a file system that is nearly full as the folder of the models."""
    folder = project / "data/models"
    copies = project / "copies"
    shutil.copytree(folder, copies)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)])
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        shutil.copy(copies / "v1.keras", folder)
        (folder / "filler").write_bytes(b"x" * os.statvfs(folder).f_bavail * 4096)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.faults(
    "disk full while a model is saved",
    "the stage fails with the path and the reason; the earlier model is intact",
)
def test_a_full_disk_is_an_error_with_path_and_reason_and_the_model_stays(
    small_disk: Path, project: Path
) -> None:
    before = (small_disk / "v1.keras").read_bytes()
    line = only_line(invoke(project, *TRAIN))
    assert "data/models/v1.keras: cannot be written: No space left on device" in line
    assert (small_disk / "v1.keras").read_bytes() == before
    assert not list(small_disk.glob(".partial-*"))


@damaged
@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/mnist.npz", TRAIN),
        ("data/mnist.npz", EVALUATE),
        ("data/models/v1.keras", EVALUATE),
        ("metrics/report-2018.json", TRAIN),
        ("metrics/history/v1.csv", PLOT),
        ("metrics/scores/v1.json", PLOT),
        ("data/predictions/v1/probabilities_test.npy", PLOT),
        ("metrics/scores/v1.json", ["report", "metrics"]),
    ],
)
@pytest.mark.parametrize("how", ["cut", "garbage", "empty"])
def test_a_damaged_file_is_named(path: str, command: list[str], how: str, project: Path) -> None:
    content = (project / path).read_bytes()
    (project / path).unlink()  # It may be a link into DVC's cache.
    damage = {"cut": content[:-2], "garbage": os.urandom(2000), "empty": b""}[how]
    (project / path).write_bytes(damage)
    assert path in only_line(invoke(project, *command))


@damaged
def test_dvc_finds_damaged_outputs_by_their_checksums_and_restores_them(project: Path) -> None:
    paths = ["data/mnist.npz", "data/models/v1.keras", "metrics/history/v2.csv"]
    paths += ["metrics/scores/v1.json", "data/predictions/v2/probabilities_test.npy"]
    contents = {path: (project / path).read_bytes() for path in paths}
    runs = len(list((project / "mlruns/0").iterdir()))
    for path, content in contents.items():
        (project / path).unlink()  # It may be a link into DVC's cache.
        (project / path).write_bytes(content[: len(content) // 2])
    repeated = run(project, "dvc", "repro")
    assert repeated.returncode == 0, repeated.stderr
    assert {path: (project / path).read_bytes() for path in paths} == contents
    assert len(list((project / "mlruns/0").iterdir())) == runs


@pytest.mark.faults(
    "a hostile `.keras` file: code in a Lambda layer",
    "refused by name; the code does not run",
)
def test_a_model_with_code_in_it_is_refused(project: Path) -> None:
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten()]
    layers += [keras.layers.Lambda(lambda x: __import__("os").system("touch harmed") or x)]
    layers += [keras.layers.Dense(10, activation="softmax")]
    (project / "data/models/v1.keras").unlink()
    with chdir(project):
        keras.Sequential(layers).save("data/models/v1.keras")
    (project / "harmed").unlink()
    line = only_line(invoke(project, *EVALUATE))
    assert "data/models/v1.keras: not a model that can be loaded" in line
    assert not (project / "harmed").exists()


@pytest.mark.faults(
    "the loss becomes NaN or infinite",
    "training stops there; version, epoch and learning rate are named; the run is FAILED",
)
def test_a_loss_that_is_no_number_ends_the_training(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("0.01", "1.0e+38"))
    before = (project / "data/models/v1.keras").read_bytes()
    line = only_line(invoke(project, *TRAIN))
    assert "v1: the loss is" in line
    assert "epoch" in line
    assert "1e+38" in line
    assert (project / "data/models/v1.keras").read_bytes() == before
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        (newest,) = database.execute("SELECT status FROM runs ORDER BY start_time DESC LIMIT 1")
    assert newest == ("FAILED",)


@pytest.mark.faults(
    "a read-only checkout",
    "one line that names it",
)
def test_a_checkout_that_cannot_be_written_is_one_line(project: Path) -> None:
    bound = subprocess.run(["mount", "--bind", str(project), str(project)])
    if bound.returncode:
        pytest.skip("a read-only mount needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(project)], check=True)
        line = only_line(invoke(project, *TRAIN))
        assert str(project) in line
        assert "Read-only" in line or "readonly" in line
    finally:
        subprocess.run(["umount", str(project)], check=True)


@pytest.mark.faults(
    "a home folder that cannot be written",
    "everything works",
)
def test_a_home_that_cannot_be_written_changes_nothing(project: Path, tmp_path: Path) -> None:
    home = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "MPLCONFIGDIR": ""}
    command = [sys.executable, "-m", "digits", *TRAIN]
    finished = run(project, *command, PYTHONPATH="src", **home)
    assert finished.returncode == 0, finished.stderr
    repeated = run(project, "dvc", "repro", **home)
    assert repeated.returncode == 0, repeated.stderr


@pytest.mark.faults(
    "the project's folder moved or renamed, with spaces and non-ASCII characters",
    "after the next training, or `digits relocate`, `mlflow ui` opens all of it again",
)
def test_a_moved_project_keeps_its_runs_and_artifacts(done: Path, tmp_path: Path) -> None:
    """In `mlflow ui`, and for the next training, which prints what it repaired."""
    first = Path(shutil.copytree(done, tmp_path / "first", symlinks=True))
    assert invoke(first, "relocate").stdout == f"was {done}, is {first}\n"
    moved = first.rename(tmp_path / "zweiter Ort, ü 100 %")
    trained = invoke(moved, *TRAIN)
    mlflow.set_tracking_uri(None)
    assert trained.exit_code == 0, trained.output
    database = moved / "mlflow.db"
    assert (
        trained.stderr == f"digits: {database}: was made in {first}; its artifacts are here now\n"
    )
    assert invoke(moved, "relocate").stdout == f"is {moved}, as it was\n"
    with mlflow_server(moved, free_port(), "ui") as (_, address):
        api = f"{address}/ajax-api/2.0/mlflow"
        response = requests.post(f"{api}/runs/search", json={"experiment_ids": ["0"]})
        runs = response.json()["runs"]
        assert len(runs) == 3
        for one in runs:
            assert {"loss", "accuracy"} <= {metric["key"] for metric in one["data"]["metrics"]}
            log = {"run_uuid": one["info"]["run_id"], "path": "console.log"}
            assert ": epoch  1/" in requests.get(f"{address}/get-artifact", params=log).text
            (output,) = one["outputs"]["model_outputs"]
            logged_model = f"{api}/logged-models/{output['model_id']}/artifacts/files"
            network = {"artifact_file_path": "data/model.keras"}
            assert requests.get(logged_model, params=network).content[:2] == b"PK"
