"""One trial of a study, in this process: the row it returns, and its run in MLflow."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import TINY_MODELS, TINY_PARAMS, copy_database
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from digits import THREADS
from digits.core.dataset import Dataset
from digits.core.models import load
from digits.core.training import train_model
from digits.study.results import Row, read_trials, write_trials
from digits.study.spec import Study, StudySpec, Trial
from digits.study.trial import RunContext, TrialPrunedError, run_trial
from digits.tracking import local_store, nested_runs
from digits.tracking.connection import connect
from digits.tracking.run import start_run

TRIAL = Trial("v1-4", "v1", 4)


@pytest.fixture
def raw() -> dict[str, Any]:
    """The contents of params.yaml."""
    return TINY_PARAMS


@pytest.fixture
def spec(raw: dict[str, Any]) -> StudySpec:
    return StudySpec("some", Study(seeds={"v1": 1}, models=True), raw)


@pytest.fixture
def context(
    tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunContext]:
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    store = local_store.own_address(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    copy_database(new_database, tmp_path)
    connect(tmp_path)
    with start_run("some", root=tmp_path) as parent:
        parent.tags({"study": "some"})
    context = RunContext(store, tmp_path, tmp_path / "state", {"study": "some"})
    yield replace(context, parent=parent.id)
    mlflow.set_tracking_uri(None)


def child() -> Run:
    (run,) = MlflowClient().search_runs(["0"], "attributes.run_name = 'v1-4'")
    return run


def test_a_trial_returns_the_row_that_its_run_has(
    spec: StudySpec, context: RunContext, tiny: Dataset, tmp_path: Path
) -> None:
    reported: list[tuple[Mapping[str, float], Row]] = []
    row = run_trial(TRIAL, spec, tiny, context, "here", lambda *epoch: reported.append(epoch))
    assert row
    losses = row["metrics"]["loss"]
    assert [round(metrics["loss"], 6) for metrics, _ in reported] == losses
    so_far = [(row_so_far["pruned"], row_so_far["metrics"]["loss"]) for _, row_so_far in reported]
    assert so_far == [(True, losses[:epochs]) for epochs in (1, 2, 3)]
    assert (row["version"], row["seed"], row["threads"], row["epochs"]) == ("v1", 4, 1, 3)
    assert set(row["test"]) == {"loss", "accuracy", "errors", "errors_without_tta"}
    assert row["seconds"] > 0
    assert row["machine"]["cores"]
    run = child()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == context.parent
    assert (run.data.tags["study"], run.data.tags["node"]) == ("some", "here")
    assert run.data.params["training.seed"] == "4"
    assert run.data.metrics["test_errors"] == row["test"]["errors"]
    artifact = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/trial.json")
    assert artifact == json.loads(json.dumps(row))
    assert nested_runs.artifacts(context.parent, "trial.json") == [artifact]
    assert nested_runs.artifacts(context.parent, "trial.json", exclude=["v1-4"]) == []

    write_trials(tmp_path / "trials.csv", [row])
    assert read_trials(tmp_path / "trials.csv") == [row]

    (output,) = run.outputs.model_outputs
    metrics = MlflowClient().get_logged_model(output.model_id).metrics
    images = {metric.key: (metric.dataset_name, metric.dataset_digest) for metric in metrics}
    assert images["test_errors"] == ("mnist-testing", tiny.digest("test")[:32])
    saved = load(context.state / "models/v1-4.keras")
    trained = train_model("v1", spec.params(TRIAL), tiny, seed=4)
    for one, other in zip(saved.get_weights(), trained.network.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes(), "a trial is our ordinary training"


def test_a_candidate_is_scored_on_held_out_images(
    raw: dict[str, Any], context: RunContext, tiny: Dataset
) -> None:
    candidates = {
        "validation": 20,
        "reference": "little",
        "tta": {"turned": [{"rotation": -5}, {"rotation": 5}]},
        "models": {"little": TINY_MODELS["v2"]},
    }
    spec = StudySpec("some", Study.model_validate({"candidates": candidates}), raw)
    blank = Dataset(tiny.x_train, tiny.y_train, tiny.x_test * 0, tiny.y_test * 0)
    rows = [run_trial(spec.trials()[0], spec, data, context) for data in (tiny, blank)]
    row, of_blank = rows
    assert row
    assert of_blank
    assert list(row["errors"]) == ["as_is", "turned"]
    assert len(row["missed"]) == row["errors"]["as_is"] <= 20
    assert set(row["metrics"]) == {"loss", "accuracy"}, "the held-out images are scored once"
    assert (row["test"], row["epochs"]) == ({}, 2)
    compared = ("metrics", "errors", "loss", "missed", "tflop")
    assert [of_blank[key] for key in compared] == [row[key] for key in compared], (
        "the test images make no difference"
    )
    assert not (context.state / "models").exists(), "networks are saved where the study asks for it"


def test_a_pruned_trial_ends_well_and_says_so(
    spec: StudySpec, context: RunContext, tiny: Dataset
) -> None:
    def prune(metrics: Mapping[str, float], row: Row) -> None:
        raise TrialPrunedError

    assert run_trial(TRIAL, spec, tiny, context, report=prune) is None
    assert child().info.status == "FINISHED"
    assert child().data.tags["ended"] == "pruned, because others did better"
    assert nested_runs.artifacts(context.parent, "trial.json") == []


def test_a_trial_that_its_study_closed_has_no_result(
    spec: StudySpec, context: RunContext, tiny: Dataset
) -> None:
    def close(metrics: Mapping[str, float], row: Row) -> None:
        nested_runs.close_open(context.parent, "KILLED", "the study was interrupted")

    with pytest.raises(KeyboardInterrupt):
        run_trial(TRIAL, spec, tiny, context, report=close)
    assert child().info.status == "KILLED"
    assert nested_runs.artifacts(context.parent, "trial.json") == []


def test_the_run_of_a_study_is_found_again(context: RunContext) -> None:
    assert nested_runs.find_parent("some", even_finished=True) == context.parent
    assert nested_runs.find_parent("some", even_finished=False) is None
    assert nested_runs.find_parent("other", even_finished=True) is None
