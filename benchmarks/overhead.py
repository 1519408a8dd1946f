"""What the pipeline costs beside the arithmetic: whole commands, timed from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paths
from digits import DigitsError
from digits.core import pipeline
from digits.core.dataset import Dataset
from digits.core.schema import Params
from digits.tracking.connection import connect
from digits.tracking.run import start_run
from race import spread

IMPORTS = [sys.executable, "-c", "import tensorflow, mlflow"]
DIGITS = [sys.executable, "-m", "digits"]
IDLE = {"dvc repro, nothing to do": ["dvc", "repro"], "make, nothing to do": ["make"]}


def seconds(command: list[str], **extra: str) -> float:
    """Wall time of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise DigitsError(f"{' '.join(command)}: failed: {done.stderr.strip()[-300:]}")
    return taken


def commands(version: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Wall times of commands; that of a stage without its fit also as multiple of bare imports.

    Args:
        version: the one that is trained.
        folder: an empty one for what the stages write.
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
    for option in ("scores", "predictions", "confusion"):
        evaluate += [f"--{option}", str(folder / option)]
    for command in (stage, *IDLE.values()):  # the database is made, and all brought up to date
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
        "imports": spread(imports),
        "train stage without fit": spread(over),
        "the same in imports": spread(multiples),
        "evaluate stage": spread(evaluated),
        **{name: spread(values) for name, values in idle.items()},
    }


class NoRun:
    """Takes what a run takes, and keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def tracking_cost(
    version: str, params: Params, dataset: Dataset, repeats: int, folder: Path
) -> dict[str, Any]:
    """Seconds of a version's fit with MLflow over those without, in turn."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    connect(folder)
    console = pipeline.Console(lambda line: None)

    def fit(run: Any) -> float:
        return pipeline.train(version, params, params.seed, dataset, run, console)[2][
            "training_seconds"
        ]

    ratios = []
    for number in range(repeats + 1):
        with start_run(version) as run:
            tracked = fit(run)
        untracked = fit(NoRun())
        if number:  # the first pair warms up
            ratios.append(tracked / untracked)
    return spread(ratios)
