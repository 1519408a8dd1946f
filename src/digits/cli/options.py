"""What all commands share: errors in one line, options, the project's folder and its MLflow."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError

if TYPE_CHECKING:
    from digits.core.schema import Params

Reference = Mapping[str, Any]
OF_PROJECT = ("params.yaml", "MLproject")
PARAMS, DATA, ONNX = "params.yaml", "data/mnist.npz", "data/onnx"
REFERENCE = "metrics/report-2018.json"


def _interrupt(number: int, frame: object) -> None:
    """Interrupt once: `mlflow run` sends a second signal, which must not disturb the closing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


class Group(click.Group):
    """Turns errors that a user can correct into one line and a non-zero exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # of a path that no check has looked at, or a full disk
            subject = f"{error.filename}: " if error.filename else ""
            warn(f"{subject}{error.strerror or error}")
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        # A background job of a shell ignores Ctrl-C, and so does its `digits`.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
        try:
            return super().invoke(ctx)
        except DigitsError as error:
            warn(str(error))
            if os.environ.get("MLFLOW_RUN_ID"):  # A run that is opened takes it out.
                _tag_refused_run(error)
            sys.exit(1)
        except KeyboardInterrupt:
            warn("interrupted")
            sys.exit(130)


def _tag_refused_run(error: DigitsError) -> None:
    """Tell the reason in the run of `mlflow run`, if its server answers."""
    from digits.tracking.run import tag_inherited_run

    with contextlib.suppress(Exception):  # MLflow may raise anything, and the line is printed.
        connect()
        tag_inherited_run(error)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def path_option(
    name: str, text: str, required: bool = True, default: str | None = None
) -> Decorator:
    """Return an option that takes a path."""
    # For click 8.5 a default of None is a value, which a required option then has.
    rest: dict[str, Any] = {"required": required}
    if default is not None:
        rest = {"default": default, "show_default": True}
    return click.option(name, type=click.Path(path_type=Path), help=text, **rest)


params_option = path_option("--params", "The parameter file.", default=PARAMS)


def connect() -> None:
    """Connect MLflow to the project's tracking store."""
    from digits.tracking import connection

    connection.connect(root(), log=warn)


def connect_to_read() -> bool:
    """Connect MLflow as `connect` does, unless that would create the project's database.

    Returns:
        Whether there is anything to read.
    """
    from digits.tracking import local_store

    if local_store.is_own(root()) and not (root() / local_store.DATABASE).exists():
        return False
    connect()
    return True


def load_reference(path: Path | None, parameters: "Params") -> Reference:
    """Return what 2018 reported, by version: {} without the file, or if the images are others."""
    from digits.reports.metrics import read_reference

    reference = read_reference(path, parameters.data) if path else {}
    versions: Reference = reference.get("versions", {})
    return versions


def warn(line: str) -> None:
    """Print a line on standard error."""
    click.echo(f"digits: {line}", err=True)


def root() -> Path:
    """Return the project's folder: this one, or the first above it that has a project's files.

    It is DVC's main repository even where DVC runs in a copy of it.
    """
    if folder := os.environ.get("DVC_ROOT"):
        return Path(folder).resolve()
    here = Path.cwd()
    folders = (here, *here.parents)
    return next((at for at in folders if any((at / n).exists() for n in OF_PROJECT)), here)
