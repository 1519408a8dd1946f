"""The store of runs, made fit for use; runs found in it."""

import logging
import os
from collections.abc import Callable
from contextlib import chdir, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import psutil
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from digits import DigitsError
from digits.core import files
from digits.tracking import local_store
from digits.tracking.logged_model import logged_models
from digits.tracking.outbox import one_line
from digits.tracking.run import EXPERIMENT, MODEL_TAG, OUTBOX, PROCESS_TAG, Run, is_of_this_machine

OUT_OF_DATE = "out-of-date database schema"


def connect(
    root: Path, experiment: str = EXPERIMENT, say: Callable[[str], None] = lambda line: None
) -> None:
    """Use MLFLOW_TRACKING_URI, else the project's own database, made if it is not there.

    The database's default experiment gets the project's name, so that the runs of DVC and those of
    `mlflow run .`, which MLflow itself opens there, stand in one table. A database whose folder was
    moved finds its artifacts again, and runs left open by a process that is gone are closed.

    Args:
        root: the project's folder.
        experiment: is made if it is not there.
        say: is told what was mended.

    Raises:
        DigitsError: the store cannot be used; names it and why.
    """
    address = local_store.address(root)
    own = address == local_store.own_address(root)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    local_store.check(address)
    if local_store.is_remote(address):  # MLflow's own patience is of several minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    mlflow.set_tracking_uri(address)
    try:
        # MLflow puts the artifacts of a new database under the current folder.
        with local_store.alone(root) if own else nullcontext(), chdir(root):
            if own and (before := local_store.relocate(root)):
                say(
                    f"{root / local_store.DATABASE}: was made in {before}; its artifacts are here now"
                )
            if own and not (root / local_store.DATABASE).exists():
                _make_database(root)
            client = MlflowClient()
            if own and client.get_experiment_by_name(EXPERIMENT) is None:  # `mlflow ui` made it
                client.rename_experiment("0", EXPERIMENT)
            if client.get_experiment_by_name(experiment) is None:
                client.create_experiment(experiment)
            if own:
                local_store.share(root)
        for name in _close_abandoned(client):
            say(f"MLflow run {name}: its process is gone; now FAILED")
    except DigitsError:
        raise
    except Exception as error:  # of MLflow, its database or the network: any may come through
        if OUT_OF_DATE in str(error):  # one of an older MLflow is migrated without a word
            raise DigitsError(
                f"MLflow store {address}: made by a newer MLflow than this: use that one, or move "
                "the database away; a new one is then made"
            ) from error
        raise DigitsError(f"MLflow store {address}: cannot be used: {one_line(error)}") from error


def _make_database(root: Path) -> None:
    """Make the project's own database, whole or not at all.

    MLflow makes it in many steps, and cannot use what a process leaves that is killed between them.
    """

    def make(partial: Path) -> None:
        made = SqlAlchemyStore(f"sqlite:///{partial}", str(root / local_store.ARTIFACTS))
        made.rename_experiment("0", EXPERIMENT)
        made.engine.dispose()

    files.write(root / local_store.DATABASE, make)


def _close_abandoned(client: MlflowClient) -> list[str]:
    """Close the runs that a process of this machine, since gone, left RUNNING; their names."""
    closed = []
    running = client.search_runs(_all(client), "attributes.status = 'RUNNING'")
    for run in running:
        process = run.data.tags.get(PROCESS_TAG, "")
        if is_of_this_machine(process) and not _is_alive(process):
            reason = "its process was killed, or the machine stopped"
            client.set_tag(run.info.run_id, "ended", reason)
            client.set_terminated(run.info.run_id, "FAILED")
            closed.append(run.info.run_name)
    return closed


def _is_alive(process: str) -> bool:
    _, number, started = process.rsplit(" ", 2)
    try:
        return f"{psutil.Process(int(number)).create_time():.1f}" == started
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def find_run(
    model_file: Path, root: Path = Path(), say: Callable[[str], None] = lambda line: None
) -> Run | None:
    """The newest run that saved a model file with this content, or None; else as in `start_run`."""
    client = MlflowClient()
    found = client.search_runs(
        _all(client),
        f"tags.{MODEL_TAG} = '{files.sha256(model_file)}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found:
        return None
    logged = logged_models(client, found[0])
    model_id = logged[-1].model_id if logged else None
    return Run(found[0].info.run_id, model_id, root / OUTBOX, say)


def describe_run(run: Run) -> str:
    """A run in words: when, from what, and where to find it."""
    found = MlflowClient().get_run(run.id)
    tags = found.data.tags
    when = datetime.fromtimestamp(found.info.start_time / 1000, UTC).isoformat(" ", "minutes")
    words = [f"run {found.info.run_id} ({found.info.run_name}) of {when[:16]} UTC"]
    words += [f"commit {tags['git.commit'][:7]}"] if tags.get("git.commit") else []
    words += [f"experiment {tags['dvc.experiment']}"] if "dvc.experiment" in tags else []
    return ", ".join(words)


def _all(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]
