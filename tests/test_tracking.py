"""Runs: where they go, and how they end."""

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from digits import DigitsError, files, tracking


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project's store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "a project, été"
    folder.mkdir()
    tracking.connect(folder)
    yield folder
    mlflow.set_tracking_uri(None)


def status(run: tracking.Run) -> str:
    return str(MlflowClient().get_run(run.id).info.status)


def test_the_projects_own_database_has_one_experiment_with_artifacts_beside_it(store: Path) -> None:
    (experiment,) = MlflowClient().search_experiments()
    assert experiment.name == "mnist"
    assert Path(experiment.artifact_location) == store / "mlruns" / "0"
    assert (store / "mlflow.db").is_file()


def test_connecting_twice_changes_nothing(store: Path) -> None:
    tracking.connect(store)
    assert len(MlflowClient().search_experiments()) == 1


def test_another_store_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    tracking.connect(tmp_path)
    names = {experiment.name for experiment in MlflowClient().search_experiments()}
    assert names == {"Default", "mnist"}
    mlflow.set_tracking_uri(None)


def test_a_store_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, it is a text of some length")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(DigitsError, match=r"mlflow\.db: cannot be used") as error:
        tracking.connect(tmp_path)
    assert "\n" not in str(error.value)
    mlflow.set_tracking_uri(None)


def test_a_run_that_ends_is_finished(store: Path) -> None:
    with tracking.start("v1") as run:
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
    with pytest.raises(error), tracking.start("v1") as run:
        raise error
    assert status(run) == expected


def test_the_run_of_mlflow_run_is_used_by_the_one_that_attaches(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = MlflowClient().create_run("0", run_name="spiffy-fox-7")
    MlflowClient().log_param(opened.info.run_id, "epochs", "3")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with tracking.start("v2", attach=True) as run:
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
    with tracking.start("v1") as run:
        assert run.id != opened.info.run_id
    tags = MlflowClient().get_run(run.id).data.tags
    assert tags["mlflow.parentRunId"] == opened.info.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_model_file_finds_the_newest_run_that_made_it(store: Path, tmp_path: Path) -> None:
    model = tmp_path / "v1.keras"
    model.write_bytes(b"a model")
    assert tracking.find(model) is None
    for _ in range(2):
        with tracking.start("v1") as run:
            run.tags({tracking.MODEL_TAG: files.sha256(model)})
    found = tracking.find(model)
    assert found is not None
    assert found.id == run.id


def test_a_run_that_is_gone_cannot_be_attached_to(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with (
        pytest.raises(DigitsError, match=r"MLflow: no run could be opened: .*not found"),
        tracking.start("v1"),
    ):
        pass
