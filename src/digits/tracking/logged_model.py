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
from numpy.typing import NDArray

import digits
from digits.core.layer_schema import Shape
from digits.core.schema import Transform
from digits.tracking import machine

TTA_TAG = "tta"
CODE = "code"
# What `mlflow models serve` imports: an environment of 251 MB, of 694 MB with all of MLflow.
SERVER = ("mlflow-skinny", "fastapi", "pandas", "uvicorn")
# The files of this package that pyfunc.py imports, and the libraries that they import.
SOURCES = (
    *("__init__.py", "serving/__init__.py", "serving/classifier.py"),
    *("tracking/__init__.py", "tracking/pyfunc.py"),
)
REQUIREMENTS = ("numpy", "onnxruntime", *SERVER)
# The same for layers of the user's own, which only Keras can compute.
KERAS_SOURCES = ("core/*.py", "serving/keras_classifier.py")
KERAS_REQUIREMENTS = (
    *("keras", "tensorflow", "tensorflow-cpu"),
    *("pydantic", "psutil", "ruamel.yaml"),
)


def log_model(network: Any, tta: Sequence[Transform], run_id: str) -> str:
    """Log a Keras model to a run, open or closed, and return the logged model's id.

    A run trains one model: if it has logged it with the same TTA, this is the one.
    """
    client = MlflowClient()
    run = client.get_run(run_id)
    if logged := find_logged(client, run, tta):
        return str(logged.model_id)
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


def find_logged(client: MlflowClient, run: Run, tta: Sequence[Transform]) -> LoggedModel | None:
    """Return the model that a run has logged with this TTA; None if it has not."""
    models = [m for m in logged_models(client, run) if m.tags.get(TTA_TAG) == tta_json(tta)]
    return models[-1] if models else None


def tta_json(tta: Sequence[Transform]) -> str:
    """Return transforms as JSON, which is equal only if they are."""
    return json.dumps([transform.model_dump() for transform in tta])


def example_image(shape: Shape) -> NDArray[np.uint8]:
    """Return one image of a bar, which may be read as a 1: (1, height, width) if it is grey."""
    height, width, channels = shape
    image = np.zeros((1, height, width, channels), np.uint8)
    image[:, height // 7 : height - height // 7, max(width // 2 - 1, 0) : width // 2 + 1] = 255
    return image if channels > 1 else image[..., 0]


class _Flavor:
    """Tells MLflow's `Model.log` how to write a model."""

    @staticmethod
    def save_model(
        path: str, mlflow_model: Model, network: Any, tta: str, validate_serving_input: bool
    ) -> None:
        # These import TensorFlow.
        from digits.core.models import own_modules
        from digits.serving.classifier import LOGGED_FILE
        from digits.serving.export import export
        from digits.tracking import pyfunc  # isort: skip
        import mlflow.keras

        example, classes = example_image(network.input_shape[1:]), network.output_shape[-1]
        answer = {
            "label": np.zeros(1, np.int64),
            "probabilities": np.zeros((1, classes), np.float32),
        }
        folder, own = Path(path), own_modules(network)
        sources = SOURCES + (KERAS_SOURCES if own else ())
        libraries = machine.libraries(REQUIREMENTS + (KERAS_REQUIREMENTS if own else ()))
        folder.mkdir()  # MLflow 3.17 writes the input example before (its issue 16183).
        mlflow.keras.save_model(
            network,
            path,
            mlflow_model=mlflow_model,
            signature=infer_signature(example, answer),
            input_example=example,
            # Without it MLflow loads the model in another process to see what it imports.
            pip_requirements=[f"{name}=={version}" for name, version in libraries.items()],
        )
        (folder / pyfunc.TTA_FILE).write_text(tta)
        if not own:
            transforms = [Transform.model_validate(transform) for transform in json.loads(tta)]
            (folder / LOGGED_FILE).write_bytes(export(network, transforms))
        package = Path(digits.__file__).parent
        for source in (source for pattern in sources for source in package.glob(pattern)):
            target = folder / CODE / package.name / source.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        for module in own:
            shutil.copy(module, folder / CODE / module.name)
        environment = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME]["env"]
        mlflow.pyfunc.add_to_model(
            mlflow_model,
            loader_module=pyfunc.__name__,
            code=CODE,
            conda_env=environment["conda"],
            python_env=environment["virtualenv"],
        )
        mlflow_model.save(str(folder / "MLmodel"))
