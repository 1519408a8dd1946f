"""Where runs are stored: whether a server answers, and databases that were moved."""

import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT, digits

from digits import DigitsError
from digits.tracking import local_store


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def absent_server() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.faults(
    "MLflow server unreachable or silent at the start",
    "said within 10 s; nothing is trained",
)
@pytest.mark.parametrize("which", ["silent_server", "absent_server"])
def test_a_server_that_does_not_answer_is_an_error_within_ten_seconds_and_before_any_work(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = request.getfixturevalue(which)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    names = ("data", "reference", "model.keras", "history", "timing", "machine")
    options = [
        part for name in names for part in (f"--{Path(name).stem}", str(tmp_path / "none" / name))
    ]
    start = time.monotonic()
    done = digits(tmp_path, "train", "v1", *options, MLFLOW_TRACKING_URI=address)
    assert time.monotonic() - start < 10
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"digits: MLflow server {address}: no answer")
    assert not (tmp_path / "none").exists()


def test_a_local_store_needs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert local_store.address(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert local_store.is_own(tmp_path)
    local_store.check(local_store.address(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert local_store.address(tmp_path) == "http://127.0.0.1:5000"
    assert not local_store.is_own(tmp_path)


def make_database(folder: Path, made_in: str) -> None:
    """Write a database as MLflow would have made it in another folder."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in local_store.LOCATIONS:
            database.execute(f"CREATE TABLE {table} (experiment_id, {column})")
        for table, place in (("experiments", "0"), ("runs", "0/a"), ("logged_models", "0/models")):
            column = dict(local_store.LOCATIONS)[table]
            database.execute(
                f"INSERT INTO {table} (experiment_id, {column}) VALUES (0, ?)",
                (f"{made_in}/mlruns/{place}",),
            )
        database.execute("INSERT INTO runs VALUES (1, 's3://bucket/mlruns/0/b')")


def locations(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return {
            row[0]
            for table, column in local_store.LOCATIONS
            for row in database.execute(f"SELECT {column} FROM {table}")
        }


def test_a_moved_database_finds_its_artifacts_beside_itself(tmp_path: Path) -> None:
    folder = tmp_path / "é new 100% place"
    folder.mkdir()
    make_database(folder, "/was/100%_here")
    assert local_store.relocate(folder) == Path("/was/100%_here")
    artifacts = folder / "mlruns"
    assert locations(folder) == {
        *(str(artifacts / place) for place in ("0", "0/a", "0/models")),
        "s3://bucket/mlruns/0/b",
    }
    assert local_store.relocate(folder) is None


def test_a_database_that_mlflow_ui_made_stores_new_artifacts_beside_itself(tmp_path: Path) -> None:
    make_database(tmp_path, "/somewhere")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
        database.execute("UPDATE runs SET artifact_uri = 'mlflow-artifacts:/0/a'")
    assert local_store.relocate(tmp_path) is None
    assert locations(tmp_path) == {
        str(tmp_path / "mlruns/0"),
        "mlflow-artifacts:/0/a",
        "/somewhere/mlruns/0/models",
    }


def test_without_a_database_there_is_nothing_to_move(tmp_path: Path) -> None:
    assert local_store.relocate(tmp_path) is None
    assert not (tmp_path / "mlflow.db").exists()


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, it is a text of some length")
    with pytest.raises(DigitsError, match=r"mlflow\.db: cannot be used: file is not a database"):
        local_store.relocate(tmp_path)
