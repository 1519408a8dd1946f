"""A training that an MLflow run records."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset_source import DatasetSource

from digits.core.dataset import Dataset, without_fold
from digits.core.keras_backend import keras
from digits.core.keras_schema import KerasClass
from digits.core.repeat import record
from digits.core.schema import Params
from digits.core.training import EpochTimer, TrainingResult, train_model
from digits.tracking import machine
from digits.tracking.provenance import MAX_PATCH, PATCH, RECORD
from digits.tracking.run import DATA_DIGEST, Run


class MlflowCallback(EpochTimer):
    """Logs each epoch's metrics, seconds and images per second to a run; the first step is 1."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = self.seconds[-1]
        times = {"epoch_seconds": seconds, "images_per_second": self.params["images"] / seconds}
        self._run.metrics({**logs, **times}, step=epoch + 1)


def train_tracked(
    version: str,
    params: Params,
    dataset: Dataset,
    seed: int,
    run: Run,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    patch: bytes = b"",
    fold: tuple[int, int] = (0, 0),
    source: DatasetSource | None = None,
    log_model: bool = True,
) -> TrainingResult:
    """Train one version as `train_model` does, and log all about it to a run.

    The run gets the parameters, the library versions, the images, each epoch's metrics, the
    network's size and times, the record for `digits reproduce` and, with `log_model`, the network
    with its TTA.

    Args:
        patch: the uncommitted change of the code.
        fold: how many training images are held out from it, and which of the disjoint sets.
        source: of the images; by default what params.yaml says, which MLflow cannot load.
    """
    digest = dataset.digest()
    training_set, _ = without_fold(dataset, fold[0], params.seed, fold[1])
    libraries = {f"library.{name}": number for name, number in machine.libraries().items()}
    names = flatten(version, params, seed)
    run.parameters({"model": version, **names, DATA_DIGEST: digest, **libraries})
    origin = CodeDatasetSource({"sources": params.data.dataset})
    run.datasets(training_set, params.data.name, source or origin)
    result = train_model(
        version, params, training_set, seed=seed, callbacks=[*callbacks, MlflowCallback(run)]
    )
    if log_model:
        run.model(result.network, params.tta.get(version, ()))
    seconds = {name: result.timing[name] for name in ("training_seconds", "seconds_per_epoch")}
    run.metrics({"parameters": result.network.count_params(), **seconds})
    run.tags({"precision": result.precision})
    recorded = record(version, params, dataset, seed, fold, result)
    recorded |= {"machine": machine.machine(), "libraries": machine.libraries()}
    run.file(json.dumps(recorded, indent=1).encode(), RECORD)
    if patch:
        run.file(patch[:MAX_PATCH], PATCH)
    return result


def flatten(version: str, params: Params, seed: int) -> dict[str, object]:
    """Return all parameters of a version by name, with its layers on one line as `architecture`.

    No name is that of a parameter in MLproject. `mlflow run` logs those as the user gives them, and
    a parameter cannot be logged twice.
    """
    model, tta = params.model(version), params.tta.get(version, ())
    flat: dict[str, object] = {
        "training.seed": seed,
        "training.epochs": model.epochs,
        "training.batch_size": model.batch_size,
        "training.precision": model.precision,
        "data.validation": params.data.validation,
        "architecture": _architecture(model.layers),
        **{
            f"tta.{index}": _in_words(transform.model_dump()) for index, transform in enumerate(tta)
        },
    }
    for name, choice in {
        "optimizer": model.optimizer,
        "loss_function": model.loss,
        **{f"layers.{index}": layer for index, layer in enumerate(model.layers)},
        **{f"callbacks.{index}": callback for index, callback in enumerate(model.callbacks)},
    }.items():
        flat |= {name: choice.name, **_prefixed(name, choice.arguments)}
    for name, block in (("schedule", model.schedule), ("augmentation", model.augmentation)):
        flat |= _prefixed(name, block.model_dump()) if block else {}
    return flat


def _architecture(layers: Sequence[KerasClass]) -> str:
    """Return layers as `Conv2D(filters=32) > Add([ReLU] + [])`."""
    return " > ".join(
        f"{layer.name}({_in_words(layer.arguments)})".replace("()", "") for layer in layers
    )


def _prefixed(prefix: str, arguments: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{name}": _value(value) for name, value in arguments.items()}


def _in_words(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: object) -> object:
    """Return an argument as it is, or branches of layers as text."""
    if isinstance(value, list) and all(isinstance(branch, list) for branch in value):
        return " + ".join(f"[{_architecture(branch)}]" for branch in value)
    return value
