"""Studies run by a real Ray on this machine, on tiny data; also killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from conftest import ROOT, digits, environment, make_project, run
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from test_interrupt import FOREGROUND

pytestmark = pytest.mark.study
pytest.importorskip("ray", reason="needs Ray: `make test-study` installs it")

SEEDS = {"seeds": {"v1": 2, "v2": 1}, "first_seed": 5}
PYTHON = (sys.executable, "-m", "digits")
LONG = 4000  # epochs of tiny data; half a minute


@pytest.fixture
def project(tmp_path: Path, idx_folder: Path, checksums: dict[str, str]) -> Path:
    made = make_project(tmp_path / "project", idx_folder, checksums)
    assert digits(made, "fetch", "--out", "data/mnist.npz").returncode == 0
    (made / "studies").mkdir()
    return made


def write(project: Path, study: Any, **changed: Any) -> None:
    """The study's file, and parameters of v1 to change."""
    (project / "studies" / "tiny.yaml").write_text(yaml.safe_dump(study))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["models"]["v1"] |= changed
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def study(
    project: Path, command: str, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    return digits(project, "study", command, "studies/tiny.yaml", *arguments, **extra)


def trials(project: Path) -> dict[str, bytes]:
    folder = project / "metrics/studies/tiny/trials"
    return {path.stem: path.read_bytes() for path in folder.glob("*.json")}


def parent_and_children(project: Path) -> tuple[Run, list[Run]]:
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    runs = MlflowClient().search_runs(["0"])
    mlflow.set_tracking_uri(None)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in runs if run is not parent]


def finished(children: list[Run]) -> Counter[str]:
    return Counter(r.data.tags["trial"] for r in children if r.info.status == "FINISHED")


def test_one_command_trains_every_seed_once(project: Path) -> None:
    write(project, SEEDS)
    done = study(project, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(trials(project)) == {"v1-5", "v1-6", "v2-5"}
    told = json.loads(trials(project)["v1-5"])
    assert (told["version"], told["seed"], told["threads"]) == ("v1", 5, 1)
    assert [len(values) for values in told["metrics"].values()] == [3, 3]
    assert set(told["test"]) == {"loss", "accuracy", "errors"}
    beside = json.loads((project / "metrics/studies/tiny/timing/v1-5.json").read_text())
    assert beside["seconds"] > 0
    assert beside["machine"]["cores"]

    parent, children = parent_and_children(project)
    assert parent.info.status == "FINISHED"
    assert finished(children) == Counter(["v1-5", "v1-6", "v2-5"])
    of_v1 = next(run for run in children if run.data.tags["trial"] == "v1-5")
    assert of_v1.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert of_v1.data.params["training.seed"] == "5"
    assert of_v1.data.metrics["test_errors"] == told["test"]["errors"]
    assert of_v1.data.metrics["loss"] == pytest.approx(told["metrics"]["loss"][-1], abs=1e-6)

    first = trials(project)
    again = study(project, "run")
    assert "all 3 trials are there; nothing to train" in again.stdout
    write(project, SEEDS | {"seeds": {"v1": 3, "v2": 1}})
    assert "3 of 4 trials are there" in study(project, "resume").stdout
    assert {name: trials(project)[name] for name in first} == first
    parent, children = parent_and_children(project)
    assert parent.info.status == "FINISHED"
    assert finished(children) == Counter([*first, "v1-7"])
    assert set(trials(project)) == {*first, "v1-7"}


def test_a_trial_gives_the_same_bits_alone_and_after_others(project: Path) -> None:
    write(project, SEEDS)
    assert study(project, "run", "--workers", "1").returncode == 0
    one_after_the_other = trials(project)
    for path in (project / "metrics/studies/tiny/trials").glob("*.json"):
        path.unlink()
    write(project, SEEDS | {"seeds": {"v2": 1}})
    assert study(project, "run").returncode == 0
    assert trials(project) == {"v2-5": one_after_the_other["v2-5"]}


def start(project: Path, command: str, *arguments: str, **extra: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            FOREGROUND,
            *PYTHON,
            "study",
            command,
            "studies/tiny.yaml",
            *arguments,
        ],
        cwd=project,
        env=environment(PYTHONPATH=str(ROOT / "src"), **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(holds: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it did not come to it in time"
        time.sleep(0.2)
    return value


def training(project: Path) -> list[int]:
    """The processes whose trials have told MLflow of an epoch and are not at their end."""
    if not (project / "mlflow.db").exists():
        return []
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    runs = MlflowClient().search_runs(["0"], "attributes.status = 'RUNNING'")
    mlflow.set_tracking_uri(None)
    return [int(r.data.tags["process"].split()[-2]) for r in runs if "loss" in r.data.metrics]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_killed_worker_is_replaced(project: Path) -> None:
    write(project, {"seeds": {"v1": 2}}, epochs=LONG)
    driver = start(project, "run")
    os.kill(wait_until(lambda: training(project))[0], signal.SIGKILL)
    said, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, said
    _, children = parent_and_children(project)
    assert finished(children) == Counter(["v1-1", "v1-2"])
    assert Counter(run.info.status for run in children) == {"FINISHED": 2, "FAILED": 1}
    assert set(trials(project)) == {"v1-1", "v1-2"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_study_goes_on(project: Path, sent: signal.Signals) -> None:
    write(project, {"seeds": {"v1": 4}}, epochs=LONG // 4)
    driver = start(project, "run")
    wait_until(lambda: len(trials(project)) >= 2 and training(project))
    rays = [p for p in psutil.Process(driver.pid).children(recursive=True) if "Impl" in p.name()]
    os.kill(driver.pid, sent)
    said, _ = driver.communicate(timeout=60)
    before = trials(project)
    assert len(before) < 4, "too late to be stopped"
    if sent != signal.SIGKILL:
        assert driver.returncode == 130
        assert said.endswith("digits: interrupted\n"), said
    wait_until(lambda: all(map(is_gone, rays)), 60)

    done = study(project, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(before)} of 4 trials are there" in done.stdout
    after = trials(project)
    assert {name: after[name] for name in before} == before
    parent, children = parent_and_children(project)
    assert parent.info.status == "FINISHED"
    assert finished(children) == Counter(["v1-1", "v1-2", "v1-3", "v1-4"])
    assert "RUNNING" not in {run.info.status for run in children}


def test_a_trial_that_fails_is_named_and_the_others_are_kept(project: Path) -> None:
    write(project, SEEDS, optimizer={"Adam": {"learning_rate": 1e38}})
    done = study(project, "run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("digits: study tiny: 2 of 3 trials failed, the others are kept: v1-")
    assert line.count("the loss is") == line.count("lower the learning rate, now 1e+38") == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert set(trials(project)) == {"v2-5"}
    _, children = parent_and_children(project)
    assert Counter(run.info.status for run in children) == {"FINISHED": 1, "FAILED": 2}


def test_a_search_finds_the_better_parameters_and_prints_their_block(project: Path) -> None:
    space = {"optimizer.Adam.learning_rate": [1e-9, 0.05], "batch_size": {"low": 8, "high": 9}}
    search = {"version": "v1", "trials": 4, "validation": 20, "space": space}
    write(project, {"search": search | {"trials": 2}}, epochs=10)
    words = ("-e", "study", "-P", "file=studies/tiny.yaml", "--env-manager", "local")
    done = run(project, "mlflow", "run", ".", *words)
    assert done.returncode == 0, done.stderr
    first = trials(project)
    write(project, {"search": search | {"trials": 6, "grace": 1}})
    done = study(project, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(trials(project)) == 6
    assert {name: trials(project)[name] for name in first} == first
    assert not any("test" in json.loads(text) for text in trials(project).values())

    told = study(project, "report").stdout
    rows = [line for line in told.splitlines() if line.startswith("| v1-")]
    assert len(rows) == 6
    block = yaml.safe_load(told[told.index("models:") :])
    assert block["models"]["v1"]["optimizer"]["Adam"]["learning_rate"] == 0.05
    parent, children = parent_and_children(project)
    assert parent.data.params == {"file": "studies/tiny.yaml"}, "the run that `mlflow run` opened"
    assert set(finished(children)) == set(trials(project))


def test_what_a_study_cannot_use_is_one_line(project: Path) -> None:
    write(project, SEEDS)
    done = study(project, "resume")
    assert (done.returncode, done.stderr) == (
        1,
        "digits: metrics/studies/tiny: nothing to resume; "
        "`digits study run studies/tiny.yaml` begins it\n",
    )
    for address in ("127.0.0.1:1", "nowhere"):
        done = study(project, "run", "--address", address)
        assert done.returncode == 1
        assert done.stderr.startswith(f"digits: Ray: no cluster answers at {address} (")
        assert len(done.stderr.splitlines()) == 1
