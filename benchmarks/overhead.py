"""What the pipeline costs beside the arithmetic: whole commands, timed from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from digits import DigitsError, pipeline, tracking
from digits.dataset import Dataset
from digits.schema import Params
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


def commands(repeats: int, folder: Path) -> dict[str, Any]:
    """Wall times of commands; that of a stage without its fit also as multiple of bare imports.

    Args:
        folder: an empty one for what the stages write.
    """
    idle: dict[str, list[float]] = {name: [] for name in (*IDLE, "digits --help")}
    imports, over, multiples, evaluated = [], [], [], []
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    timing = folder / "timing.json"
    stage = [*DIGITS, "train", "v1", "--data", "data/mnist.npz"]
    stage += ["--reference", "metrics/report-2018.json", "--timing", str(timing)]
    for option in ("model", "history", "machine"):
        stage += [f"--{option}", str(folder / f"{option}.keras")]
    evaluate = [*DIGITS, "evaluate", "--data", "data/mnist.npz", "--models", "data/models"]
    for option in ("scores", "predictions", "confusion"):
        evaluate += [f"--{option}", str(folder / option)]
    seconds(stage, **store)  # makes the database
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


def tracking_cost(params: Params, dataset: Dataset, repeats: int, folder: Path) -> dict[str, Any]:
    """Seconds of v1's fit, the shortest one, with MLflow over those without, in turn."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    tracking.connect(folder)
    console = pipeline.Console(lambda line: None)

    def fit(run: Any) -> float:
        return pipeline.train("v1", params, dataset, run, console)[2]["training_seconds"]

    ratios = []
    for number in range(repeats + 1):
        with tracking.start("v1") as run:
            tracked = fit(run)
        untracked = fit(NoRun())
        if number:  # the first pair warms up
            ratios.append(tracked / untracked)
    return spread(ratios)
