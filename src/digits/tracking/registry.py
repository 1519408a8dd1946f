"""MLflow's model registry: each trained version registered once, one of them the champion."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from digits import DigitsError
from digits.core.schema import Params, Registry, Transform
from digits.tracking import local_store, notes
from digits.tracking.connection import find_run
from digits.tracking.errors import in_one_line, try_twice
from digits.tracking.logged_model import TTA_TAG, find_logged, tta_json
from digits.tracking.promotion import CHAMPION, RegisteredModel, best, select_champion
from digits.tracking.run import DATA_DIGEST, MODEL_TAG, VERSION_TAG, Log, Run

if TYPE_CHECKING:
    from digits.serving.classifier import Classifier

CROWNED = "became_champion"  # when a registered version last did
TEST_IMAGES = "test_images.digest"  # of those that it was scored on, as the metrics have it
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
            elif model := register(policy.name, run, params.tta.get(version, ())):
                candidates.append(model)
            else:
                log(
                    f"{version}: not registered: its run has no scores with these tta: `digits "
                    "send` if it waits for a server, else `dvc repro -f evaluate`"
                )
        before = {entry.version: entry.tags.get(CROWNED) for entry in _versions(policy.name)}
        current = champion(policy.name)
        chosen, reason = select_champion(candidates, current, policy, force)
        if chosen and chosen != current:
            _crown(policy.name, chosen)
            if not force and (other := _settle(policy, chosen, before)) != chosen:
                reason = f"{other.describe(policy.metric)}, which another process chose meanwhile"
    return f"{policy.name}@{CHAMPION}: {reason}"


def _versions(name: str) -> list[ModelVersion]:
    versions: list[ModelVersion] = mlflow.search_model_versions(filter_string=f"name = '{name}'")
    return versions


def _crown(name: str, model: RegisteredModel) -> None:
    """Move the alias to a model and, after that, mark the model with the time."""
    client, number, now = MlflowClient(), str(model.number), datetime.now(UTC).isoformat()
    try_twice(lambda: client.set_registered_model_alias(name, CHAMPION, number))
    try_twice(lambda: client.set_model_version_tag(name, number, CROWNED, now))


def _settle(
    policy: Registry, model: RegisteredModel, before: Mapping[str, str | None]
) -> RegisteredModel:
    """Leave the alias with the best of a model and those that others crowned at the same time.

    MLflow moves an alias whoever else has moved it. So of two processes that have read the same
    champion, the lesser may be the second to replace it. But each looks for new marks after it has
    moved the alias and set its own: the one that looks last knows of both.

    Args:
        model: that this process has crowned.
        before: the marks by version, from before this process read who the champion is.

    Returns:
        The champion.
    """
    while True:
        marked = [e for e in _versions(policy.name) if e.tags.get(CROWNED) != before.get(e.version)]
        holder = champion(policy.name)
        others = [*map(_registered_model, marked), *filter(None, [holder])]
        winner = best([model, *(o for o in others if o.is_comparable(model))], policy.metric)
        if holder is None or holder.number == winner.number or not holder.is_comparable(model):
            return holder or model
        _crown(policy.name, winner)


def register(name: str, run: Run, tta: Sequence[Transform]) -> RegisteredModel | None:
    """Register the model that a run trained, unless it is registered already.

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
    model = find_logged(client, logged, tta)
    scores, test_images = _scores(model) if model else ({}, None)
    for existing in _versions(name):
        of_same_images = existing.tags.get(TEST_IMAGES) in (test_images, None)
        if tags.items() <= existing.tags.items() and of_same_images:
            return _described(client, existing)
    if model is None or len(scores) < len(SCORES) or logged.data.tags.get(TTA_TAG) != tags[TTA_TAG]:
        return None
    tags |= {metric: str(value) for metric, value in scores.items()}
    tags |= {TEST_IMAGES: test_images} if test_images else {}
    source, id = f"models:/{model.model_id}", model.model_id
    entry = client.create_model_version(name, source, run_id=run.id, tags=tags, model_id=id)
    return _described(client, entry)


def _scores(model: LoggedModel) -> tuple[dict[str, float], str | None]:
    """Return the newest scores of a logged model, and the digest of the test images, if known."""
    newest = {m.key: m for m in sorted(model.metrics or [], key=lambda metric: metric.timestamp)}
    scores = {name: newest[name].value for name in SCORES if name in newest}
    test = newest.get("test_accuracy")
    return scores, test.dataset_digest if test else None


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


def load(name: str) -> "Classifier":
    """Return the champion's classifier.

    Raises:
        DigitsError: it cannot be loaded.
    """
    from digits.tracking.pyfunc import classifier

    address = f"models:/{name}@{CHAMPION}"
    with in_one_line(f"{name}@{CHAMPION}: cannot be loaded"), TemporaryDirectory() as folder:
        return classifier(Path(mlflow.artifacts.download_artifacts(address, dst_path=folder)))


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
        entry.tags.get(TEST_IMAGES),
    )
