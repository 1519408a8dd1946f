"""Runs: where they go, and how they end."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mlflow
import mlflow.store.db.utils as db_utils
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _tracking_store_registry

from digits import DigitsError
from digits.core import files
from digits.core.dataset import Dataset
from digits.tracking import outbox
from digits.tracking.connection import connect, find_run
from digits.tracking.run import MODEL_TAG, Run, start_run

another_database = pytest.mark.faults(
    "`mlflow.db` deleted, or made by an older or newer MLflow",
    "a new one is made; the older is migrated; the newer is refused with what to do",
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project's store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "a project, été"
    folder.mkdir()
    connect(folder)
    yield folder
    mlflow.set_tracking_uri(None)


def status(run: Run) -> str:
    return str(MlflowClient().get_run(run.id).info.status)


def test_the_projects_own_database_has_one_experiment_with_artifacts_beside_it(store: Path) -> None:
    (experiment,) = MlflowClient().search_experiments()
    assert experiment.name == "mnist"
    assert Path(experiment.artifact_location) == store / "mlruns" / "0"
    assert (store / "mlflow.db").is_file()


def test_connecting_twice_changes_nothing(store: Path) -> None:
    connect(store)
    assert len(MlflowClient().search_experiments()) == 1


def test_another_store_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    connect(tmp_path)
    names = {experiment.name for experiment in MlflowClient().search_experiments()}
    assert names == {"Default", "mnist"}
    mlflow.set_tracking_uri(None)


def test_a_store_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, it is a text of some length")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(DigitsError, match=r"mlflow\.db: cannot be used") as error:
        connect(tmp_path)
    assert "\n" not in str(error.value)
    mlflow.set_tracking_uri(None)


def test_a_run_that_ends_is_finished(store: Path) -> None:
    with start_run("v1") as run:
        assert status(run) == "RUNNING"
    assert status(run) == "FINISHED"
    assert MlflowClient().get_run(run.id).info.run_name == "v1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_a_run_that_does_not_end_well_says_so(
    error: type[BaseException], expected: str, store: Path
) -> None:
    with pytest.raises(error), start_run("v1") as run:
        raise error
    assert status(run) == expected


def test_the_run_of_mlflow_run_is_used_by_the_one_that_attaches(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = MlflowClient().create_run("0", run_name="spiffy-fox-7")
    MlflowClient().log_param(opened.info.run_id, "epochs", "3")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with start_run("v2", attach=True) as run:
        run.parameters({"training.epochs": 3})
    found = MlflowClient().get_run(run.id)
    assert run.id == opened.info.run_id
    assert found.info.run_name == "v2"
    assert found.data.params == {"epochs": "3", "training.epochs": "3"}


def test_the_run_of_mlflow_run_is_the_parent_of_the_others(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = MlflowClient().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with start_run("v1") as run:
        assert run.id != opened.info.run_id
    tags = MlflowClient().get_run(run.id).data.tags
    assert tags["mlflow.parentRunId"] == opened.info.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_model_file_finds_the_newest_run_that_made_it(store: Path, tmp_path: Path) -> None:
    model = tmp_path / "v1.keras"
    model.write_bytes(b"a model")
    assert find_run(model) is None
    for _ in range(2):
        with start_run("v1") as run:
            run.tags({MODEL_TAG: files.sha256(model)})
    project = tmp_path / "project"
    found = find_run(model, root=project)
    assert found is not None
    assert found.id == run.id
    assert found.unsent == project / "outbox" / run.id, "also where DVC works in a copy"


def test_a_run_that_is_gone_cannot_be_attached_to(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with (
        pytest.raises(DigitsError, match=r"MLflow: no run could be opened: .*not found"),
        start_run("v1"),
    ):
        pass


def test_a_run_whose_process_was_killed_is_closed_by_the_next_start(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from digits import tracking\n"
        "connect(Path(sys.argv[1]))\n"
        "with start_run('v1'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(store)], check=False)
    with start_run("v2") as alive:
        told: list[str] = []
        connect(store, say=told.append)
        assert told == ["MLflow run v1: its process is gone; now FAILED"]
        found = {run.info.run_name: run for run in MlflowClient().search_runs(["0"])}
        assert found["v1"].info.status == "FAILED"
        assert "killed" in found["v1"].data.tags["ended"]
        assert status(alive) == "RUNNING"


@pytest.mark.faults(
    "SIGKILL while MLflow's database is being made",
    "the next start makes it",
)
def test_a_database_is_made_whole_or_not_at_all(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    script = (
        "import sys; from pathlib import Path; from digits import tracking\n"
        "connect(Path(sys.argv[1]))\n"
        "with start_run('v1'): pass"
    )
    moments = (0, 200_000, 700_000)  # bytes; it is whole at some 950,000
    record_property("times", len(moments))
    for size in moments:
        folder = tmp_path / str(size)
        folder.mkdir()
        start = [sys.executable, "-c", script, str(folder)]
        with subprocess.Popen(start) as process:
            made = 0
            while made <= size:
                assert process.poll() is None
                with suppress(FileNotFoundError):  # put in place meanwhile
                    made = max([0, *(file.stat().st_size for file in folder.glob("*mlflow.db"))])
            process.kill()
        again = subprocess.run(start, check=False, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            found = database.execute("SELECT name, artifact_location FROM experiments").fetchall()
        assert found == [("mnist", str(folder / "mlruns/0"))]
        assert not list(folder.glob(".partial-*"))


@another_database
def test_a_database_of_an_older_mlflow_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    engine = db_utils.create_sqlalchemy_engine_with_retry(address)
    db_utils.InitialBase.metadata.create_all(engine)
    scripts = ScriptDirectory.from_config(db_utils._get_alembic_config(address))
    command.upgrade(
        db_utils._get_alembic_config(address), list(scripts.walk_revisions())[3].revision
    )
    engine.dispose()
    connect(tmp_path)
    with start_run("v1") as run:
        pass
    assert status(run) == "FINISHED"
    mlflow.set_tracking_uri(None)


@another_database
def test_a_database_of_a_newer_mlflow_is_refused_with_what_to_do(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    SqlAlchemyStore._engine_map.clear()
    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    with pytest.raises(DigitsError, match="newer MLflow than this: use that one, or move the"):
        connect(store)


def test_images_that_another_run_logs_at_the_same_moment_are_logged(
    store: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs look for them, both add them, and MLflow refuses the second."""
    log_inputs = MlflowClient.log_inputs
    with start_run("v1") as first:
        pass

    def late(client: MlflowClient, run_id: str, *inputs: Any) -> None:
        monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
        log_inputs(client, first.id, *inputs)
        raise MlflowException("UNIQUE constraint failed: datasets.name")

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    with start_run("v2") as second:
        second.datasets(tiny, "mnist", ["somewhere"], "a" * 64)
    for run in (first, second):
        assert len(MlflowClient().get_run(run.id).inputs.dataset_inputs) == 2


def test_what_was_kept_is_sent_as_far_as_a_killed_process_came(store: Path) -> None:
    with start_run("v1") as run:
        pass
    folder = store / "outbox" / run.id
    outbox.keep(folder, {"metrics": [("loss", 0.5, 1, 1), ("loss", 0.25, 2, 2)], "model": None})
    outbox.keep(folder, {"text": "said", "name": "console.log"})
    with (folder / outbox.JOURNAL).open("a") as journal:
        journal.write('{"status": "FINI')
    assert list(outbox.pending(store / "outbox")) == [folder]
    assert outbox.send(folder, lambda path: None) == 2
    client = MlflowClient()
    assert [m.value for m in client.get_metric_history(run.id, "loss")] == [0.5, 0.25]
    assert [found.path for found in client.list_artifacts(run.id)] == ["console.log"]
    assert not folder.exists()


def test_the_projects_database_lets_others_read_while_one_writes(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@another_database
def test_a_deleted_database_is_made_anew_whatever_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite keeps the newest in a second file, which it would replay into a new database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    script = (
        "import os, sys; from pathlib import Path; from digits import tracking\n"
        "connect(Path(sys.argv[1]))\n"
        "with start_run('v1'): pass\n"
        "os._exit(0)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True)
    assert (tmp_path / "mlflow.db-wal").stat().st_size > 0
    (tmp_path / "mlflow.db").unlink()
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("v1", "FINISHED")]
