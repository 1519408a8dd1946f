"""Connect to MLflow, and find the run that made a model."""

import logging
import os
from contextlib import chdir, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import mlflow
from mlflow.entities import Run as LoggedRun
from mlflow.entities import SourceType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_TYPE

from digits import DigitsError
from digits.core import files
from digits.tracking import local_store, machine
from digits.tracking.errors import one_line, try_twice
from digits.tracking.local_store import EXPERIMENT
from digits.tracking.logged_model import logged_models
from digits.tracking.run import (
    ABANDONED,
    ENDED_TAG,
    MODEL_TAG,
    OUTBOX,
    PROCESS_TAG,
    Log,
    Run,
    ignore,
)

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
NEWER_SCHEMA = "out-of-date database schema"  # An older schema is migrated without an error.


def connect(root: Path, log: Log = ignore) -> None:
    """Connect to MLFLOW_TRACKING_URI or, if it is not set, to the project's own database.

    The database is created if it does not exist. Its default experiment gets the project's name, so
    that the runs of DVC and those of `mlflow run .`, which MLflow opens there, are in one table,
    and the kind that MLflow calls model training. A database whose folder was moved finds its
    artifacts again, and runs that a process which has died left open are closed; `log` prints both.

    Raises:
        DigitsError: the store cannot be used; names it and the reason.
    """
    address, own = local_store.address(root), local_store.is_own(root)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    local_store.check(address)
    if local_store.is_remote(address):  # By default MLflow tries for several minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(address)
    try:
        # MLflow puts the artifacts of a new database under the current folder.
        with local_store.lock(root) if own else nullcontext(), chdir(root):
            database = root / local_store.DATABASE
            if own and (before := local_store.relocate(root)):
                log(f"{database}: was made in {before}; its artifacts are here now")
            if own and not database.exists():
                create_database(root)
            client = MlflowClient()
            # Only the own database is locked; elsewhere another process may create it, too.
            try_twice(lambda: _create_experiment(client, own))
            if own:
                local_store.enable_concurrent_reads(root)
        _close_abandoned_runs(client, root, log)
    except DigitsError:
        raise
    except Exception as error:  # MLflow, its database and the network may raise anything.
        address = local_store.without_passwords(address)
        if NEWER_SCHEMA in str(error):
            raise DigitsError(
                f"MLflow store {address}: made by a newer MLflow than this: use that one, or move "
                "the database away; a new one is then made"
            ) from error
        raise DigitsError(f"MLflow store {address}: cannot be used: {one_line(error)}") from error


def _create_experiment(client: MlflowClient, own: bool) -> None:
    """Create the project's experiment unless it is there, and set its kind unless it has one."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        if own:  # `mlflow ui` made the database.
            client.rename_experiment("0", EXPERIMENT)
        else:
            client.create_experiment(EXPERIMENT, tags={KIND_TAG: KIND})
        experiment = client.get_experiment_by_name(EXPERIMENT)
    # MLflow 3.17 shows it as GenAI all the same, unless the address says otherwise or one
    # clicks on "Model training" once (its issue 24498).
    if KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)


def create_database(root: Path) -> None:
    """Create the project's own database, whole or not at all.

    MLflow takes many steps, and cannot use what a process leaves that is killed between them.
    """

    def create(partial: Path) -> None:
        store = SqlAlchemyStore(f"sqlite:///{partial}", str(root / local_store.ARTIFACTS))
        store.rename_experiment("0", EXPERIMENT)
        store.engine.dispose()

    files.write(root / local_store.DATABASE, create)


def _close_abandoned_runs(client: MlflowClient, root: Path, log: Log) -> None:
    """Close the runs that a process of this machine left open when it died.

    A run with entries in the outbox was closed while its server was lost; `digits send` closes it.
    """
    for run in search_runs("attributes.status = 'RUNNING'"):
        waits = (root / OUTBOX / run.info.run_id).exists()
        if not waits and _is_abandoned(run, root):
            try_twice(partial(client.set_tag, run.info.run_id, ENDED_TAG, ABANDONED))
            client.set_terminated(run.info.run_id, "FAILED")
            log(f"MLflow run {run.info.run_name}: its process is gone; now FAILED")


def _is_abandoned(run: LoggedRun, root: Path) -> bool:
    tags, start = run.data.tags, run.info.start_time / 1000
    if PROCESS_TAG in tags:
        return machine.has_died(tags[PROCESS_TAG])
    # `mlflow run` opened it, and was killed before any command of the project could tag it.
    is_of_project = tags.get(MLFLOW_SOURCE_TYPE) == SourceType.to_string(SourceType.PROJECT)
    return is_of_project and local_store.is_own(root) and not machine.runs_mlflow_since(start)


def search_runs(query: str) -> list[LoggedRun]:
    """Return the runs of all experiments that fit a query of MLflow, the newest first."""
    runs: list[LoggedRun] = mlflow.search_runs(
        filter_string=query,
        order_by=["attributes.start_time DESC"],
        output_format="list",
        search_all_experiments=True,
    )
    return runs


def find_run(model_file: Path, root: Path = Path(), log: Log = ignore) -> Run | None:
    """Return the newest run that saved a model file with this content, if there is one."""
    runs = search_runs(f"tags.{MODEL_TAG} = '{files.sha256(model_file)}'")
    if not runs:
        return None
    models = logged_models(MlflowClient(), runs[0])
    model_id = models[-1].model_id if models else None
    return Run(runs[0].info.run_id, model_id, root, log)


def describe_run(run_id: str) -> str:
    """Describe a run in words: its id, name, time, commit and experiment."""
    logged = MlflowClient().get_run(run_id)
    tags, start = logged.data.tags, datetime.fromtimestamp(logged.info.start_time / 1000, UTC)
    words = [f"run {run_id} ({logged.info.run_name}) of {start:%Y-%m-%d %H:%M} UTC"]
    words += [f"commit {tags['git.commit'][:7]}"] if tags.get("git.commit") else []
    words += [f"experiment {tags['dvc.experiment']}"] if "dvc.experiment" in tags else []
    return ", ".join(words)
