"""A real MLflow server: used, lost in mid-training, back again."""

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

import mlflow
import pytest
from conftest import digits, environment, free_port, make_project, mlflow_server, run
from mlflow.tracking import MlflowClient
from PIL import Image

from digits.core import models


def team_server(folder: Path, port: int) -> AbstractContextManager[tuple[Popen[bytes], str]]:
    """A server with proxied artifacts, whose database is not the project's."""
    folder.mkdir(exist_ok=True)
    options = ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/team.db"]
    options += ["--artifacts-destination", str(folder / "artifacts")]
    return mlflow_server(folder, port, "server", *options)


@pytest.mark.faults(
    "MLflow server gone in mid-training",
    "training goes on to its end, all is saved; what was not sent is, by `digits send`",
)
def test_a_training_outlives_its_server_and_what_it_logged_is_sent_later(
    tmp_path: Path, idx_folder: Path, checksums: dict[str, str]
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    params = (project / "params.yaml").read_text().replace("epochs: 3", "epochs: 3000")
    (project / "params.yaml").write_text(params)
    assert run(project, "dvc", "repro", "fetch").returncode == 0
    port = free_port()
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with team_server(tmp_path / "server", port) as (serving, _):
        training = Popen(
            ["dvc", "repro", "train@v1"],
            cwd=project,
            env=environment(**address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert training.stdout is not None
        assert any("epoch 50/" in line for line in training.stdout)
        os.killpg(serving.pid, signal.SIGKILL)
        said, _ = training.communicate(timeout=200)
    assert training.returncode == 0, said
    (line,) = (line for line in said.splitlines() if "digits send" in line)
    assert line.startswith(f"digits: MLflow server http://127.0.0.1:{port}: gone;")
    assert "Traceback" not in said
    assert (project / "data/models/v1.keras").is_file()
    refused = run(project, sys.executable, "-m", "digits", "send", PYTHONPATH="src", **address)
    assert refused.returncode == 1
    assert "no answer" in refused.stderr
    with team_server(tmp_path / "server", port):
        sent = run(project, sys.executable, "-m", "digits", "send", PYTHONPATH="src", **address)
        assert sent.returncode == 0, sent.stderr
        mlflow.set_tracking_uri(address["MLFLOW_TRACKING_URI"])
        client = MlflowClient()
        (found,) = client.search_runs(
            [e.experiment_id for e in client.search_experiments()], "attributes.run_name = 'v1'"
        )
        assert found.info.status == "FINISHED"
        steps = [m.step for m in client.get_metric_history(found.info.run_id, "loss")]
        assert steps == list(range(1, 3001))
        names = {entry.path for entry in client.list_artifacts(found.info.run_id)}
        assert {"console.log", "figures"} <= names
        (output,) = found.outputs.model_outputs
        logged = client.get_logged_model(output.model_id)
        loaded = mlflow.keras.load_model(logged.model_uri)
        mlflow.set_tracking_uri(None)
    kept = models.load(project / "data/models/v1.keras")
    for one, other in zip(loaded.get_weights(), kept.get_weights(), strict=True):
        assert (one == other).all()
    again = run(project, sys.executable, "-m", "digits", "send", PYTHONPATH="src", **address)
    assert again.stdout == "nothing to send\n"


def test_the_champion_is_on_the_server_and_answers_from_there(
    tmp_path: Path, idx_folder: Path, checksums: dict[str, str]
) -> None:
    project = make_project(tmp_path / "project", idx_folder, checksums)
    picture = Image.new("L", (60, 90), 255)
    picture.paste(0, (25, 15, 33, 75))
    picture.save(project / "one.png")
    port = free_port()
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with team_server(tmp_path / "server", port):
        done = run(project, "dvc", "repro", **address)
        assert done.returncode == 0, done.stdout + done.stderr
        mlflow.set_tracking_uri(address["MLFLOW_TRACKING_URI"])
        found = MlflowClient().search_model_versions("name = 'mnist-digits'")
        mlflow.set_tracking_uri(None)
        assert sorted(entry.tags["version"] for entry in found) == ["v1", "v2"]
        again = digits(project, "register", "--models", "data/models", **address)
        assert "stays: no other is better" in again.stdout, again.stderr
        (project / "data/models").rename(project / "data/elsewhere")
        read = digits(project, "predict", "one.png", **address)
        assert read.returncode == 0, read.stderr
        assert read.stderr.startswith("digits: mnist-digits@champion: v")
    assert not (project / "mlflow.db").exists()
    gone = digits(project, "predict", "one.png", **address)
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"digits: MLflow server http://127.0.0.1:{port}: no answer")
    assert gone.stderr.count("\n") == 1
