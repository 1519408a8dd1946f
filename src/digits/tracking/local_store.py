"""Where runs are stored: an MLflow server, or the project's own database.

Nothing here imports MLflow, which takes seconds.
"""

import base64
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock

from digits import DigitsError

PROJECT = Path(__file__).parents[3] / "MLproject"
DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
PROXIED = "mlflow-artifacts:"  # where artifacts go if `mlflow ui` made the database
HEALTH_TIMEOUT = 4  # seconds
LOGIN_TIMEOUT = 10  # seconds, since a server is meant to be slow at checking a password
URI, USERNAME, PASSWORD = (f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD"))
# What else MLflow may log in by.
OTHER_LOGINS = tuple(f"MLFLOW_TRACKING_{name}" for name in ("TOKEN", "AUTH", "AWS_SIGV4"))
LOGIN_FILE = "~/.mlflow/credentials"
# A server's address with a login. A password may have what should be encoded in an address.
WITH_LOGIN = re.compile(r"(https?://)([^:/?#]*)(?::([^/?#]*|(?!\d+(?:[/?#]|$)).*))?@(.*)")
PASSWORD_IN_TEXT = re.compile(r"(?<=://)([^\s:/?#@]*):\S*@")
LOCK_TIMEOUT = 120  # seconds for others to make or migrate the database
# The columns in which MLflow stores absolute paths.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def project_name() -> str:
    """Return the name in MLproject; a copy of this package without it has no project."""
    text = PROJECT.read_text(encoding="utf-8") if PROJECT.exists() else ""
    match = re.search(r"^name: *['\"]?([^'\"#\n]+)", text, re.MULTILINE)
    return match[1].strip() if match else "digits"


EXPERIMENT = project_name()


def address(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI or, if it is not set, the address of the project's database.

    A login in the address of a server moves to the variables that MLflow has for it: MLflow prints
    addresses, and so do errors.
    """
    if match := WITH_LOGIN.fullmatch(os.environ.get(URI, "")):
        scheme, user, password, rest = match.groups(default="")
        login = {USERNAME: unquote(user), PASSWORD: unquote(password)}
        os.environ.update({name: text for name, text in login.items() if text})
        os.environ[URI] = scheme + rest
    return os.environ.get(URI) or own_address(root)


def without_passwords(text: str) -> str:
    """Return a text, such as an error's, without the passwords of the addresses in it."""
    return PASSWORD_IN_TEXT.sub(r"\1:***@", text)


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
    """Ask a server for its health and log in, before any work is done that it could not record.

    Raises:
        DigitsError: the server does not answer, or refuses the login.
    """
    import requests  # The project's own database needs none.

    if is_remote(address):
        server = address.rstrip("/")
        who, header = _login()
        try:
            requests.get(f"{server}/health", timeout=HEALTH_TIMEOUT)
            # MLflow's server answers about its health without a login.
            answer = requests.get(f"{server}/version", headers=header, timeout=LOGIN_TIMEOUT)
        except requests.RequestException as error:
            raise DigitsError(
                f"MLflow server {address}: no answer ({type(error).__name__}): start it, or unset "
                "MLFLOW_TRACKING_URI to use the project's own database"
            ) from error
        if answer.status_code == requests.codes.unauthorized and not _has_other_login():
            raise DigitsError(
                f"MLflow server {address}: refuses {who} (401): set {USERNAME} and {PASSWORD} to "
                "the name and the password of one of its users"
            )


def _login() -> tuple[str, dict[str, str]]:
    """Return who MLflow logs in as, by the environment's variables, and the header that does it."""
    user, password = os.environ.get(USERNAME), os.environ.get(PASSWORD)
    if not (user and password):
        return "clients without a password", {}
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"user {user!r} with this password", {"Authorization": f"Basic {encoded}"}


def _has_other_login() -> bool:
    """Tell whether MLflow, when it connects, logs in by what the check does not read."""
    return any(map(os.environ.get, OTHER_LOGINS)) or os.path.exists(os.path.expanduser(LOGIN_FILE))


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


def champion(root: Path, name: str, alias: str) -> tuple[int, Mapping[str, str], Path] | None:
    """Return a registered model of the project's own database, read without MLflow.

    Returns:
        The number of the registered version with the alias, its tags, and the folder of its logged
        model; None if there is none, if it cannot be read so, or if the database comes from another
        folder, so that `relocate` has to be called first.
    """
    of_model = "FROM model_version_tags WHERE name = ? AND version = ?"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(root / DATABASE))}?mode=ro", uri=True)
        ) as database:
            row = database.execute(
                "SELECT version, storage_location FROM registered_model_aliases"
                " JOIN model_versions USING (name, version) WHERE name = ? AND alias = ?",
                (name, alias),
            ).fetchone()
            if row is None or not Path(row[1]).is_relative_to(root.resolve() / ARTIFACTS):
                return None
            tags = dict(database.execute(f"SELECT key, value {of_model}", (name, row[0])))
    except sqlite3.Error:
        return None
    return row[0], tags, Path(row[1])
