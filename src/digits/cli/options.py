"""What all commands share: errors in one line, options, the project's folder and its MLflow."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from digits import DigitsError

PARAMS, DATA, REFERENCE = "params.yaml", "data/mnist.npz", "metrics/report-2018.json"


def _interrupt(number: int, frame: object) -> None:
    """Interrupt once: `mlflow run` sends a second signal, which must not disturb the closing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


class Group(click.Group):
    """Turns what a user can put right into one line and a non-zero exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
            signal.signal(signal.SIGINT, _interrupt)
        try:
            return super().invoke(ctx)
        except DigitsError as error:
            click.echo(f"digits: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("digits: interrupted", err=True)
            sys.exit(130)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def path_option(
    name: str, text: str, required: bool = True, default: str | None = None
) -> Decorator:
    """An option that takes a path."""
    return click.option(
        name,
        type=click.Path(path_type=Path),
        required=required and default is None,
        default=default,
        show_default=default is not None,
        help=text,
    )


params_option = path_option("--params", "Parameter file.", default=PARAMS)


def connect() -> None:
    from digits.tracking.connection import connect

    connect(root(), say=warn)


def warn(line: str) -> None:
    click.echo(f"digits: {line}", err=True)


def root() -> Path:
    """The project's folder: DVC's main repository even where it runs in a copy, else this one."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()
