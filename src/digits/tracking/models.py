"""A Keras model as MLflow keeps it."""

import io
import os
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

import numpy as np
from mlflow.models import infer_signature
from numpy.typing import NDArray

from digits import environment


def log_model(model: Any, images: NDArray[np.float32], probabilities: NDArray[np.float32]) -> str:
    """Log a model to the open run, with one of the images as input example; the model's id."""
    import mlflow.keras

    packages = ("keras", "tensorflow", "tensorflow-cpu", "numpy")
    versions = environment.libraries()
    save_model = mlflow.keras.save_model

    def save_in_folder(model: Any, path: str, **options: Any) -> None:
        os.makedirs(path)
        save_model(model, path, **options)

    # MLflow 3.17 writes the input example before it makes the folder (its issue 16183).
    # Nor can it be kept from drawing a progress bar while it tries the example.
    with (
        patch.object(mlflow.keras, "save_model", save_in_folder),
        redirect_stdout(io.StringIO()),
    ):
        info = mlflow.keras.log_model(
            model,
            name="model",
            signature=infer_signature(images, probabilities),
            input_example=images[:1],
            # Without it MLflow loads the model in another process to see what it imports.
            pip_requirements=[f"{p}=={versions[p]}" for p in packages if p in versions],
        )
    return str(info.model_id)
