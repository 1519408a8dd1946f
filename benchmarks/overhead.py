"""Measure what the pipeline costs beside the arithmetic: whole commands, timed from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paths
from digits import DigitsError
from digits.core.dataset import Dataset
from digits.core.schema import Params
from digits.core.training import train_model
from digits.tracking.connection import connect
from digits.tracking.run import start_run
from digits.tracking.training import train_tracked
from samples import summarise

IMPORTS = [sys.executable, "-c", "import tensorflow, mlflow"]
DIGITS = [sys.executable, "-m", "digits"]
IDLE = {"dvc repro, nothing to do": ["dvc", "repro"], "make, nothing to do": ["make"]}


def seconds(command: list[str], **extra: str) -> float:
    """Return the wall time of a command.

    Raises:
        DigitsError: it fails.
    """
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise DigitsError(f"{' '.join(command)}: failed: {done.stderr.strip()[-300:]}")
    return taken


def commands(version: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Measure wall times of commands, and the train stage less its fit as multiple of bare imports.

    Args:
        version: the version that is trained.
        folder: an empty folder for what the stages write.
    """
    idle: dict[str, list[float]] = {name: [] for name in (*IDLE, "digits --help")}
    imports, over, multiples, evaluated = [], [], [], []
    # DVC_ROOT is where `digits` puts the artifacts of runs.
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "DVC_ROOT": str(folder)}
    timing = folder / "timing.json"
    stage = [*DIGITS, "train", version, "--data", str(paths.DATA), "--timing", str(timing)]
    stage += ["--reference", str(paths.REFERENCE)]
    stage += ["--model", str(folder / "models" / f"{version}.keras")]
    for option in ("history", "machine"):
        stage += [f"--{option}", str(folder / option)]
    evaluate = [*DIGITS, "evaluate", "--data", str(paths.DATA), "--models", str(folder / "models")]
    for option in ("scores", "predictions", "confusion", "onnx"):
        evaluate += [f"--{option}", str(folder / option)]
    for command in (stage, *IDLE.values()):  # creates the database, and brings all up to date
        seconds(command, **(store if command is stage else {}))
    for _ in range(repeats):
        imports.append(seconds(IMPORTS))
        wall = seconds(stage, **store)
        over.append(wall - json.loads(timing.read_text())["training_seconds"])
        multiples.append(over[-1] / imports[-1])
        evaluated.append(seconds(evaluate, **store))
        for name, command in IDLE.items():
            idle[name].append(seconds(command))
        idle["digits --help"].append(seconds([*DIGITS, "--help"]))
    return {
        "imports": summarise(imports),
        "train stage without fit": summarise(over),
        "the same in imports": summarise(multiples),
        "evaluate stage": summarise(evaluated),
        **{name: summarise(values) for name, values in idle.items()},
    }


def tracking_cost(
    version: str, params: Params, dataset: Dataset, repeats: int, folder: Path
) -> dict[str, Any]:
    """Measure a version's training with MLflow as multiple of the same without, in turn."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    connect(folder)
    ratios = []
    for _ in range(repeats + 1):
        with start_run(version, root=folder) as run:
            tracked = train_tracked(version, params, dataset, params.seed, run)
        untracked = train_model(version, params, dataset, seed=params.seed)
        ratios.append(tracked.timing["training_seconds"] / untracked.timing["training_seconds"])
    return summarise(ratios[1:])  # the first pair warms up
