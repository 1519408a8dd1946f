"""Where runs are kept: an MLflow server, or the project's own database and what it needs.

Without MLflow, which takes seconds to import and knows none of this.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests
from filelock import FileLock

from digits import DigitsError

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
SERVED = "mlflow-artifacts:"  # where `mlflow ui` has them, if it made the database
ANSWER_WITHIN = 4  # seconds
WAIT = 120  # seconds for others to make or mend the database
# Where MLflow writes the folder that it was in when it made a thing.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def address(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or own_address(root)


def own_address(root: Path) -> str:
    return f"sqlite:///{root.resolve() / DATABASE}"


def is_remote(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def check(address: str) -> None:
    """See that a server answers, before any work is done that it could not record.

    Raises:
        DigitsError: it does not.
    """
    if is_remote(address):
        try:
            requests.get(f"{address.rstrip('/')}/health", timeout=ANSWER_WITHIN)
        except requests.RequestException as error:
            raise DigitsError(
                f"MLflow server {address}: no answer ({type(error).__name__}): start it, or unset "
                "MLFLOW_TRACKING_URI to use the project's own database"
            ) from error


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the project's own database: MLflow 3.17 makes and migrates it without a lock."""
    with FileLock(root / f"{DATABASE}.lock", timeout=WAIT):
        if not (root / DATABASE).exists():
            for part in ("-wal", "-shm"):  # of a deleted one: SQLite would replay it into the new
                (root / f"{DATABASE}{part}").unlink(missing_ok=True)
        yield


def share(root: Path) -> None:
    """Let others read the project's own database while one writes (write-ahead logging)."""
    with closing(sqlite3.connect(root / DATABASE, timeout=WAIT)) as database:
        database.execute("PRAGMA journal_mode = WAL")


def relocate(root: Path) -> Path | None:
    """Have the project's own database find its artifacts beside itself, wherever it was made.

    MLflow writes absolute paths, which are wrong once the folder is moved, renamed or copied. And
    `mlflow ui`, if it is started before the first run, has artifacts go through its own server,
    which those who write to the database do not use.

    Returns:
        The folder in which it was made; None if that is this one, or there is no database.

    Raises:
        DigitsError: the file is no database, or cannot be written.
    """
    if not (root / DATABASE).exists():
        return None
    here = str(root.resolve() / ARTIFACTS)
    try:
        with closing(sqlite3.connect(root / DATABASE, timeout=WAIT)) as database, database:
            known = database.execute(
                "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
            ).fetchone()
            before = known[0].removesuffix("/0") if known else here
            if before != SERVED and (before == here or Path(before).name != ARTIFACTS):
                return None
            # What went through the server stays where it is.
            for table, column in LOCATIONS[:1] if before == SERVED else LOCATIONS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) = ?",
                    (here, len(before) + 1, len(before) + 1, f"{before}/"),
                )
    except sqlite3.Error as error:
        raise DigitsError(f"{root / DATABASE}: cannot be used: {error}") from error
    return None if before == SERVED else Path(before).parent
