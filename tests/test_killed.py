"""Killed at any moment: real processes, on tiny data."""

import filecmp
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from conftest import digits, environment, make_project, run
from mlflow.tracking import MlflowClient

from digits.tracking.connection import connect

KILLS = int(os.environ.get("DIGITS_KILLS", "20"))
OUTPUTS = ("dvc.lock", "metrics/scores", "metrics/history", "data/models", "data/predictions")


def contents(project: Path) -> dict[str, bytes]:
    """Return the content of all that DVC made, by path."""
    paths = [project / name for name in OUTPUTS]
    files = [p for path in paths for p in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(p.relative_to(project)): p.read_bytes() for p in files if p.is_file()}


@pytest.mark.faults(
    "SIGKILL at a random moment of `dvc repro`",
    "the next one ends with the bytes of an undisturbed one; the run is closed as FAILED",
)
def test_a_pipeline_killed_at_any_moment_ends_with_the_same_bytes(
    tmp_path: Path,
    idx_folder: Path,
    checksums: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("times", KILLS)
    undisturbed = make_project(tmp_path / "undisturbed", idx_folder, checksums)
    start = time.monotonic()
    assert run(undisturbed, "dvc", "repro").returncode == 0
    whole = time.monotonic() - start
    project = make_project(tmp_path / "killed", idx_folder, checksums)
    moments = random.Random(2018)
    for _ in range(KILLS):
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=project,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=moments.uniform(0.1, whole / 2))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            # DVC 3.67 empties this file before it writes it, and cannot read it empty.
            locks = project / ".dvc/tmp/rwlock"
            if locks.exists() and not locks.stat().st_size:
                locks.unlink()
        else:  # It came to its end. Begin again from nothing.
            assert process.returncode == 0, output
            assert contents(project) == contents(undisturbed)
            shutil.rmtree(project)
            make_project(project, idx_folder, checksums)
    done = run(project, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(project) == contents(undisturbed)
    assert filecmp.cmp(project / "dvc.lock", undisturbed / "dvc.lock", shallow=False)
    assert not list(project.rglob(".partial-*"))
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    runs = MlflowClient().search_runs(["0"])
    assert {one.info.status for one in runs} <= {"FINISHED", "FAILED"}
    for one in runs:
        if one.info.status == "FAILED":
            assert "killed" in one.data.tags["ended"]
    mlflow.set_tracking_uri(None)


@pytest.mark.faults(
    "SIGKILL of `mlflow run` and all its processes: of the pipeline, or in its first second",
    "the run that MLflow opened is closed as FAILED by the next command",
)
@pytest.mark.parametrize("entry_point", ["pipeline", "main"])
def test_a_killed_run_of_mlflow_is_closed(
    entry_point: str, tmp_path: Path, idx_folder: Path, checksums: dict[str, str]
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    connect(project)
    client = MlflowClient()

    def is_begun() -> bool:
        runs = client.search_runs(["0"])
        return len(runs) > (entry_point == "pipeline") and runs[-1].info.status == "RUNNING"

    command = ["mlflow", "run", ".", "-e", entry_point, "--env-manager", "local"]
    store = f"sqlite:///{project}/mlflow.db"
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(MLFLOW_TRACKING_URI=store),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not is_begun():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    opened = client.search_runs(["0"])[-1]
    assert opened.info.status == "RUNNING"
    done = digits(project, "runs", "data")
    assert "its process is gone; now FAILED" in done.stderr
    assert {one.info.status for one in client.search_runs(["0"])} == {"FAILED"}
    mlflow.set_tracking_uri(None)
