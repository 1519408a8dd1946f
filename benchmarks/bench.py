"""`make bench`: measure the speed of the pipeline; writes benchmarks/results/benchmark.json."""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import paths
import render
from digits import DigitsError
from digits.core import config, dataset, files
from digits.core.schema import Params
from digits.tracking.machine import libraries, machine
from digits.tracking.provenance import code

POSITIVE = click.IntRange(min=1)


@click.command()
@click.option(
    "--images",
    type=POSITIVE,
    default=15_000,
    show_default=True,
    help="Training images of the race.",
)
@click.option(
    "--epochs",
    type=POSITIVE,
    default=5,
    show_default=True,
    help="Epochs of the race, without the first.",
)
@click.option("--repeats", type=POSITIVE, default=3, show_default=True, help="Of each command.")
@click.option("--out", type=click.Path(path_type=Path), default=paths.RESULTS / "benchmark.json")
def main(images: int, epochs: int, repeats: int, out: Path) -> None:
    """Race our training against plain Keras, and time what surrounds it.

    Run it in a project that `make` has brought up to date, on a machine with nothing else to do.
    """
    params = config.load(paths.PARAMS)
    mnist = dataset.load(paths.DATA)
    part = replace(mnist, x_train=mnist.x_train[:images], y_train=mnist.y_train[:images])
    if subprocess.run(["dvc", "status", "--quiet", "dvc.yaml"]).returncode:
        raise DigitsError("the pipeline is not up to date, and would run; run `make` first")
    environment = machine() | libraries() | dict(code().tags)
    measured: dict[str, Any] = {"images": len(part.x_train), "machine": environment}
    shortest = params.versions[0]
    # Plain `fit` has no equal of our augmentation.
    raced = [version for version in params.versions if not params.model(version).augmentation]

    import overhead  # Imports TensorFlow.
    import race

    with tempfile.TemporaryDirectory() as folder:
        click.echo("commands")
        measured["overhead"] = overhead.commands(shortest, repeats, Path(folder))
        measured["training"] = {}
        for version in raced:
            click.echo(f"{version}: ours, plain fit and fit as in 2018")
            measured["training"][version] = race.race(version, params, part, epochs)
        measured["precision"] = {}
        for version in _convolutional(params):
            click.echo(f"{version}: bfloat16, float32 and plain fit")
            measured["precision"][version] = race.precisions(version, params, part, epochs)
        click.echo("tracking")
        measured["tracking"] = overhead.tracking_cost(
            shortest, params, mnist, repeats, Path(folder)
        )
    measured["scaling"] = {}
    for version in raced:
        click.echo(f"{version}: scaling")
        measured["scaling"][version] = scaling(version)
    click.echo(render.section("benchmark", measured))
    files.write_json(out, measured)
    click.echo(f"wrote {out}")


def _convolutional(params: Params) -> list[str]:
    """Return the versions for which a processor's bfloat16 may matter."""
    return [
        version
        for version in params.versions
        if any(layer.name == "Conv2D" for layer in params.model(version).layers)
    ]


def scaling(version: str) -> Any:
    """Run scaling.py in a process of its own."""
    script = str(Path(__file__).with_name("scaling.py"))
    done = subprocess.run([sys.executable, script, version], capture_output=True, text=True)
    if done.returncode:
        raise DigitsError(f"{script} {version}: failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
