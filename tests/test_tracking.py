"""MLflow runs: where they are stored, what they hold, and how they end."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mlflow
import mlflow.store.db.utils as db_utils
import psutil
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from conftest import copy_database, environment
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _tracking_store_registry
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from digits import DigitsError
from digits.core import files
from digits.core.dataset import Dataset
from digits.tracking import connection, local_store, machine, notes, outbox
from digits.tracking.connection import KIND, KIND_TAG, describe_run, find_run
from digits.tracking.run import (
    ABANDONED,
    ENDED_TAG,
    MODEL_TAG,
    PROCESS_TAG,
    Run,
    attached_run,
    start_run,
)

SOURCE = CodeDatasetSource({"sources": "somewhere"})

another_database = pytest.mark.faults(
    "`mlflow.db` deleted, or made by an older or newer MLflow",
    "a new one is made; the older is migrated; the newer is refused with what to do",
)


@pytest.fixture(autouse=True)
def _disconnect(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)


def connect(folder: Path, log: Callable[[str], object] = print) -> None:
    """Connect this process as a new process would be, though MLflow has set the variable."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    connection.connect(folder, log)


@pytest.fixture
def store(new_database: Path, tmp_path: Path) -> Path:
    """The folder of a project to whose empty database this process is connected."""
    folder = tmp_path / "a project, été"
    folder.mkdir()
    copy_database(new_database, folder)
    connect(folder)
    return folder


def logged(run: Run) -> Any:
    return MlflowClient().get_run(run.id)


def query(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(sql).fetchall()


def test_the_projects_own_database_has_one_experiment_with_artifacts_beside_it(
    tmp_path: Path,
) -> None:
    connect(tmp_path)
    (experiment,) = MlflowClient().search_experiments()
    assert experiment.name == "mnist"
    assert Path(experiment.artifact_location) == tmp_path / "mlruns" / "0"
    assert (tmp_path / "mlflow.db").is_file()
    connect(tmp_path)
    assert len(MlflowClient().search_experiments()) == 1, "connecting again changes nothing"


def test_the_experiment_is_of_the_kind_model_training_unless_a_user_chose_another(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    assert client.get_experiment("0").tags[KIND_TAG] == KIND
    client.delete_experiment_tag("0", KIND_TAG)
    connect(store)
    assert client.get_experiment("0").tags[KIND_TAG] == KIND, "of a database made before"
    client.set_experiment_tag("0", KIND_TAG, "regression")
    connect(store)
    assert client.get_experiment("0").tags[KIND_TAG] == "regression"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    connection.connect(tmp_path)
    kinds = {e.name: e.tags.get(KIND_TAG) for e in MlflowClient().search_experiments()}
    assert kinds == {"Default": None, "mnist": KIND}, "another store is used as it is"


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, it is a text of some length")
    with pytest.raises(DigitsError, match=r"mlflow\.db: cannot be used") as error:
        connect(tmp_path)
    assert "\n" not in str(error.value)


def test_others_can_read_the_projects_database_while_one_writes(store: Path) -> None:
    assert query(store / "mlflow.db", "PRAGMA journal_mode") == [("wal",)]


def test_a_moved_database_is_repaired_and_the_user_told(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    moved = store.rename(tmp_path / "moved")
    connect(moved, log=lines.append)
    assert lines == [f"{moved}/mlflow.db: was made in {store}; its artifacts are here now"]


def test_a_run_that_ends_is_finished(store: Path) -> None:
    with start_run("v1") as run:
        assert logged(run).info.status == "RUNNING"
    assert logged(run).info.status == "FINISHED"
    assert logged(run).info.run_name == "v1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_a_run_that_is_interrupted_or_fails_has_that_status(
    error: type[BaseException], expected: str, store: Path
) -> None:
    with pytest.raises(error), start_run("v1") as run:
        raise error
    assert logged(run).info.status == expected
    assert logged(run).data.tags.get("interrupted") == ("true" if expected == "KILLED" else None)


def test_what_is_logged_is_in_the_run(store: Path, tiny: Dataset) -> None:
    with start_run("v1", root=store) as run:
        run.tags({"version": "v1"})
        run.parameters({"training.epochs": 3})
        for step in (1, 2):
            run.metrics({"loss": 1 / step, "accuracy": 0.5}, step=step)
        run.metrics({"training_seconds": 2})
        run.datasets(tiny, "mnist", SOURCE)
        run.image(b"a PNG file", "confusion.png")
        run.text("v1: trained\n", "console.log")
    data, inputs = logged(run).data, logged(run).inputs.dataset_inputs
    assert data.tags["version"] == "v1"
    assert data.params == {"training.epochs": "3"}
    history = MlflowClient().get_metric_history(run.id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1), (2, 0.5)]
    assert data.metrics["training_seconds"] == 2
    assert {part.dataset.name: part.dataset.digest for part in inputs} == {
        "mnist-training": tiny.digest("train")[:32],
        "mnist-testing": tiny.digest("test")[:32],
    }
    artifacts = store / "mlruns/0" / run.id / "artifacts"
    assert (artifacts / "figures/confusion.png").read_bytes() == b"a PNG file"
    assert (artifacts / "console.log").read_text() == "v1: trained\n"
    assert not run.outbox_folder.exists()


def test_metrics_of_epochs_are_sent_at_most_once_a_second(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    record = outbox.record

    def count(client: MlflowClient, run_id: str, entry: outbox.Entry) -> None:
        calls.append(len(entry.get("metrics", [])))
        record(client, run_id, entry)

    with start_run("v1") as run:
        monkeypatch.setattr(outbox, "record", count)
        for step in range(1, 101):
            run.metrics({"loss": 1 / step}, step=step)
        assert calls == [1]
    assert calls[:2] == [1, 99]


def test_a_closed_run_is_opened_again(store: Path) -> None:
    with pytest.raises(ValueError, match="no"), start_run("study") as first:
        raise ValueError("no")
    with start_run("study", resume=first.id) as again:
        assert logged(again).info.status == "RUNNING"
    assert again.id == first.id
    assert logged(again).info.status == "FINISHED"


def test_the_run_of_mlflow_run_is_used_by_the_one_that_attaches(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = MlflowClient().create_run("0", run_name="spiffy-fox-7")
    MlflowClient().log_param(opened.info.run_id, "epochs", "3")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with start_run("v2", attach=True) as run:
        run.parameters({"training.epochs": 3})
    assert run.id == opened.info.run_id
    assert logged(run).info.run_name == "v2"
    assert logged(run).data.params == {"epochs": "3", "training.epochs": "3"}


def test_the_run_of_mlflow_run_is_the_parent_of_the_others(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = MlflowClient().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with start_run("v1") as run:
        assert run.id != opened.info.run_id
    assert logged(run).data.tags["mlflow.parentRunId"] == opened.info.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


def test_only_a_process_of_mlflow_run_has_a_run_to_attach_to(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with attached_run("evaluate") as none:
        assert none is None
    opened = MlflowClient().create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with attached_run("evaluate", wanted=False) as unwanted:
        assert unwanted is None
    with attached_run("evaluate") as run:
        assert run is not None
        assert run.id == opened.info.run_id


def test_a_run_that_does_not_exist_cannot_be_attached_to(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with (
        pytest.raises(DigitsError, match=r"MLflow: no run could be opened: .*not found"),
        start_run("v1"),
    ):
        pass


def test_a_model_file_finds_the_newest_run_that_made_it(store: Path, tmp_path: Path) -> None:
    model = tmp_path / "v1.keras"
    model.write_bytes(b"a model")
    assert find_run(model) is None
    for _ in range(2):
        with start_run("v1") as run:
            run.tags({MODEL_TAG: files.sha256(model), "git.commit": "a" * 40})
    project = tmp_path / "project"
    newest = find_run(model, root=project)
    assert newest is not None
    assert newest.id == run.id
    assert newest.outbox_folder == project / "outbox" / run.id, "also where DVC works in a copy"
    assert describe_run(newest.id).startswith(f"run {run.id} (v1) of 20")
    assert describe_run(newest.id).endswith(" UTC, commit aaaaaaa")


def test_a_run_whose_process_was_killed_is_closed_by_the_next_start(store: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        process_id = machine.process_id(psutil.Process(process.pid))
        process.kill()
    client = MlflowClient()
    killed = client.create_run("0", run_name="v1", tags={PROCESS_TAG: process_id})
    client.create_run("0", run_name="of another tool")
    client.create_run("0", run_name="of another machine", tags={PROCESS_TAG: "elsewhere 1 1.0"})
    with start_run("v2") as alive:
        lines: list[str] = []
        connect(store, log=lines.append)
        assert lines == ["MLflow run v1: its process is gone; now FAILED"]
        assert logged(alive).info.status == "RUNNING"
    after = client.get_run(killed.info.run_id)
    assert after.info.status == "FAILED"
    assert "killed" in after.data.tags["ended"]
    names = {run.info.run_name for run in client.search_runs(["0"], "status = 'RUNNING'")}
    assert names == {"of another tool", "of another machine"}


def test_a_run_that_goes_on_sheds_the_tag_of_a_run_whose_process_is_gone(store: Path) -> None:
    with start_run("v1") as run:
        client = MlflowClient()
        client.set_tag(run.id, ENDED_TAG, ABANDONED)
        client.set_terminated(run.id, "FAILED")
    assert logged(run).info.status == "FINISHED"
    assert ENDED_TAG not in logged(run).data.tags


def test_a_run_that_waits_in_the_outbox_is_not_abandoned(store: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        tags = {PROCESS_TAG: machine.process_id(psutil.Process(process.pid))}
        process.kill()
    waiting = MlflowClient().create_run("0", run_name="v1", tags=tags).info.run_id
    (store / "outbox" / waiting).mkdir(parents=True)
    connect(store)
    assert MlflowClient().get_run(waiting).info.status == "RUNNING"


def test_images_that_another_run_logs_at_the_same_moment_are_logged(
    store: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs look them up, both add them, and MLflow refuses the second."""
    log_inputs = MlflowClient.log_inputs
    with start_run("v1") as first:
        pass

    def late(client: MlflowClient, run_id: str, *inputs: Any) -> None:
        monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
        log_inputs(client, first.id, *inputs)
        raise MlflowException("UNIQUE constraint failed: datasets.name")

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    with start_run("v2") as second:
        second.datasets(tiny, "mnist", SOURCE)
    for run in (first, second):
        assert len(logged(run).inputs.dataset_inputs) == 2


def test_two_processes_that_create_the_experiment_at_once_do_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store that is not the project's own, which no file locks."""
    create_experiment = MlflowClient.create_experiment

    def late(client: MlflowClient, name: str, **more: Any) -> None:
        monkeypatch.setattr(MlflowClient, "create_experiment", create_experiment)
        create_experiment(client, name, **more)
        raise MlflowException(f"Experiment(name={name}) already exists.")

    monkeypatch.setattr(MlflowClient, "create_experiment", late)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    connection.connect(tmp_path)
    (experiment,) = MlflowClient().search_experiments(filter_string="name = 'mnist'")
    assert connection.KIND_TAG in experiment.tags


def test_two_runs_that_describe_their_experiment_at_once_do_not_fail(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_experiment_tag = MlflowClient.set_experiment_tag

    def late(client: MlflowClient, *tag: Any) -> None:
        monkeypatch.setattr(MlflowClient, "set_experiment_tag", set_experiment_tag)
        raise MlflowException("UNIQUE constraint failed: experiment_tags.key")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", late)
    run = log_training("v1")
    assert "v1" in MlflowClient().get_experiment(logged(run).info.experiment_id).tags[NOTE]


COMMIT = "c" * 40


def log_training(
    version: str,
    accuracy: float = 0.97,
    tags: Mapping[str, str] | None = None,
    reported: float | None = 0.975,
) -> Run:
    """Log what a description needs of a training and its scores."""
    common = {"version": version, "stage": f"train@{version}", "processor": "EPYC"}
    git = {"git.commit": COMMIT, "git.dirty": "false"}
    with start_run(version) as run:
        run.tags({**common, **git, **(tags or {})})
        if reported:
            run.tags({"reported_2018.test_accuracy": reported})
        run.parameters({"training.seed": 1, "training.epochs": 3, "training.batch_size": 8})
        errors = round(10_000 * (1 - accuracy))
        run.metrics({"training_seconds": 4.04, "test_accuracy": accuracy, "test_errors": errors})
    return run


def description(run: Run) -> str:
    return str(logged(run).data.tags[NOTE])


def experiment_description() -> str:
    return str(MlflowClient().get_experiment("0").tags[NOTE])


def test_the_description_of_a_run_has_its_result_and_how_to_repeat_it(store: Path) -> None:
    text = description(log_training("v1"))
    assert text.startswith("**Test accuracy 97.00 % (300 errors).** Trained in 4.0 s on EPYC. ")
    assert f"To repeat it:\n\n    git checkout {COMMIT}\n    dvc repro -f train@v1\n" in text
    assert text.endswith(notes.LAST_LINE)


@pytest.mark.parametrize(
    ("tags", "commands"),
    [
        (
            {"stage": "mlflow run"},
            f"    git checkout {COMMIT}\n"
            "    mlflow run . -P version=v2 -P seed=1 -P epochs=3 \\\n      -P batch_size=8\n",
        ),
        (
            {"dvc.experiment": "wide-net", "dvc.baseline": "b" * 40, "git.dirty": "true"},
            f"    git checkout {'b' * 40}\n    dvc exp apply wide-net\n    dvc repro -f train@v2\n",
        ),
        (
            {"stage": "study", "study": "seeds", "trial": "v2-1"},
            f"    git checkout {COMMIT}\n"
            "    digits study run studies/seeds.yaml --out seeds-again\n",
        ),
        (
            {"git.dirty": "true"},
            f"    git checkout {COMMIT}\n    dvc repro -f train@v2\n\n"
            "Files differed from that commit, so the result may differ too.\n",
        ),
        ({"git.commit": "none"}, "    dvc repro -f train@v2\n"),
    ],
)
def test_how_to_repeat_a_run_depends_on_what_started_it(
    tags: dict[str, str], commands: str, store: Path
) -> None:
    text = description(log_training("v2", tags=tags))
    assert text.partition("To repeat it:\n\n")[2] == f"{commands}\n{notes.LAST_LINE}"


def test_a_run_of_anything_else_gets_no_description(store: Path) -> None:
    with start_run("evaluate") as run:
        run.metrics({"v1.test_accuracy": 0.97})
    assert NOTE not in logged(run).data.tags
    assert NOTE not in MlflowClient().get_experiment("0").tags


def test_the_experiments_description_compares_the_newest_runs_with_2018(store: Path) -> None:
    log_training("v1", 0.9)
    v2, v1 = log_training("v2", 0.97), log_training("v1", 0.98)
    log_training("v1", 0.5, {"stage": "mlflow run"})
    log_training("v1", 0.4, {"dvc.experiment": "wide-net"})
    log_training("v1", 0.3, {"study": "seeds", "trial": "v1-1"})
    text = experiment_description()
    assert text.startswith(
        "**Better than reported in 2018: v1.** **Not better than reported in 2018: v2.** "
    )
    assert (
        f"- [v1](#/experiments/0/runs/{v1.id}): test accuracy 98.00 %, 200 errors; 2018 reported "
        "97.50 %, so the difference is +0.50 points\n"
        f"- [v2](#/experiments/0/runs/{v2.id}): test accuracy 97.00 %, 300 errors; 2018 reported "
        "97.50 %, so the difference is -0.50 points\n\n"
    ) in text
    assert text.endswith(notes.LAST_LINE)


def test_a_version_without_a_run_of_the_pipeline_is_that_of_mlflow_run(store: Path) -> None:
    log_training("v4", 0.9, {"stage": "mlflow run"}, reported=None)
    assert "): test accuracy 90.00 %, 1000 errors\n" in experiment_description()
    assert "2018" not in experiment_description()


def test_a_description_that_a_user_wrote_stays(store: Path) -> None:
    client, run = MlflowClient(), log_training("v1")
    client.set_tag(run.id, NOTE, f"{description(run)}\n")
    run.metrics({"test_accuracy": 0.99, "test_errors": 100})
    run.describe()
    assert "99.00 % (100 errors)" in description(run), "its own, saved by a browser, is updated"
    client.set_tag(run.id, NOTE, f"{description(run)} Too slow.")
    client.set_experiment_tag("0", NOTE, "Ours.")
    run.metrics({"test_accuracy": 0.5, "test_errors": 5000})
    run.describe()
    assert description(run).endswith(" Too slow.")
    assert "99.00 % (100 errors)" in description(run)
    assert experiment_description() == "Ours."


def test_only_the_projects_experiment_is_described(store: Path) -> None:
    other = MlflowClient().create_experiment("of another team")
    opened = MlflowClient().create_run(other)
    with start_run("v1", resume=opened.info.run_id) as run:
        run.tags({"stage": "mlflow run", "version": "v1", "git.commit": "none"})
    assert NOTE in logged(run).data.tags
    assert NOTE not in MlflowClient().get_experiment(other).tags


def test_a_run_goes_on_without_its_server_and_is_sent_when_it_is_back(
    store: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's own database stands for the server here; test_server.py has a real one."""
    lines: list[str] = []

    def lost(*arguments: Any, **options: Any) -> None:
        raise MlflowException("Connection refused\nby the server")

    with start_run("v1", root=store, log=lines.append) as run:
        with monkeypatch.context() as gone:
            gone.setattr(local_store, "is_remote", lambda address: True)
            gone.setattr(MlflowClient, "log_batch", lost)
            run.parameters({"training.epochs": 2})
        run.tags({"version": "v1", "stage": "train@v1", "git.commit": COMMIT})
        run.metrics({"loss": 0.5}, step=1)
        run.metrics({"loss": 0.25}, step=2)
        run.datasets(tiny, "mnist", SOURCE)
        run.image(b"a PNG file", "confusion.png")
        run.text("v1: trained\n", "console.log")
    (line,) = lines
    assert "gone" in line
    assert "`digits send`" in line
    assert logged(run).data.params == {}
    assert outbox.pending(store / "outbox") == [run.outbox_folder]
    entries = (run.outbox_folder / outbox.JOURNAL).read_text().splitlines()
    assert outbox.send(run.outbox_folder) == len(entries)
    assert logged(run).info.status == "FINISHED"
    assert logged(run).data.params == {"training.epochs": "2"}
    assert logged(run).data.tags["version"] == "v1"
    history = MlflowClient().get_metric_history(run.id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    assert len(logged(run).inputs.dataset_inputs) == 2
    assert "dvc repro -f train@v1" in description(run)
    artifacts = store / "mlruns/0" / run.id / "artifacts"
    assert (artifacts / "figures/confusion.png").read_bytes() == b"a PNG file"
    assert outbox.pending(store / "outbox") == []


def test_without_its_own_database_a_run_fails(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise MlflowException("database or disk is full")

    monkeypatch.setattr(MlflowClient, "log_batch", full)
    with pytest.raises(DigitsError, match=r"mlflow\.db: database or disk is full"):
        Run("0" * 32).tags({"version": "v1"})


def test_entries_are_sent_as_far_as_a_killed_process_wrote_them(store: Path) -> None:
    with start_run("v1") as run:
        pass
    folder = store / "outbox" / run.id
    # Earlier code wrote no images into a row; nor does this of an epoch.
    outbox.append(folder, {"metrics": [("loss", 0.5, 1, 1), ("loss", 0.25, 2, 2)], "model": None})
    with (folder / outbox.JOURNAL).open("a") as journal:
        journal.write('{"status": "FINI')
    assert outbox.send(folder) == 1
    history = MlflowClient().get_metric_history(run.id, "loss")
    assert [metric.value for metric in history] == [0.5, 0.25]
    assert not folder.exists()


def test_entries_that_cannot_be_sent_stay(store: Path) -> None:
    folder = store / "outbox" / ("0" * 32)
    outbox.append(folder, {"tags": {"version": "v1"}})
    with pytest.raises(DigitsError, match=r"outbox/0+: not sent, and stays there: .*not found"):
        outbox.send(folder)
    (line,) = (folder / outbox.JOURNAL).read_text().splitlines()
    assert json.loads(line) == {"tags": {"version": "v1"}}


@pytest.mark.faults(
    "SIGKILL while MLflow's database is being made",
    "the next start makes it",
)
def test_a_database_is_made_whole_or_not_at_all(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    script = (
        "import sys; from pathlib import Path; from digits.tracking.connection import connect\n"
        "connect(Path(sys.argv[1]))"
    )
    moments = (0, 200_000, 700_000)  # bytes; the whole database has some 950,000
    record_property("times", len(moments))
    for moment in moments:
        folder = tmp_path / str(moment)
        folder.mkdir()
        start = [sys.executable, "-c", script, str(folder)]
        with subprocess.Popen(start, env=environment()) as process:
            size = 0
            while size <= moment:
                assert process.poll() is None
                time.sleep(0.001)
                with suppress(FileNotFoundError):  # It may be put in place meanwhile.
                    size = max([0, *(file.stat().st_size for file in folder.glob("*mlflow.db"))])
            process.kill()
        connect(folder)
        with start_run("v1"):
            pass
        rows = query(folder / "mlflow.db", "SELECT name, artifact_location FROM experiments")
        assert rows == [("mnist", str(folder / "mlruns/0"))]
        assert not list(folder.glob(".partial-*"))


@another_database
def test_a_database_of_an_older_mlflow_is_migrated(tmp_path: Path) -> None:
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
    assert logged(run).info.status == "FINISHED"


@another_database
def test_a_database_of_a_newer_mlflow_is_refused_with_what_to_do(store: Path) -> None:
    query(store / "mlflow.db", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    SqlAlchemyStore._engine_map.clear()
    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    with pytest.raises(DigitsError, match="newer MLflow than this: use that one, or move the"):
        connect(store)


@another_database
def test_a_deleted_database_is_made_anew_whatever_of_it_is_left(
    store: Path, tmp_path: Path
) -> None:
    """SQLite writes the newest changes to a second file, and would replay them into a new one."""
    with closing(sqlite3.connect(store / "mlflow.db")), start_run("v0"):
        left = (store / "mlflow.db-wal").read_bytes()
    assert len(left) > 0
    folder = tmp_path / "deleted"
    folder.mkdir()
    (folder / "mlflow.db-wal").write_bytes(left)
    connect(folder)
    with start_run("v1"):
        pass
    rows = query(folder / "mlflow.db", "SELECT name, status FROM runs")
    assert rows == [("v1", "FINISHED")]
