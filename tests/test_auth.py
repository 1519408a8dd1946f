"""A team's MLflow server with users: what a password opens, and that it is written nowhere."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
import yaml
from commands import train_command
from conftest import ROOT, TINY_PARAMS, digits, free_port
from mlflow.tracking import MlflowClient
from study_project import wait_until
from test_cluster import SERVER, answers, running

from digits.core import dataset
from digits.core.dataset import Dataset
from digits.tracking import local_store

ADMIN, ANNA, BORIS = "admin of the server", "correct horse battery", "p@ss/word:#5 & more"
SECRETS = (ANNA, BORIS, quote(BORIS, safe=""))
NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with two users beside its administrator."""
    if not SERVER.exists():
        pytest.skip("needs the server's environment: `make test-study` makes it")
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    store = ("--backend-store-uri", f"sqlite:///{folder}/team.db")
    artifacts = ("--artifacts-destination", str(folder / "artifacts"))
    variables = (
        f"MLFLOW_AUTH_CONFIG_PATH={ROOT / 'server/users.ini'}",
        f"MLFLOW_AUTH_ADMIN_PASSWORD={ADMIN}",
        "MLFLOW_FLASK_SERVER_SECRET_KEY=of this test",
    )
    serve = (str(SERVER), "server", "--app-name", "basic-auth", "--workers", "1")
    where = (*store, *artifacts, "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    with running(folder, "server", "env", *variables, *serve, *where):
        wait_until(lambda: answers(address))
        for name, password in (("anna", ANNA), ("boris", BORIS)):
            user = {"username": name, "password": password}
            create = f"{address}/api/2.0/mlflow/users/create"
            requests.post(create, json=user, auth=("admin", ADMIN), timeout=30).raise_for_status()
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset) -> Path:
    """A folder with parameters and images."""
    folder = tmp_path_factory.mktemp("project")
    dataset.save(tiny, folder / "data/mnist.npz")
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    return folder


def train_v1() -> list[str]:
    return train_command("v1", reference=str(ROOT / "metrics/report-2018.json"))


def login(address: str, user: str, password: str) -> dict[str, str]:
    """The variables that name a server and one of its users."""
    return dict(zip(NAMES, (address, user, password), strict=True))


@pytest.mark.parametrize(
    ("written", "address", "user", "password"),
    [
        ("https://host:5000", "https://host:5000", None, None),
        ("https://anna:secret@host/mlflow", "https://host/mlflow", "anna", "secret"),
        ("https://a@b.c:p%40%2F%23@host:5000/", "https://host:5000/", "a@b.c", "p@/#"),
        ("https://anna:not/en:coded#?@host:80", "https://host:80", "anna", "not/en:coded#?"),
        ("https://anna@host", "https://host", "anna", None),
        ("http://hub:8000/user/anna@b.c/", "http://hub:8000/user/anna@b.c/", None, None),
    ],
)
def test_a_login_in_the_address_moves_to_mlflows_variables(
    written: str,
    address: str,
    user: str | None,
    password: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in zip(NAMES, (written, "", ""), strict=True):
        monkeypatch.setenv(name, value)
    assert local_store.address(Path()) == address
    assert [os.environ[name] for name in NAMES] == [address, user or "", password or ""]


def test_a_password_in_a_text_is_masked() -> None:
    text = "postgresql://anna:p@ss/word@host:5432/mlflow: no; http://host:80/anna; sqlite:///a.db"
    assert local_store.without_passwords(text) == text.replace("p@ss/word", "***")


@pytest.mark.study
@pytest.mark.parametrize(
    ("variables", "who"),
    [
        ({}, "clients without a password"),
        (login("", "anna", BORIS), "user 'anna' with this password"),
    ],
)
def test_without_the_right_password_one_line_says_what_to_set_and_nothing_is_trained(
    variables: dict[str, str], who: str, address: str, project: Path
) -> None:
    refused = digits(project, *train_v1(), **variables | {"MLFLOW_TRACKING_URI": address})
    assert refused.returncode == 1
    assert refused.stderr == (
        f"digits: MLflow server {address}: refuses {who} (401): set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD to the name and the password of one of its users\n"
    )
    assert refused.stdout == ""
    assert not (project / "data/models").exists()


@pytest.mark.study
def test_one_user_trains_another_scores_and_no_password_is_written_anywhere(
    address: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = digits(project, *train_v1(), **login(address, "anna", ANNA))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    files = ["--data", "data/mnist.npz", "--models", "data/models", "--scores", "scores"]
    own = address.replace("://", f"://boris:{quote(BORIS, safe='')}@")
    scored = digits(project, "evaluate", *files, MLFLOW_TRACKING_URI=own)
    assert "mnist-digits@champion: v1 (registered version " in scored.stdout, scored.stderr
    for name, value in login(address, "boris", BORIS).items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("mnist")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("v1", "FINISHED")
    assert "test_accuracy" in run.data.metrics
    logged = client.download_artifacts(run.info.run_id, "", str(project))
    assert "console.log" in [path.name for path in Path(logged).iterdir()]
    assert not (project / "mlflow.db").exists()
    texts = [trained.stdout, trained.stderr, scored.stdout, scored.stderr, str(run.to_dictionary())]
    texts += [f.read_bytes().decode(errors="replace") for f in project.rglob("*") if f.is_file()]
    assert [text for text in texts if any(secret in text for secret in SECRETS)] == []
