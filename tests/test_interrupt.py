"""Interrupted trainings: real processes, real signals."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from commands import train_command
from conftest import environment, make_project, run

from digits.core import dataset
from digits.core.dataset import Dataset

# A background job of a shell ignores Ctrl-C, and so would what the tests start in one.
FOREGROUND = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
TRAIN = [sys.executable, "-m", "digits", *train_command("v1")]
PROJECT_RUN = ["mlflow", "run", ".", "-P", "version=1", "--env-manager", "local"]
interrupted = pytest.mark.faults(
    "Ctrl-C or SIGTERM in mid-epoch",
    "the run is KILLED, no file half-written; the next `dvc repro` goes on with that stage",
)


@interrupted
@pytest.mark.parametrize(
    ("command", "number"),
    [(TRAIN, signal.SIGTERM), (TRAIN, signal.SIGINT), (PROJECT_RUN, signal.SIGINT)],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C in mlflow run"],
)
def test_an_interrupted_training_is_killed_and_leaves_nothing(
    command: list[str],
    number: signal.Signals,
    tmp_path: Path,
    idx_folder: Path,
    checksums: dict[str, str],
    tiny: Dataset,
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["models"]["v1"]["epochs"] = 100_000
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    dataset.save(tiny, project / "data/mnist.npz")
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, *command],
        cwd=project,
        env=environment(PYTHONPATH="src", PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any("epoch  2/" in line for line in process.stdout)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "digits: interrupted" in stderr.splitlines()
    assert "Traceback" not in stderr or command is PROJECT_RUN, "MLflow's own"
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        ((status,),) = database.execute("SELECT status FROM runs").fetchall()
        tagged = database.execute("SELECT value FROM tags WHERE key = 'interrupted'").fetchall()
    # MLflow 3.17 has the last word on the run that it opened, and says FAILED.
    assert status in (("KILLED", "FAILED") if command is PROJECT_RUN else ("KILLED",))
    assert tagged == [("true",)]
    assert not (project / "data" / "models").exists()
    assert not list(project.rglob("*partial*"))


@interrupted
def test_after_ctrl_c_dvc_goes_on_with_the_interrupted_stage(
    tmp_path: Path, idx_folder: Path, checksums: dict[str, str]
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["models"]["v2"]["epochs"] = 400
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, "dvc", "repro"],
        cwd=project,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any("v2: epoch  2/" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert [path.name for path in (project / "data/models").glob("*.keras")] == ["v1.keras"]
    assert [path.name for path in (project / "metrics/history").iterdir()] == ["v1.csv"]
    assert not list(project.rglob("*partial*"))
    done = run(project, "dvc", "repro", "train@v1", "train@v2")
    assert done.returncode == 0, done.stderr
    assert "Stage 'train@v1' didn't change, skipping" in done.stdout
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        runs = database.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()
    assert runs == [("v1", "FINISHED"), ("v2", "KILLED"), ("v2", "FINISHED")]
