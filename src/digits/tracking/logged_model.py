"""Models as MLflow stores them: for `mlflow.keras` the network, for `mlflow.pyfunc` with TTA."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient

import digits
from digits import CLASSES, IMAGE_SIDE
from digits.core.schema import Transform
from digits.tracking import machine

TTA_TAG = "tta"
CODE = "code"
# The files of this package that pyfunc.py imports or may import.
SOURCES = ("__init__.py", "core/*.py", "tracking/__init__.py", "tracking/pyfunc.py")
REQUIREMENTS = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pydantic", "psutil")
# One image of a bar, which may be read as a 1.
EXAMPLE = np.zeros((1, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
EXAMPLE[:, 4:24, 13:15] = 255
SIGNATURE = infer_signature(
    EXAMPLE,
    {"label": np.zeros(1, np.int64), "probabilities": np.zeros((1, CLASSES), np.float32)},
)


def log_model(network: Any, tta: Sequence[Transform], run_id: str) -> str:
    """Log a Keras model to a run, open or closed, and return the logged model's id."""
    client = MlflowClient()
    run = client.get_run(run_id)
    # `Model.log` of MLflow 3.17 would put the model of a closed run into the default experiment.
    created = client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={TTA_TAG: tta_json(tta)},
        params=run.data.params,
    )
    info = Model.log(
        artifact_path=None,
        name="model",
        run_id=run_id,
        model_id=created.model_id,
        flavor=_Flavor,
        network=network,
        tta=tta_json(tta),
        validate_serving_input=False,  # It would load the model; our tests do so instead.
    )
    return str(info.model_id)


def logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """Return the models that a run has logged completely, the newest last."""
    outputs = run.outputs.model_outputs if run.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    ready = [model for model in models if model.status == LoggedModelStatus.READY]
    return sorted(ready, key=lambda model: model.creation_timestamp)


def tta_json(tta: Sequence[Transform]) -> str:
    """Return transforms as JSON, which is equal only if they are."""
    return json.dumps([transform.model_dump() for transform in tta])


class _Flavor:
    """Tells MLflow's `Model.log` how to write a model."""

    @staticmethod
    def save_model(
        path: str, mlflow_model: Model, network: Any, tta: str, validate_serving_input: bool
    ) -> None:
        from digits.tracking import pyfunc  # isort: skip  Imports TensorFlow.
        import mlflow.keras

        folder = Path(path)
        folder.mkdir()  # MLflow 3.17 writes the input example before (its issue 16183).
        mlflow.keras.save_model(
            network,
            path,
            mlflow_model=mlflow_model,
            signature=SIGNATURE,
            input_example=EXAMPLE,
            # Without it MLflow loads the model in another process to see what it imports.
            pip_requirements=[f"{n}=={v}" for n, v in machine.libraries(REQUIREMENTS).items()],
        )
        (folder / pyfunc.TTA_FILE).write_text(tta)
        package = Path(digits.__file__).parent
        for source in (source for pattern in SOURCES for source in package.glob(pattern)):
            target = folder / CODE / package.name / source.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        environment = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME]["env"]
        mlflow.pyfunc.add_to_model(
            mlflow_model,
            loader_module=pyfunc.__name__,
            code=CODE,
            conda_env=environment["conda"],
            python_env=environment["virtualenv"],
        )
        mlflow_model.save(str(folder / "MLmodel"))
