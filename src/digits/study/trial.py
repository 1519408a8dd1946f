"""One trial: an ordinary training as an MLflow run of its own. Knows nothing of Ray."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from digits import THREADS
from digits.core.dataset import Dataset, hold_out
from digits.core.files import sha256
from digits.core.schema import Params
from digits.study.ensemble import network_path
from digits.study.results import EMPTY, MACHINE, Row
from digits.study.spec import AS_IS, StudySpec, Trial

if TYPE_CHECKING:
    from mlflow.data.dataset_source import DatasetSource

    from digits.core.training import TrainingResult

RESULT = "trial.json"  # an artifact of each finished run: its row

Metrics = Mapping[str, float]


class TrialPrunedError(Exception):
    """Ends a trial that does worse than others."""


@dataclass(frozen=True)
class RunContext:
    """Where the runs of a study are recorded.

    Attributes:
        store: address of MLflow's store.
        root: the project's folder, if it is on this machine.
        state: the folder of the study's networks and of its lock.
        tags: of every run.
        patch: the uncommitted change of the code.
        source: of the images.
        mlflow: variables for MLflow. They are no variables of Ray's, which would write the password
            of a server to its log.
        parent: id of the study's run.
    """

    store: str
    root: Path
    state: Path
    tags: Mapping[str, object]
    patch: bytes = b""
    source: "DatasetSource | None" = None
    mlflow: Mapping[str, str] = field(default_factory=dict, repr=False)
    parent: str = ""


def run_trial(
    trial: Trial,
    spec: StudySpec,
    dataset: Dataset,
    context: RunContext,
    node: str = "",
    report: Callable[[Metrics, Row], object] = lambda metrics, row: None,
    log: Callable[[str], object] = lambda line: None,
) -> Row | None:
    """Train a trial, score it, and return its row of the table; None if it was pruned.

    Args:
        node: address of this machine.
        report: is called after every epoch with its metrics, and with the row of the trial if this
            is the end of it. It may raise TrialPrunedError.
        log: prints a line about the progress.

    Raises:
        DigitsError: training diverged, or the run cannot be recorded.
    """
    for name in THREADS:  # before TensorFlow is imported, below
        os.environ[name] = str(spec.study.threads)
    os.environ.update({**context.mlflow, "MLFLOW_TRACKING_URI": context.store})

    from digits.core import models
    from digits.core.keras_backend import keras
    from digits.tracking import machine, nested_runs
    from digits.tracking.connection import connect
    from digits.tracking.console import ConsoleLog, logged
    from digits.tracking.run import ENDED_TAG, MODEL_TAG, start_run
    from digits.tracking.training import train_tracked

    keras.backend.clear_session()  # The process may have run another trial before.
    params = spec.params(trial)
    is_project_here = context.root.exists()
    root = context.root if is_project_here else Path.cwd()
    connect(root)
    nested_runs.close_open(context.parent, "FAILED", "killed, and tried again", trial.name)
    hardware = machine.machine() | machine.libraries()
    hardware.setdefault("tensorflow", hardware.get("tensorflow-cpu", ""))
    digest = spec.digest(trial, dataset.digest())
    history: dict[str, list[float]] = {}

    def on_epoch_end(epoch: int, logs: Metrics) -> None:
        for name, value in logs.items():
            history.setdefault(name, []).append(value)
        report(logs, _row(spec, trial, digest, history) | {"pruned": True})

    with (
        start_run(trial.name, parent=context.parent, root=root) as run,
        logged(ConsoleLog(trial.name, log), run) as console,
    ):
        run.tags({**context.tags, **hardware, nested_runs.TRIAL_TAG: trial.name})
        run.tags({"version": trial.version, "digest": digest, "node": node})
        if candidates := spec.study.candidates:
            run.tags({"validation": candidates.validation, "fold": trial.fold})
        callbacks = [console, keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)]
        fold = (candidates.validation, trial.fold) if candidates else (0, 0)
        try:
            result = train_tracked(
                *(trial.version, params, dataset, trial.seed, run, callbacks),
                patch=context.patch,
                fold=fold,
                source=context.source,
                log_model=spec.study.models,
            )
        except TrialPrunedError:
            run.tags({ENDED_TAG: "pruned, because others did better"})
            return None
        row = _row(spec, trial, digest, result.history)
        _, held_out = hold_out(dataset.y_train, fold[0], params.seed, fold[1])
        row |= _evaluate(spec, params, trial.version, dataset, held_out, result)
        row["seconds"] = result.timing["training_seconds"]
        row["machine"] = {name: hardware[name] for name in MACHINE}
        test = {f"test_{name}": value for name, value in row["test"].items()}
        run.metrics(test, images=(f"{params.data.name}-testing", dataset.digest("test")))
        if errors := {f"val_errors.{name}": value for name, value in row["errors"].items()}:
            x, y = dataset.x_train[held_out], dataset.y_train[held_out]
            digest = replace(dataset, x_test=x, y_test=y).digest("test")
            run.metrics(errors, images=(f"{params.data.name}-validation", digest))
        if spec.study.models and is_project_here:
            path = network_path(context.state, trial.name)
            models.save(result.network, path)
            run.tags({MODEL_TAG: sha256(path)})
        if not run.is_cut_off and not nested_runs.is_open(run.id):
            raise KeyboardInterrupt  # The study went on without this process.
        run.text(json.dumps(row), RESULT)
    return row


def _row(spec: StudySpec, trial: Trial, digest: str, history: Mapping[str, Sequence[float]]) -> Row:
    """Return the row of a trial that is not scored, with its metrics to six decimals."""
    metrics = {name: [round(value, 6) for value in values] for name, values in history.items()}
    training = {"threads": spec.study.threads, "metrics": metrics, "epochs": len(history["loss"])}
    return EMPTY | asdict(trial) | {"digest": digest, **training}


def _evaluate(
    spec: StudySpec,
    params: Params,
    version: str,
    dataset: Dataset,
    held_out: NDArray[np.intp],
    result: "TrainingResult",
) -> Row:
    """Score a network: over seeds on the test images, of candidates on the held-out ones."""
    from digits.core import models
    from digits.core.evaluation import evaluate_model, misclassified

    network = result.network
    if spec.study.seeds:
        test, tta = (dataset.x_test, dataset.y_test), params.tta.get(version)
        scores = evaluate_model([network], *test, tta or ()).scores
        row = {name: scores[name] for name in ("loss", "accuracy", "errors")}
        if tta:
            row["errors_without_tta"] = evaluate_model([network], *test).scores["errors"]
        return {"test": row}
    if candidates := spec.study.candidates:
        x, y = dataset.x_train[held_out], dataset.y_train[held_out]
        as_is = evaluate_model([network], x, y)
        by_tta = {name: evaluate_model([network], x, y, t) for name, t in candidates.tta.items()}
        images = (len(dataset.y_train) - len(held_out)) * len(result.history["loss"])
        # A step takes three times the multiply-adds of a forward pass, two operations each.
        operations = 3 * 2 * models.multiply_adds(network) * images
        return {
            "errors": {name: e.scores["errors"] for name, e in {AS_IS: as_is, **by_tta}.items()},
            "loss": as_is.scores["loss"],
            "missed": held_out[misclassified(as_is.probabilities, y)].tolist(),
            "tflop": round(operations / 1e12, 1),
        }
    return {}
