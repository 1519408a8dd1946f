"""A real MLflow server: used, lost while a model is trained, back again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

import mlflow
import pytest
import yaml
from commands import invoke, train_command
from conftest import ROOT, TINY_PARAMS, environment, free_port, mlflow_server
from mlflow.tracking import MlflowClient
from PIL import Image

from digits.core import dataset, models
from digits.core.dataset import Dataset


def team_server(folder: Path, port: int) -> AbstractContextManager[tuple[Popen[bytes], str]]:
    """A server that stores artifacts too, with a database that is not the project's."""
    folder.mkdir(exist_ok=True)
    options = ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/team.db"]
    options += ["--artifacts-destination", str(folder / "artifacts")]
    return mlflow_server(folder, port, "server", *options)


@pytest.fixture
def project(tmp_path: Path, tiny: Dataset) -> Path:
    """A folder with parameters and images."""
    folder = tmp_path / "project"
    dataset.save(tiny, folder / "data/mnist.npz")
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    return folder


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that is yet to be started; this process is connected to it."""
    address = f"http://127.0.0.1:{free_port()}"
    # `connect` would set them for good.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    mlflow.set_tracking_uri(address)
    yield address
    mlflow.set_tracking_uri(None)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def train_v1() -> list[str]:
    return train_command("v1", reference=str(ROOT / "metrics/report-2018.json"))


@pytest.mark.faults(
    "MLflow server gone in mid-training",
    "training goes on to its end, all is saved; what was not sent is, by `digits send`",
)
def test_a_training_outlives_its_server_and_what_it_logged_is_sent_later(
    project: Path, address: str, tmp_path: Path
) -> None:
    server = {"MLFLOW_TRACKING_URI": address}
    params = (project / "params.yaml").read_text().replace("epochs: 3", "epochs: 1000")
    (project / "params.yaml").write_text(params)
    with team_server(tmp_path / "server", port_of(address)) as (process, _):
        training = Popen(
            [sys.executable, "-m", "digits", *train_v1()],
            cwd=project,
            env=environment(PYTHONPATH=str(ROOT / "src"), **server),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert training.stdout is not None
        assert any("epoch 50/" in line for line in training.stdout)
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = training.communicate(timeout=200)
    assert training.returncode == 0, output
    (line,) = (line for line in output.splitlines() if "digits send" in line)
    assert line.startswith(f"digits: MLflow server {address}: gone;")
    assert "Traceback" not in output
    refused = invoke(project, "send", **server)
    assert refused.exit_code == 1
    assert "no answer" in refused.stderr
    with team_server(tmp_path / "server", port_of(address)):
        sent = invoke(project, "send", **server)
        assert sent.exit_code == 0, sent.output
        client = MlflowClient()
        (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
        assert (run.info.run_name, run.info.status) == ("v1", "FINISHED")
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == list(range(1, 1001))
        names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
        assert {"console.log", "figures"} <= names
        (output_model,) = run.outputs.model_outputs
        loaded = mlflow.keras.load_model(f"models:/{output_model.model_id}")
    trained = models.load(project / "data/models/v1.keras")
    for one, other in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        assert (one == other).all()
    assert invoke(project, "send", **server).stdout == "nothing to send\n"


def test_the_champion_is_on_the_server_and_predicts_from_there(
    project: Path, address: str, tmp_path: Path
) -> None:
    server = {"MLFLOW_TRACKING_URI": address}
    picture = Image.new("L", (60, 90), 255)
    picture.paste(0, (25, 15, 33, 75))
    picture.save(project / "one.png")
    with team_server(tmp_path / "server", port_of(address)):
        trained = invoke(project, *train_v1(), **server)
        assert trained.exit_code == 0, trained.output
        files = ["--data", "data/mnist.npz", "--models", "data/models", "--scores", "scores"]
        evaluated = invoke(project, "evaluate", *files, **server)
        assert "mnist-digits@champion: v1 (registered version 1, " in evaluated.stdout
        (entry,) = mlflow.search_model_versions(filter_string="name = 'mnist-digits'")
        assert entry.tags["version"] == "v1"
        again = invoke(project, "register", "--models", "data/models", **server)
        assert "stays: no other is better" in again.stdout, again.output
        (project / "data/models").rename(project / "data/elsewhere")
        predicted = invoke(project, "predict", "one.png", **server)
        assert predicted.exit_code == 0, predicted.output
        assert predicted.stderr.startswith("digits: mnist-digits@champion: v1")
    assert not (project / "mlflow.db").exists()
    refused = invoke(project, "predict", "one.png", **server)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"digits: MLflow server {address}: no answer")
    assert refused.stderr.count("\n") == 1
