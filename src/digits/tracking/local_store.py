"""Where runs are stored: an MLflow server, or the project's own database.

Nothing here imports MLflow, which takes seconds.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests
from filelock import FileLock

from digits import DigitsError

PROJECT = Path(__file__).parents[3] / "MLproject"
DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
PROXIED = "mlflow-artifacts:"  # where artifacts go if `mlflow ui` made the database
HEALTH_TIMEOUT = 4  # seconds
LOCK_TIMEOUT = 120  # seconds for others to make or migrate the database
# The columns in which MLflow stores absolute paths.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def _project_name() -> str:
    """Return the name in MLproject; a copy of this package without it has no project."""
    text = PROJECT.read_text(encoding="utf-8") if PROJECT.exists() else ""
    match = re.search(r"^name: *['\"]?([^'\"#\n]+)", text, re.MULTILINE)
    return match[1].strip() if match else "digits"


EXPERIMENT = _project_name()


def address(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI or, if it is not set, the address of the project's database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or own_address(root)


def own_address(root: Path) -> str:
    """Return the address of the project's own database."""
    return f"sqlite:///{root.resolve() / DATABASE}"


def is_own(root: Path) -> bool:
    """Tell whether runs go to the project's own database."""
    return address(root) == own_address(root)


def is_remote(address: str) -> bool:
    """Tell whether an address is that of a server."""
    return address.startswith(("http://", "https://"))


def check(address: str) -> None:
    """Ask a server for its health, before any work is done that it could not record.

    Raises:
        DigitsError: the server does not answer.
    """
    if is_remote(address):
        try:
            requests.get(f"{address.rstrip('/')}/health", timeout=HEALTH_TIMEOUT)
        except requests.RequestException as error:
            raise DigitsError(
                f"MLflow server {address}: no answer ({type(error).__name__}): start it, or unset "
                "MLFLOW_TRACKING_URI to use the project's own database"
            ) from error


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """Lock the project's own database; MLflow 3.17 makes and migrates it without a lock."""
    with FileLock(root / f"{DATABASE}.lock", timeout=LOCK_TIMEOUT):
        if not (root / DATABASE).exists():
            # SQLite would replay what a deleted database left here into the new one.
            for suffix in ("-wal", "-shm"):
                (root / f"{DATABASE}{suffix}").unlink(missing_ok=True)
        yield


def enable_concurrent_reads(root: Path) -> None:
    """Let others read the project's own database while one writes (write-ahead logging)."""
    with closing(sqlite3.connect(root / DATABASE, timeout=LOCK_TIMEOUT)) as database:
        database.execute("PRAGMA journal_mode = WAL")


def relocate(root: Path) -> Path | None:
    """Point the project's own database to the artifacts beside it, wherever it was made.

    MLflow stores absolute paths, which are wrong once the folder is moved, renamed or copied. And a
    database that `mlflow ui` made, because it was started before the first run, sends artifacts
    through that server, which processes that write to the database do not use.

    Returns:
        The folder in which the database was made; None if that is this one, or there is none.

    Raises:
        DigitsError: the file is not a database, or cannot be written.
    """
    if not (root / DATABASE).exists():
        return None
    artifacts = str(root.resolve() / ARTIFACTS)
    try:
        with closing(sqlite3.connect(root / DATABASE, timeout=LOCK_TIMEOUT)) as database, database:
            row = database.execute(
                "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
            ).fetchone()
            before = row[0].removesuffix("/0") if row else artifacts
            if before != PROXIED and (before == artifacts or Path(before).name != ARTIFACTS):
                return None
            # Artifacts that went through the server of `mlflow ui` stay where they are.
            for table, column in LOCATIONS[:1] if before == PROXIED else LOCATIONS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) = ?",
                    (artifacts, len(before) + 1, len(before) + 1, f"{before}/"),
                )
    except sqlite3.Error as error:
        raise DigitsError(f"{root / DATABASE}: cannot be used: {error}") from error
    return None if before == PROXIED else Path(before).parent
