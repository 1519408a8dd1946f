"""`digits reproduce`: train again from the record of a run, and compare."""

import sys
from pathlib import Path

import click

from digits import DigitsError
from digits.cli.options import DATA, connect_to_read, path_option, root, warn


@click.command()
@click.argument("run")
@click.option("--epochs", type=click.IntRange(min=1), help="Compare the first epochs only.")
@path_option("--data", "The .npz file of images, if they are still the same.", default=DATA)
def reproduce(run: str, epochs: int | None, data: Path) -> None:
    """Train again what RUN trained, and tell whether the same came of it.

    RUN is the id or the name of a run, a registered model such as models:/mnist-digits@champion, or
    the name of a DVC experiment. Commit, uncommitted change, parameters, seed and images are those
    of the run's record; the code is checked out into a temporary folder. Exit status: 0 if the
    model is identical, 2 if it differs on another type of machine, 1 if it is different.
    """
    from digits.tracking.reproduction import reproduce as repeat

    if not connect_to_read():
        raise DigitsError(f"{root()}: no run is recorded here")
    verdict = repeat(run, root(), data, epochs, log=warn)
    click.echo(verdict)
    sys.exit(verdict.exit_status)
