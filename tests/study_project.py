"""A project with tiny data and one study, tiny.yaml, for the tests of studies."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from conftest import TINY_MODELS, TINY_PARAMS, copy_database
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from digits.core import dataset
from digits.core.dataset import Dataset
from digits.study.results import Row, read_trials

SEEDS = {"seeds": {"v1": 2, "v2": 1}, "first_seed": 5}
TABLE = "metrics/studies/tiny/trials.csv"
STUDY = (sys.executable, "-m", "digits", "study")


def make(folder: Path, data: Dataset, database: Path) -> Path:
    """Write the data, the parameters and, from the folder of another, a database."""
    dataset.save(data, folder / "data/mnist.npz")
    write_params(folder, TINY_PARAMS)
    copy_database(database, folder)
    return folder


def write_params(project: Path, params: Any) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def write(project: Path, study: Any, **v1: Any) -> None:
    """Write the study, and parameters of v1 that are to be other than in TINY_MODELS."""
    (project / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    params = yaml.safe_load((project / "params.yaml").read_text())
    write_params(project, params | {"models": {**TINY_MODELS, "v1": TINY_MODELS["v1"] | v1}})


def rows(project: Path) -> dict[str, Row]:
    """Return the rows of the table of trials, by name."""
    return {row["name"]: row for row in read_trials(project / TABLE)}


def without_times(row: Row) -> Row:
    """Return a row without what differs when a trial is repeated."""
    return {key: value for key, value in row.items() if key not in ("seconds", "machine")}


def parent_and_children(project: Path) -> tuple[Run, list[Run]]:
    """Return the study's run in MLflow and those of its trials."""
    runs = MlflowClient(f"sqlite:///{project.resolve() / 'mlflow.db'}").search_runs(["0"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in runs if run is not parent]


def finished(children: Iterable[Run]) -> Counter[str]:
    """Count the finished runs of each trial."""
    return Counter(r.data.tags["trial"] for r in children if r.info.status == "FINISHED")


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the first value of a function that is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it has not become true in time"
        time.sleep(0.2)
    return value
