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
from commands import train_command
from conftest import environment, free_port, make_project, mlflow_server
from mlflow.tracking import MlflowClient

from digits.core import dataset
from digits.core.dataset import Dataset


@contextmanager
def ui(project: Path) -> Iterator[list[int]]:
    """Reload the table of `mlflow ui` in the project's folder all the time; yield the statuses."""
    statuses: list[int] = []
    stop = threading.Event()

    def reload(address: str) -> None:
        table = f"{address}/ajax-api/2.0/mlflow/runs/search"
        while not stop.wait(0.2):
            response = requests.post(table, json={"experiment_ids": ["0"]}, timeout=60)
            statuses.append(response.status_code)

    with mlflow_server(project, free_port(), "ui") as (_, address):
        reloading = threading.Thread(target=reload, args=[address])
        reloading.start()
        try:
            yield statuses
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
    tiny: Dataset,
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    dataset.save(tiny, project / "data/mnist.npz")
    with opened(project) as statuses:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "digits", *train_command("v1", name=str(number))],
                cwd=project,
                env=environment(PYTHONPATH="src", OMP_NUM_THREADS="1"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(8)
        ]
        stderrs = [process.communicate(timeout=500)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8, stderrs
    assert not any(stderrs), stderrs
    if opened is ui:
        assert isinstance(statuses, list)
        assert set(statuses) == {200}  # an empty list fails too
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    client = MlflowClient()
    (experiment,) = client.search_experiments()
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    for one in runs:
        assert one.info.status == "FINISHED"
        steps = [metric.step for metric in client.get_metric_history(one.info.run_id, "loss")]
        assert steps == [1, 2, 3]
        names = {entry.path for entry in client.list_artifacts(one.info.run_id)}
        assert {"console.log", "figures"} <= names
        assert one.outputs.model_outputs
    mlflow.set_tracking_uri(None)
