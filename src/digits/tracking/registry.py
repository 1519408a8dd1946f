"""MLflow's model registry: each trained version registered once, one of them the champion."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from digits import DigitsError
from digits.core.schema import Params, Transform
from digits.tracking import local_store, notes
from digits.tracking.connection import find_run
from digits.tracking.errors import in_one_line
from digits.tracking.logged_model import TTA_TAG, log_model, logged_models, tta_json
from digits.tracking.promotion import RegisteredModel, select_champion
from digits.tracking.run import DATA_DIGEST, MODEL_TAG, VERSION_TAG, Log, Run

CHAMPION = "champion"
SCORES = ("test_accuracy", "test_errors", "test_loss", "train_accuracy")


def register_models(
    paths: Mapping[str, Path], params: Params, root: Path, log: Log, force: bool = False
) -> str:
    """Register the .keras files of versions, and make the best the champion by the policy.

    `log` prints which version is not registered, and why. With `force`, the best of these models is
    the champion in any case.

    Returns:
        A line that names the champion and says why it is.

    Raises:
        DigitsError: MLflow's registry cannot be used.
    """
    policy, candidates = params.registry, []
    lock = local_store.lock(root) if local_store.is_own(root) else nullcontext()
    with in_one_line("MLflow registry", "; `digits register` tries again"), lock:
        for version, path in paths.items():
            run = find_run(path, root=root)
            if run is None:
                log(f"{version}: not registered: MLflow has no run that made {path}")
            elif model := register(policy.name, run, path, params.tta.get(version, ())):
                candidates.append(model)
            else:
                log(
                    f"{version}: not registered: its run has no scores with these tta: `digits "
                    "send` if it waits for a server, else `dvc repro -f evaluate`"
                )
        current = champion(policy.name)
        best, reason = select_champion(candidates, current, policy, force)
        if best and best != current:
            MlflowClient().set_registered_model_alias(policy.name, CHAMPION, str(best.number))
    return f"{policy.name}@{CHAMPION}: {reason}"


def register(name: str, run: Run, path: Path, tta: Sequence[Transform]) -> RegisteredModel | None:
    """Register the model that a run trained, unless it is registered already.

    The .keras file at `path` is logged again if the run has logged it with other TTA.

    Returns:
        The registered model; None if the run has no scores, or scores with other TTA.
    """
    client = MlflowClient()
    logged = client.get_run(run.id)
    try:
        client.create_registered_model(name, description=notes.render("model", name=name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        VERSION_TAG: logged.data.tags[VERSION_TAG],
        MODEL_TAG: logged.data.tags[MODEL_TAG],
        DATA_DIGEST: logged.data.params[DATA_DIGEST],
        TTA_TAG: tta_json(tta),
    }
    for existing in mlflow.search_model_versions(filter_string=f"name = '{name}'"):
        if tags.items() <= existing.tags.items():
            return _described(client, existing)
    scores = {metric: logged.data.metrics.get(metric) for metric in SCORES}
    if None in scores.values() or logged.data.tags.get(TTA_TAG) != tags[TTA_TAG]:
        return None
    models = [m for m in logged_models(client, logged) if m.tags.get(TTA_TAG) == tags[TTA_TAG]]
    if models:
        model_id = models[-1].model_id
    else:
        from digits.core.models import load as load_network  # Imports TensorFlow.

        model_id = log_model(load_network(path), tta, run.id)
    tags |= {metric: str(value) for metric, value in scores.items()}
    source = f"models:/{model_id}"
    entry = client.create_model_version(name, source, run_id=run.id, tags=tags, model_id=model_id)
    return _described(client, entry)


def _described(client: MlflowClient, entry: ModelVersion) -> RegisteredModel:
    """Describe a registered version that has no description yet."""
    if not entry.description:
        note = notes.render("model", name=entry.name, number=entry.version, tags=entry.tags)
        client.update_model_version(entry.name, entry.version, note)
    return _registered_model(entry)


def champion(name: str) -> RegisteredModel | None:
    """Return the registered model with the alias `champion`, if there is one."""
    with in_one_line(f"{name}@{CHAMPION}: cannot be read"):
        try:
            return _registered_model(MlflowClient().get_model_version_by_alias(name, CHAMPION))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def load(name: str) -> Any:
    """Return the champion; its `predict` is that of `digits.tracking.pyfunc.ImageClassifier`.

    Raises:
        DigitsError: it cannot be loaded.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with in_one_line(f"{name}@{CHAMPION}: cannot be loaded"):
        return mlflow.pyfunc.load_model(f"models:/{name}@{CHAMPION}")


def image_shape_and_classes(model: Any) -> tuple[tuple[int, ...], int]:
    """Return the (height, width, channels) and the number of classes in a champion's signature."""
    signature = model.metadata.signature
    (images,), outputs = signature.inputs.inputs, signature.outputs.input_dict()
    return (*images.shape[1:], 1)[:3], outputs["probabilities"].shape[1]


def _registered_model(entry: ModelVersion) -> RegisteredModel:
    missing = [tag for tag in (VERSION_TAG, DATA_DIGEST, *SCORES) if tag not in entry.tags]
    if missing:
        raise DigitsError(
            f"{entry.name} version {entry.version}: has no tag {missing[0]}, so not registered by "
            f"`digits`: give the alias {CHAMPION} to another, or remove it"
        )
    return RegisteredModel(
        int(entry.version),
        entry.tags[VERSION_TAG],
        entry.tags[DATA_DIGEST],
        {metric: float(entry.tags[metric]) for metric in SCORES},
    )
