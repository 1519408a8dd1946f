"""The run of a study, found again, and those of its trials, which are its children."""

from collections.abc import Container, Iterator
from typing import Any

import mlflow
from mlflow.entities import Run as LoggedRun
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

TRIAL_TAG, STUDY_TAG = "trial", "study"


def parent(study: str, even_finished: bool) -> str | None:
    """The id of the newest run of a study, unless it is finished and that is not wanted."""
    client = MlflowClient()
    found = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()],
        f"tags.`{STUDY_TAG}` = '{study}'",
        order_by=["attributes.start_time DESC"],
    )
    whole = [run for run in found if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    if whole and (even_finished or whole[0].info.status != "FINISHED"):
        return str(whole[0].info.run_id)
    return None


def results(parent: str, name: str, known: Container[str]) -> list[dict[str, Any]]:
    """The JSON artifacts of that name of the finished trials of a study that are not known."""
    return [
        mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{name}")
        for run in _children(parent, "FINISHED")
        if run.data.tags.get(TRIAL_TAG) not in known
        and any(file.path == name for file in MlflowClient().list_artifacts(run.info.run_id))
    ]


def is_open(run: str) -> bool:
    """Whether nobody has closed a run."""
    return bool(MlflowClient().get_run(run).info.status == "RUNNING")


def close(parent: str, status: str, reason: str, trial: str | None = None) -> None:
    """Close the trials of a study, or those of one name, that were left open."""
    client = MlflowClient()
    for run in _children(parent, "RUNNING"):
        if trial in (None, run.data.tags.get(TRIAL_TAG)):
            client.set_tag(run.info.run_id, "ended", reason)
            client.set_terminated(run.info.run_id, status)


def _children(parent: str, status: str) -> Iterator[LoggedRun]:
    client = MlflowClient()
    where = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' AND attributes.status = '{status}'"
    token = None
    while True:
        experiment = client.get_run(parent).info.experiment_id
        found = client.search_runs([experiment], where, page_token=token)
        yield from found
        token = found.token
        if not token:
            return
