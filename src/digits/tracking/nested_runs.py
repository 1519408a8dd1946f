"""The run of a study and, nested in it, those of its trials."""

from collections.abc import Container
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from digits.tracking.connection import search_runs
from digits.tracking.run import ENDED_TAG

TRIAL_TAG, STUDY_TAG = "trial", "study"


def find_parent(study: str, even_finished: bool) -> str | None:
    """Return the id of the newest run of a study; None if it is finished and that is unwanted."""
    for run in search_runs(f"tags.`{STUDY_TAG}` = '{study}'"):
        if MLFLOW_PARENT_RUN_ID not in run.data.tags:
            wanted = even_finished or run.info.status != "FINISHED"
            return str(run.info.run_id) if wanted else None
    return None


def artifacts(parent: str, name: str, exclude: Container[str] = ()) -> list[dict[str, Any]]:
    """Return the JSON artifact of that name of each finished trial that is not excluded by name."""
    return [
        mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{name}")
        for run in trial_runs(parent, "FINISHED")
        if run.data.tags.get(TRIAL_TAG) not in exclude
        and any(file.path == name for file in MlflowClient().list_artifacts(run.info.run_id))
    ]


def is_open(run_id: str) -> bool:
    """Tell whether a run has not been closed."""
    return bool(MlflowClient().get_run(run_id).info.status == "RUNNING")


def close_open(parent: str, status: str, reason: str, trial: str | None = None) -> None:
    """Close the runs of a study's trials, or of one trial, that were left open."""
    client = MlflowClient()
    for run in trial_runs(parent, "RUNNING"):
        if trial in (None, run.data.tags.get(TRIAL_TAG)):
            client.set_tag(run.info.run_id, ENDED_TAG, reason)
            client.set_terminated(run.info.run_id, status)


def trial_runs(parent: str, status: str) -> list[Run]:
    """Return the runs of a study's trials that have a status."""
    return search_runs(
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' AND attributes.status = '{status}'"
    )
