"""Many trainings at once: real processes, on tiny data."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import mlflow
import pytest
import requests
from conftest import environment, free_port, make_project, mlflow_server, run
from mlflow.tracking import MlflowClient


def train(number: int) -> list[str]:
    """The command that trains v1 with files of its own."""
    files = {
        "model": f"{number}.keras",
        "history": f"{number}.csv",
        "timing": f"{number}-timing.json",
        "machine": f"{number}-machine.json",
    }
    given = {"data": "data/mnist.npz", "reference": "metrics/report-2018.json", **files}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "digits", "train", "v1", "--seed", str(number + 100), *options]


@contextmanager
def ui(project: Path) -> Iterator[list[int]]:
    """`mlflow ui` in the project's folder, its table of runs reloaded all the time; the answers."""
    answers: list[int] = []
    stop = threading.Event()

    def reload(address: str) -> None:
        wanted = f"{address}/ajax-api/2.0/mlflow/runs/search"
        while not stop.wait(0.2):
            answer = requests.post(wanted, json={"experiment_ids": ["0"]}, timeout=60)
            answers.append(answer.status_code)

    with mlflow_server(project, free_port(), "ui") as (_, address):
        reloading = threading.Thread(target=reload, args=[address])
        reloading.start()
        try:
            yield answers
        finally:
            stop.set()
            reloading.join()


@pytest.mark.faults(
    "eight trainings started at once on an empty project, `mlflow ui` open or not",
    "eight whole runs in one experiment; no database is locked or migrated twice",
)
@pytest.mark.parametrize("opened", [nullcontext, ui], ids=["alone", "mlflow ui open"])
def test_eight_first_trainings_at_once_are_all_whole(
    opened: Callable[[Path], AbstractContextManager[list[int] | Path]],
    tmp_path: Path,
    idx_folder: Path,
    checksums: dict[str, str],
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    assert run(project, "dvc", "repro", "fetch").returncode == 0
    with opened(project) as answers:
        started = [
            subprocess.Popen(
                train(number),
                cwd=project,
                env=environment(PYTHONPATH="src", OMP_NUM_THREADS="1"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(8)
        ]
        said = [process.communicate(timeout=500)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8, said
    assert not any(text for text in said), said
    if opened is ui:
        assert isinstance(answers, list)
        assert len(answers) > 20
        assert set(answers) == {200}
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    client = MlflowClient()
    (experiment,) = client.search_experiments()
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 8
    for one in found:
        assert one.info.status == "FINISHED"
        steps = [m.step for m in client.get_metric_history(one.info.run_id, "loss")]
        assert steps == [1, 2, 3]
        assert {entry.path for entry in client.list_artifacts(one.info.run_id)} >= {
            "console.log",
            "figures",
        }
        assert one.outputs.model_outputs
    mlflow.set_tracking_uri(None)
