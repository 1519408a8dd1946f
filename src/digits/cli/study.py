"""`digits study`: its commands."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError
from digits.cli.options import DATA, REFERENCE, connect, params_option, path_option, root

if TYPE_CHECKING:
    from digits.study.spec import Plan

STUDIES = Path("metrics/studies")


@click.group()
def study() -> None:
    """Many trainings as one: over seeds, or in search of better parameters."""


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command on a study takes."""
    for option in (
        path_option("--out", "The folder of results.  [default: metrics/studies/NAME]", False),
        path_option("--data", "The .npz file of MNIST.", default=DATA),
        params_option,
        click.argument("file", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the trials run."""
    for option in (
        click.option(
            "--workers", type=click.IntRange(1), help="Trials at once, if without --address."
        ),
        click.option("--address", help="Of a Ray cluster; without it, this machine does the work."),
    ):
        command = option(command)
    return command


@study.command()
@options
@places
def run(**given: Any) -> None:
    """Train the trials of FILE that have no result yet."""
    _conduct(**given)


@study.command()
@options
@places
def resume(**given: Any) -> None:
    """Go on with the study of FILE, which must have been begun; nothing is trained twice."""
    _conduct(**given, resumed=True)


@study.command()
@options
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    default=REFERENCE,
    show_default=True,
    help="What the 2018 report says.",
)
def report(file: Path, params: Path, data: Path, out: Path | None, reference: Path) -> None:
    """Print what the trials of FILE gave: over seeds the verdict, of a search the best."""
    from digits.core import dataset, files
    from digits.reports import study
    from digits.reports.metrics import machines
    from digits.study import search
    from digits.study.results import Results

    planned, out = _load(file, params, out)
    mnist = dataset.load(data)
    found = Results(out, planned, mnist.digest()).in_order()
    if not found:
        raise DigitsError(f"{out}: no result of {file} there; `digits study run {file}`")
    if planned.study.search:
        click.echo(search.table(found, planned.study.search))
        click.echo(f"\nThe best, as a block of {params}:\n")
        click.echo(search.block(params, search.best(found, planned.study.search)))
    else:
        reported = files.read_json(reference)["versions"]
        click.echo(study.table(found, reported, machines(out)))


def _load(file: Path, params: Path, out: Path | None) -> tuple["Plan", Path]:
    from digits.study import spec

    planned = spec.load(file, params)
    return planned, out or STUDIES / planned.name


def _conduct(
    file: Path,
    params: Path,
    data: Path,
    out: Path | None,
    address: str | None,
    workers: int | None,
    resumed: bool = False,
) -> None:
    from digits.core import dataset
    from digits.tracking import local_store, machine

    planned, out = _load(file, params, out)
    if resumed and not out.exists():
        raise DigitsError(f"{out}: nothing to resume; `digits study run {file}` begins it")
    local_store.check(local_store.address(root()))
    mnist = dataset.load(data)

    from digits.study.runner import conduct

    connect()
    found = conduct(
        planned,
        mnist,
        out,
        root=root(),
        address=local_store.address(root()),
        tags={"stage": os.environ.get("DVC_STAGE") or "study", **machine.code()},
        cluster=address,
        workers=workers,
        attach=True,
        say=click.echo,
    )
    click.echo(f"{planned.name}: {len(found)} trials in {out}")
