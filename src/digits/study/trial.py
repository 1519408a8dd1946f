"""One trial: our ordinary training, as an MLflow run of its own. Knows nothing of Ray."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from digits.core.dataset import Dataset
from digits.study.spec import Plan, Trial

Result = dict[str, Any]
RESULT = "trial.json"


@dataclass(frozen=True)
class RunContext:
    """Where the trials of a study are recorded.

    Attributes:
        store: address of MLflow's store.
        parent: id of the study's run.
        root: the project's folder, if it is on this machine.
        tags: that every run of the study has.
        node: address of the machine that does the work.
    """

    store: str
    parent: str
    root: Path
    tags: Mapping[str, object]
    node: str = ""


def use_threads(threads: int) -> None:
    """Have TensorFlow, which is not imported yet, compute with so many threads."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)


def train(
    trial: Trial,
    plan: Plan,
    dataset: Dataset,
    place: RunContext,
    told: Callable[[Mapping[str, float]], None] = lambda metrics: None,
) -> Result:
    """Train a trial and say what came of it.

    Args:
        told: is called after every epoch with its metrics.

    Returns:
        The trial; the `digest` of what its result follows from; `metrics` by epoch, six decimals;
        with trials over seeds, the `test` loss, accuracy and errors. And `seconds`, and the
        `machine`: those alone differ when it is repeated.

    Raises:
        DigitsError: training diverged, or the run cannot be recorded.
    """
    use_threads(plan.study.threads)
    os.environ["MLFLOW_TRACKING_URI"] = place.store

    from digits.core import evaluation, pipeline, prediction
    from digits.core.keras_backend import keras
    from digits.tracking import machine, nested_runs
    from digits.tracking.connection import connect
    from digits.tracking.run import start_run

    keras.backend.clear_session()  # of the trial before, in the same process
    params = plan.params(trial)
    console = pipeline.Console(lambda line: None)
    root = place.root if place.root.exists() else Path.cwd()
    connect(root)
    nested_runs.close(place.parent, "FAILED", "killed, and tried again", trial.name)
    digest = plan.digest(trial, dataset.digest())
    made_by = machine.machine() | machine.libraries()
    given_up = None
    with start_run(trial.name, parent=place.parent, root=root) as run:
        run.tags({**place.tags, **made_by, nested_runs.TRIAL_TAG: trial.name})
        run.tags({"version": trial.version, "digest": digest, "node": place.node})
        try:
            model, epochs, times = pipeline.train(
                trial.version,
                params,
                trial.seed,
                dataset,
                run,
                console,
                told=lambda epoch: told(epoch.metrics),
                keep_model=plan.study.models,
            )
        except SystemExit as stop:  # how Ray ends a trial that does worse than others
            given_up = stop
            run.tags({"ended": "given up, because others did better"})
        else:
            result = {
                **asdict(trial),
                "digest": digest,
                "threads": plan.study.threads,
                "metrics": by_epoch([epoch.metrics for epoch in epochs]),
            }
            if plan.study.seeds:
                tta = params.tta.get(trial.version, [])
                probabilities = prediction.probabilities(model, dataset.x_test, tta)
                scored = evaluation.score(probabilities, dataset.y_test)
                result["test"] = {name: scored[name] for name in ("loss", "accuracy", "errors")}
                run.metrics({f"test_{name}": value for name, value in result["test"].items()})
            if not run.is_cut_off and not nested_runs.is_open(run.id):
                raise KeyboardInterrupt  # the study went on without this process
            result |= {"seconds": times["training_seconds"], "machine": made_by}
            run.text(json.dumps(result), RESULT)
        run.text("\n".join(console.lines) + "\n", "console.log")
    if given_up:
        raise given_up
    return result


def by_epoch(epochs: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Metrics by name, six decimals, in the order of the epochs."""
    return {name: [round(metrics[name], 6) for metrics in epochs] for name in epochs[0]}
