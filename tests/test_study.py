"""Studies run by a real Ray on this machine, on tiny data; also killed and resumed."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from conftest import ROOT, environment, run
from mlflow.tracking import MlflowClient
from study_project import (
    SEEDS,
    STUDY,
    finished,
    make,
    parent_and_children,
    rows,
    wait_until,
    without_times,
    write,
)
from test_interrupt import FOREGROUND

from digits.core.dataset import Dataset

pytestmark = pytest.mark.study
pytest.importorskip("ray", reason="needs Ray: `make test-study` installs it")

LONG = 2000  # epochs of tiny data; a quarter of a minute
ONE = ("--workers", "1")


@pytest.fixture
def project(tmp_path: Path, tiny: Dataset, new_database: Path) -> Path:
    return make(tmp_path, tiny, new_database)


def study(
    project: Path, command: str, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `digits study COMMAND tiny.yaml` in a process of its own."""
    words = (*STUDY, command, "tiny.yaml", *arguments)
    return run(project, *words, PYTHONPATH=str(ROOT / "src"), **extra)


def start(project: Path, command: str, *arguments: str, **extra: str) -> "subprocess.Popen[str]":
    """Begin to run it; what it prints goes to output.txt, since a pipe would fill up."""
    with (project / "output.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-c", FOREGROUND, *STUDY, command, "tiny.yaml", *arguments],
            cwd=project,
            env=environment(PYTHONPATH=str(ROOT / "src"), **extra),
            stdout=output,
            stderr=output,
            text=True,
        )


def output_at_end(project: Path, process: "subprocess.Popen[str]", seconds: float) -> str:
    """Wait for the end of a process that `start` has begun, and return what it printed."""
    process.wait(seconds)
    return (project / "output.txt").read_text()


def training(project: Path) -> list[int]:
    """Return the processes whose trials have logged an epoch and have not ended."""
    if not (project / "mlflow.db").exists():
        return []
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    running = client.search_runs(["0"], "attributes.status = 'RUNNING'")
    return [int(r.data.tags["process"].split()[-2]) for r in running if "loss" in r.data.metrics]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_trials_by_ray_have_the_bits_of_those_in_one_process_and_failures_are_named(
    project: Path,
) -> None:
    diverging = {"Adam": {"learning_rate": 1e38}}
    write(project, SEEDS, optimizer=diverging)
    done = study(project, "run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("digits: study tiny: 2 of 3 trials failed, the others are kept: v1-")
    assert line.count("the loss is") == line.count("lower the learning rate, now 1e+38") == 2
    assert set(rows(project)) == {"v2-5"}
    parent, children = parent_and_children(project)
    assert Counter(run.info.status for run in children) == {"FINISHED": 1, "FAILED": 2}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    by_ray = rows(project)["v2-5"]
    assert by_ray["machine"]["cores"]

    (project / "metrics/studies/tiny/trials.csv").unlink()
    for database in project.glob("mlflow.db*"):  # It has the result of v2-5.
        database.unlink()
    write(project, SEEDS)
    done = study(project, "run", *ONE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert without_times(rows(project)["v2-5"]) == without_times(by_ray)


def test_a_killed_worker_is_replaced(project: Path) -> None:
    write(project, {"seeds": {"v1": 2}}, epochs=LONG)
    driver = start(project, "run")
    os.kill(wait_until(lambda: training(project))[0], signal.SIGKILL)
    output = output_at_end(project, driver, 240)
    assert driver.returncode == 0, output
    _, children = parent_and_children(project)
    assert finished(children) == Counter(["v1-1", "v1-2"])
    assert Counter(run.info.status for run in children) == {"FINISHED": 2, "FAILED": 1}
    assert list(rows(project)) == ["v1-1", "v1-2"]


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGKILL, "2"), (signal.SIGTERM, "2"), (signal.SIGINT, "2"), (signal.SIGKILL, "1")],
)
def test_a_stopped_study_goes_on(project: Path, number: signal.Signals, workers: str) -> None:
    write(project, {"seeds": {"v1": 4}}, epochs=LONG // 2)
    driver = start(project, "run", "--workers", workers)
    wait_until(lambda: len(rows(project)) >= 2 and training(project))
    rays = [p for p in psutil.Process(driver.pid).children(recursive=True) if "Impl" in p.name()]
    assert len(rays) == (2 if workers == "2" else 0)
    os.kill(driver.pid, number)
    output = output_at_end(project, driver, 60)
    before = rows(project)
    assert len(before) < 4, "too late to be stopped"
    if number != signal.SIGKILL:
        assert driver.returncode == 130
        assert output.endswith("digits: interrupted\n"), output
    wait_until(lambda: all(map(is_gone, rays)), 60)

    done = study(project, "resume", *ONE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(before)} of 4 trials are there" in done.stdout
    after = rows(project)
    assert {name: after[name] for name in before} == before
    parent, children = parent_and_children(project)
    assert parent.info.status == "FINISHED"
    assert finished(children) == Counter(["v1-1", "v1-2", "v1-3", "v1-4"])
    assert "RUNNING" not in {run.info.status for run in children}


def test_a_search_finds_the_better_parameters_and_prints_their_block(project: Path) -> None:
    space = {"optimizer.Adam.learning_rate": [1e-9, 0.05], "batch_size": {"low": 8, "high": 9}}
    search: dict[str, Any] = {"version": "v1", "validation": 20, "space": space}
    write(project, {"search": search | {"trials": 2}}, epochs=10)
    for name in ("MLproject", "python_env.yaml"):
        shutil.copy(ROOT / name, project)
    (project / "src").symlink_to(ROOT / "src")
    words = ("-e", "study", "-P", "file=tiny.yaml", "--env-manager", "local")
    done = run(project, "mlflow", "run", ".", *words)
    assert done.returncode == 0, done.stderr
    first = rows(project)
    assert len(first) == 2
    write(project, {"search": search | {"trials": 6, "grace": 1}}, epochs=10)
    done = study(project, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows(project)) == 6
    assert {name: rows(project)[name] for name in first} == first
    assert not any(row["test"] for row in rows(project).values())
    assert all(row["pruned"] == (row["epochs"] < 10) for row in rows(project).values())

    report = study(project, "report").stdout
    assert len([line for line in report.splitlines() if line.startswith("| v1-")]) == 6
    block = yaml.safe_load(report[report.index("models:") :].split("```")[0])
    assert block["models"]["v1"]["optimizer"]["Adam"]["learning_rate"] == 0.05
    parent, children = parent_and_children(project)
    assert parent.data.params == {"file": "tiny.yaml"}, "the run that `mlflow run` opened"
    assert set(finished(children)) == set(rows(project))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_does_not_answer_is_one_line(project: Path, address: str) -> None:
    write(project, SEEDS)
    done = study(project, "run", "--address", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"digits: Ray: no cluster answers at {address} (")
    assert len(done.stderr.splitlines()) == 1
    mlflow.set_tracking_uri(None)
