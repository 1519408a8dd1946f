"""A model as MLflow keeps it: by itself for `mlflow.keras`, and answering for `mlflow.pyfunc`."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

import digits
from digits.core.schema import Transform
from digits.tracking import machine

TTA_TAG = "tta"
CODE = "code"
NEEDED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pydantic", "psutil")


def log_model(
    model: Any,
    images: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    tta: Sequence[Transform],
    run: str,
) -> str:
    """Log a model to a run, open or closed, with one of the images as input example; its id.

    Args:
        model: a Keras model of (n, 28, 28, 1) pixels.
        images: (n, 28, 28) raw images, which tell what is asked.
        probabilities: of these images, which tell what is answered.
        tta: through which it sees images when it is asked by `mlflow.pyfunc`.
        run: its id.
    """
    client = MlflowClient()
    found = client.get_run(run)
    # MLflow 3.17 would put that of a closed run into its default experiment.
    made = client.create_logged_model(
        found.info.experiment_id,
        name="model",
        source_run_id=run,
        tags={TTA_TAG: tta_json(tta)},
        params=found.data.params,
    )
    answers = {"label": probabilities.argmax(axis=1), "probabilities": probabilities}
    info = Model.log(
        artifact_path=None,
        name="model",
        run_id=run,
        model_id=made.model_id,
        flavor=_Flavor,
        model=model,
        tta=tta_json(tta),
        signature=infer_signature(images, answers),
        input_example=images[:1],
        validate_serving_input=False,  # it would load the model to do so; tests do
    )
    return str(info.model_id)


def logged_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The models that a run has logged whole, the newest last."""
    outputs = run.outputs.model_outputs if run.outputs else []
    found = [client.get_logged_model(output.model_id) for output in outputs]
    whole = [model for model in found if model.status == LoggedModelStatus.READY]
    return sorted(whole, key=lambda model: model.creation_timestamp)


def tta_json(tta: Sequence[Transform]) -> str:
    """Views as text, equal only where they are."""
    return json.dumps([view.model_dump() for view in tta])


class _Flavor:
    """How MLflow's `Model.log` has a model written."""

    @staticmethod
    def save_model(
        path: str,
        mlflow_model: Model,
        model: Any,
        tta: str,
        signature: ModelSignature,
        input_example: NDArray[np.uint8],
        validate_serving_input: bool,
    ) -> None:
        import mlflow.keras
        import mlflow.pyfunc

        from digits.tracking import pyfunc

        folder = Path(path)
        folder.mkdir()  # MLflow 3.17 writes the input example before (its issue 16183)
        mlflow.keras.save_model(
            model,
            path,
            mlflow_model=mlflow_model,
            signature=signature,
            input_example=input_example,
            # Without it MLflow loads the model in another process to see what it imports.
            pip_requirements=[f"{n}=={v}" for n, v in machine.libraries(NEEDED).items()],
        )
        (folder / pyfunc.VIEWS).write_text(tta)
        package = Path(digits.__file__).parent
        (folder / CODE / package.name).mkdir(parents=True)
        for module in package.glob("*.py"):
            shutil.copy(module, folder / CODE / package.name)
        keras_flavor = mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME]
        mlflow.pyfunc.add_to_model(
            mlflow_model,
            loader_module=pyfunc.__name__,
            code=CODE,
            conda_env=keras_flavor["env"]["conda"],
            python_env=keras_flavor["env"]["virtualenv"],
        )
        mlflow_model.save(str(folder / "MLmodel"))
