"""A logged model in an environment made of its own requirements: it answers without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from conftest import TINY_PARAMS, environment, free_port, mlflow_server

from digits.core import models
from digits.core.dataset import Dataset
from digits.core.evaluation import predict_probabilities
from digits.core.schema import Params
from digits.tracking.logged_model import log_model

UV = Path(sys.executable).with_name("uv")
LARGEST = 500e6  # bytes


@pytest.mark.network
def test_the_environment_of_a_served_model_is_small_and_answers_alike(
    tmp_path: Path, tiny: Dataset
) -> None:
    params = Params.model_validate(TINY_PARAMS)
    network = models.build(params.model("v2"), 1)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with mlflow.start_run() as run:
            logged = log_model(network, params.tta["v1"], run.info.run_id)
        folder = tmp_path / "model"
        mlflow.artifacts.download_artifacts(f"models:/{logged}", dst_path=str(folder))
    finally:
        mlflow.set_tracking_uri(None)

    python = tmp_path / "environment/bin/python"
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(tmp_path / "environment")],
        ["pip", "install", "--quiet", "--python", str(python), "-r", "requirements.txt"],
    ):
        subprocess.run([UV, *command], cwd=folder, check=True)
    installed = {path.name for path in python.parents[1].glob("lib/python*/site-packages/*")}
    assert "onnxruntime" in installed
    assert not {"tensorflow", "keras", "digits"} & installed
    files = [path for path in python.parents[1].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST

    serve = ("models", "serve", "-m", "model", "--env-manager", "local")
    path = f"{python.parent}:{environment()['PATH']}"
    started = mlflow_server(tmp_path, free_port(), *serve, python=str(python), PATH=path)
    with started as (_, address):
        body = {"inputs": tiny.x_test.tolist()}
        answer = requests.post(f"{address}/invocations", json=body, timeout=60).json()
    expected = predict_probabilities(network, tiny.x_test, params.tta["v1"])
    np.testing.assert_allclose(answer["predictions"]["probabilities"], expected, atol=1e-5)
