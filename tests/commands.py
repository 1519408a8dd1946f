"""The `digits` command in this process, and the commands that tests give it."""

import signal
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from digits.cli import main

# `set_tracking_uri` of MLflow sets the first; a run of DVC around the tests, the others.
UNSET = dict.fromkeys(("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE"))


def invoke(folder: Path, *arguments: str, **variables: str) -> Result:
    """Run a `digits` command in a folder, as a new process with these variables would."""
    return pipe(None, folder, *arguments, **variables)


def pipe(stdin: bytes | None, folder: Path, *arguments: str, **variables: str) -> Result:
    """Run a command as `invoke` does, with something on its standard input."""
    with _signal_handlers(), chdir(folder):
        runner = CliRunner(env={**UNSET, **variables})
        return runner.invoke(main, arguments, stdin, catch_exceptions=False)


@contextmanager
def _signal_handlers() -> Iterator[None]:
    """Restore what the command does to signals, since pytest has handlers of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def train_command(
    version: str, reference: str = "metrics/report-2018.json", name: str | None = None
) -> list[str]:
    """Return the arguments that train a version; its files are called like it, or `name`."""
    name = name or version
    paths = {
        "data": "data/mnist.npz",
        "reference": reference,
        "model": f"data/models/{name}.keras",
        "history": f"metrics/history/{name}.csv",
        "timing": f"data/timing/{name}.json",
        "machine": f"data/machine/{name}.json",
    }
    return ["train", version, *(part for key, path in paths.items() for part in (f"--{key}", path))]
