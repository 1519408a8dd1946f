"""The registered model: each trained version once, and the champion among them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from digits import DigitsError
from digits.core.schema import Transform
from digits.tracking.logged_model import TTA_TAG, log_model, logged_models, tta_json
from digits.tracking.outbox import one_line
from digits.tracking.promotion import Entry
from digits.tracking.run import MODEL_TAG, Run

CHAMPION = "champion"
DATA_TAG, VERSION_TAG = "data.sha256", "version"
SCORES = ("test_accuracy", "test_errors", "test_loss", "train_accuracy")
Examples = Callable[[], tuple[Any, NDArray[np.uint8], NDArray[np.float32]]]


def register(name: str, run: Run, tta: Sequence[Transform], examples: Examples) -> Entry | None:
    """Register the model that a run trained, unless it is.

    Returns:
        What is registered; None if the run has no scores yet, or those of other tta.

    Args:
        name: of the registered model, made if it is not there.
        run: that trained and scored it.
        tta: through which the model is to see images.
        examples: gives the model, images and their probabilities, to log it if what the run has
            logged does not see images so.
    """
    client = MlflowClient()
    told = client.get_run(run.id)
    with _if_not_there():
        description = "Handwritten digits: (n, 28, 28) raw images to labels and probabilities."
        client.create_registered_model(name, description=description)
    tags = {
        VERSION_TAG: told.data.tags[VERSION_TAG],
        MODEL_TAG: told.data.tags[MODEL_TAG],
        DATA_TAG: told.data.params[DATA_TAG],
        TTA_TAG: tta_json(tta),
    }
    for known in _all(client, name):
        if all(known.tags.get(key) == text for key, text in tags.items()):
            return _entry(known)
    scores = {metric: told.data.metrics.get(metric) for metric in SCORES}
    if None in scores.values() or told.data.tags.get(TTA_TAG) != tags[TTA_TAG]:
        return None
    model = _logged(client, told, tags[TTA_TAG]) or log_model(*examples(), tta, run.id)
    tags |= {metric: str(value) for metric, value in scores.items()}
    made = client.create_model_version(
        name, f"models:/{model}", run_id=run.id, tags=tags, model_id=model
    )
    return _entry(made)


def champion(name: str) -> Entry | None:
    """The registered model with the alias `champion`, if there is one."""
    try:
        return _entry(MlflowClient().get_model_version_by_alias(name, CHAMPION))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise DigitsError(f"{name}@{CHAMPION}: cannot be told: {one_line(error)}") from error


def set_champion(name: str, entry: Entry) -> None:
    """Give a registered model the alias `champion`."""
    MlflowClient().set_registered_model_alias(name, CHAMPION, str(entry.number))


def load(name: str) -> Any:
    """The champion; its `predict` is that of `digits.served.Served`.

    Raises:
        DigitsError: it cannot be loaded.
    """
    import mlflow.pyfunc

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        return mlflow.pyfunc.load_model(f"models:/{name}@{CHAMPION}")
    except Exception as error:  # of MLflow, files or the network: any may come through
        raise DigitsError(f"{name}@{CHAMPION}: cannot be loaded: {one_line(error)}") from error


def _logged(client: MlflowClient, run: Any, tta: str) -> str | None:
    """The id of the newest model that a run logged with these tta, if there is one."""
    found = [model for model in logged_models(client, run) if model.tags.get(TTA_TAG) == tta]
    return str(found[-1].model_id) if found else None


def _all(client: MlflowClient, name: str) -> list[ModelVersion]:
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


@contextmanager
def _if_not_there() -> Iterator[None]:
    """Go on where a thing to be made is there."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _entry(found: ModelVersion) -> Entry:
    missing = [tag for tag in (VERSION_TAG, DATA_TAG, *SCORES) if tag not in found.tags]
    if missing:
        raise DigitsError(
            f"{found.name} version {found.version}: has no tag {missing[0]}, so not registered by "
            f"`digits`: give the alias {CHAMPION} to another, or remove it"
        )
    return Entry(
        int(found.version),
        found.tags[VERSION_TAG],
        found.tags[DATA_TAG],
        {metric: float(found.tags[metric]) for metric in SCORES},
    )
