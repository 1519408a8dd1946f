"""One trial of a study, in this process: what it returns, and what its run becomes."""

import json
from collections.abc import Mapping
from pathlib import Path

import mlflow
import pytest
from conftest import TINY_PARAMS
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from digits.core.dataset import Dataset
from digits.study.spec import Plan, Study, Trial
from digits.study.trial import RunContext, train
from digits.tracking import local_store, nested_runs
from digits.tracking.connection import connect
from digits.tracking.run import Run, start_run

TRIAL = Trial("v1-4", "v1", 4)


@pytest.fixture
def plan(checksums: dict[str, str]) -> Plan:
    data = {"validation": 0, "sources": ["nowhere"], "sha256": checksums}
    return Plan("some", Study(seeds={"v1": 1}), TINY_PARAMS | {"data": data})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_store.own_address(tmp_path))
    connect(tmp_path)
    with start_run("some", root=tmp_path) as parent:
        parent.tags({"study": "some"})
    return RunContext(
        local_store.own_address(tmp_path), parent.id, tmp_path, {"study": "some"}, "here"
    )


def child() -> Run:
    (found,) = MlflowClient().search_runs(["0"], "attributes.run_name = 'v1-4'")
    return found


def test_a_trial_returns_what_its_run_has(plan: Plan, place: RunContext, tiny: Dataset) -> None:
    told: list[Mapping[str, float]] = []
    result = train(TRIAL, plan, tiny, place, told.append)
    assert [round(metrics["loss"], 6) for metrics in told] == result["metrics"]["loss"]
    run = child()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == place.parent
    assert (run.data.tags["study"], run.data.tags["node"]) == ("some", "here")
    kept = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/trial.json")
    assert kept == json.loads(json.dumps(result))
    assert not run.outputs.model_outputs, "models are logged where the study asks for them"
    (found,) = nested_runs.results(place.parent, "trial.json", known=())
    assert found == kept
    assert nested_runs.results(place.parent, "trial.json", known=["v1-4"]) == []


def test_a_trial_that_is_given_up_ends_well_and_says_so(
    plan: Plan, place: RunContext, tiny: Dataset
) -> None:
    def enough(metrics: Mapping[str, float]) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        train(TRIAL, plan, tiny, place, enough)
    assert child().info.status == "FINISHED"
    assert child().data.tags["ended"] == "given up, because others did better"
    assert nested_runs.results(place.parent, "trial.json", known=()) == []


def test_a_trial_that_its_study_closed_has_no_result(
    plan: Plan, place: RunContext, tiny: Dataset
) -> None:
    def close(metrics: Mapping[str, float]) -> None:
        nested_runs.close(place.parent, "KILLED", "the study was interrupted")

    with pytest.raises(KeyboardInterrupt):
        train(TRIAL, plan, tiny, place, close)
    assert child().info.status == "KILLED"
    assert nested_runs.results(place.parent, "trial.json", known=()) == []


def test_the_run_of_a_study_is_found_again(place: RunContext) -> None:
    assert nested_runs.parent("some", even_finished=True) == place.parent
    assert nested_runs.parent("some", even_finished=False) is None
    assert nested_runs.parent("other", even_finished=True) is None
