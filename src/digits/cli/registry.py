"""`digits register`, `runs`, `send`, `relocate` and `mlflow-env`: what is in MLflow."""

import sys
from pathlib import Path

import click

from digits import DigitsError
from digits.cli.options import connect, connect_to_read, params_option, path_option, root, warn


@click.command()
@params_option
@path_option("--models", "The folder of .keras files.")
@click.option("--force", is_flag=True, help="Make the best of these the champion in any case.")
def register(params: Path, models: Path, force: bool) -> None:
    """Register the models, each once, and choose the champion by the policy in params.yaml.

    `digits evaluate` does so too, but not in an experiment of DVC.
    """
    from digits.core import config

    parameters = config.load(params)
    paths = {version: models / f"{version}.keras" for version in parameters.versions}
    paths = {version: path for version, path in paths.items() if path.exists()}
    if not paths:
        raise DigitsError(f"{models}: no model of params.yaml there; `dvc repro` trains them")

    from digits.tracking.registry import register_models

    connect()
    click.echo(register_models(paths, parameters, root(), log=warn, force=force))


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def runs(models: tuple[Path, ...]) -> None:
    """List the run that made each .keras file of MODELS, files or folders of them.

    DVC restores from its cache what it has made before. Then nothing is trained, and there is no
    new run.
    """
    from digits.tracking.connection import describe_run, find_run

    is_recorded = connect_to_read()
    files = {f for path in models for f in (path.glob("*.keras") if path.is_dir() else [path])}
    for path in sorted(files):
        run = find_run(path) if is_recorded else None
        click.echo(f"{path}: {describe_run(run.id) if run else 'its record is gone'}")


@click.command()
def send() -> None:
    """Send what was logged while the MLflow server was lost."""
    from digits.tracking import outbox
    from digits.tracking.run import OUTBOX

    folders = outbox.pending(root() / OUTBOX)
    if not folders:
        click.echo("nothing to send")
        return
    connect()
    for folder in folders:
        click.echo(f"{folder.name}: sent {outbox.send(folder)} entries")


@click.command()
def relocate() -> None:
    """Have `mlflow ui` find the artifacts after the project's folder was moved."""
    from digits.tracking import local_store

    with local_store.lock(root()):
        before = local_store.relocate(root())
    click.echo(f"was {before}, is {root()}" if before else f"is {root()}, as it was")


@click.command("mlflow-env")
@click.argument("project", type=click.Path(path_type=Path, exists=True))
def mlflow_env(project: Path) -> None:
    """Have `mlflow run` of PROJECT use the environment of this Python instead of building one."""
    from digits.tracking.project_environment import link_environment

    click.echo(link_environment(project, Path(sys.prefix)))
