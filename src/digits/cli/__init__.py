"""The `digits` command: reads the inputs, calls one function, writes what it returned.

Modules are imported inside the commands, so that none waits for a library that it does not use.
"""

import click

from digits.cli import handwriting, pipeline, registry, reports
from digits.cli.new import new
from digits.cli.options import Group
from digits.cli.reproduce import reproduce
from digits.cli.study import study


@click.group(cls=Group)
@click.version_option(package_name="digits")
def main() -> None:
    """Handwritten-digit recognition on MNIST: the stages of dvc.yaml, one command each."""


for command in (
    *(pipeline.fetch, pipeline.train, pipeline.evaluate, reports.plot, reports.report),
    *(pipeline.run, study, handwriting.predict, handwriting.draw),
    *(registry.register, registry.runs, registry.send, registry.relocate, registry.mlflow_env),
    *(reproduce, new),
):
    main.add_command(command)
