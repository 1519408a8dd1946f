"""Runs in MLflow: the only module that knows it."""

import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from digits import DigitsError, environment, files
from digits.dataset import Dataset

EXPERIMENT = "mnist"
MODEL_TAG = "model_sha256"
SYSTEM_METRICS_EVERY = 2  # seconds; v1 trains for less than 10
WRITE_EVERY = 1.0  # seconds; each writing takes about 15 ms, v1's epochs some 300

# A project run sets it for all its child processes, though only one of them is that run.
INHERITED_RUN = "MLFLOW_RUN_ID"


def connect(root: Path, experiment: str = EXPERIMENT) -> None:
    """Use MLFLOW_TRACKING_URI, else the project's own database, made if it is not there.

    The database's default experiment gets the project's name, so that the runs of DVC and those of
    `mlflow run .`, which MLflow itself opens there, stand in one table.

    Raises:
        DigitsError: the store cannot be used; names it and why.
    """
    own = root.resolve() / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own}"
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    try:
        # MLflow puts the artifacts of a new database under the current folder.
        with chdir(root):
            client = MlflowClient()
            if client.get_experiment_by_name(EXPERIMENT) is None and _is_file(uri, own):
                client.rename_experiment("0", EXPERIMENT)
            if client.get_experiment_by_name(experiment) is None:
                client.create_experiment(experiment)
    except Exception as error:  # of MLflow, its database or the network: any may come through
        raise DigitsError(f"MLflow store {uri}: cannot be used: {_one_line(error)}") from error


def _is_file(uri: str, path: Path) -> bool:
    return uri.startswith("sqlite:") and Path(unquote(uri.removeprefix("sqlite:///"))) == path


class Run:
    """One run, open or closed, and the model that it logged."""

    def __init__(self, run_id: str, model_id: str | None = None) -> None:
        self.id = run_id
        self.model_id = model_id
        self._client = MlflowClient()
        self._unwritten: list[Metric] = []
        self._written = -WRITE_EVERY

    def tags(self, tags: Mapping[str, object]) -> None:
        for name, value in tags.items():
            self._client.set_tag(self.id, name, str(value))

    def parameters(self, parameters: Mapping[str, object]) -> None:
        mlflow.log_params(dict(parameters), run_id=self.id)

    def metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of the run and, once a model is logged, of that model.

        Those of a step wait for others up to a second, or until the run closes.
        """
        now = int(time.time() * 1000)
        self._unwritten += [
            Metric(name, float(value), now, step or 0, self.model_id, run_id=self.id)
            for name, value in metrics.items()
        ]
        if step is None or time.monotonic() - self._written >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Send the metrics that wait."""
        if self._unwritten:
            self._client.log_batch(self.id, self._unwritten)
        self._unwritten, self._written = [], time.monotonic()

    def datasets(self, dataset: Dataset, sources: Sequence[str], digest: str) -> None:
        """Log the training and the test images as inputs; `digest` is shortened to fit MLflow."""
        source = CodeDatasetSource({"sources": " ".join(sources)})
        inputs = [
            DatasetInput(
                from_numpy(
                    x, source=source, targets=y, name=f"mnist-{context}", digest=digest[:32]
                )._to_mlflow_entity(),
                [InputTag("mlflow.data.context", context)],
            )
            for context, x, y in (
                ("training", dataset.x_train, dataset.y_train),
                ("testing", dataset.x_test, dataset.y_test),
            )
        ]
        self._client.log_inputs(self.id, inputs)

    def model(
        self, model: Any, images: NDArray[np.float32], probabilities: NDArray[np.float32]
    ) -> None:
        """Log a Keras model, with one of the images as input example. The run must be open."""
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
        self.model_id = info.model_id

    def figure(self, figure: Figure, name: str) -> None:
        self._client.log_figure(self.id, figure, f"figures/{name}")

    def text(self, text: str, name: str) -> None:
        self._client.log_text(self.id, text, name)


@contextmanager
def start(name: str, *, attach: bool = False, experiment: str = EXPERIMENT) -> Iterator[Run]:
    """Open a run, and close it as what became of it: FINISHED, FAILED or, if interrupted, KILLED.

    Args:
        name: of the run.
        attach: use the run that `mlflow run` opened for this process, if it did; else such a run
            becomes the parent of a new one.
        experiment: where the run is kept, unless it has a parent.
    """
    inherited = os.environ.pop(INHERITED_RUN, None)
    status = "FAILED"
    try:
        run = _open(name, inherited, attach, experiment)
        try:
            yield run
        except KeyboardInterrupt:
            # `mlflow run` 3.17 calls its run FAILED afterwards, whatever it was (it compares the
            # name of a status with numbers); the tag stays.
            run.tags({"interrupted": "true"})
            raise
        finally:
            run.write()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)


def _open(name: str, inherited: str | None, attach: bool, experiment: str) -> Run:
    client = MlflowClient()
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_EVERY)
    try:
        if attach and inherited:
            client.update_run(inherited, name=name)
            mlflow.start_run(run_id=inherited, log_system_metrics=True)
            return Run(inherited)
        beside = client.get_run(inherited).info if inherited else None
        opened = mlflow.start_run(
            experiment_id=(beside or client.get_experiment_by_name(experiment)).experiment_id,
            run_name=name,
            parent_run_id=inherited,
            log_system_metrics=True,
        )
        return Run(opened.info.run_id)
    except MlflowException as error:
        raise DigitsError(f"MLflow: no run could be opened: {_one_line(error)}") from error


@contextmanager
def attached(name: str, wanted: bool) -> Iterator[Run | None]:
    """The run that `mlflow run` opened for this process; None if it did not, or is not wanted."""
    if wanted and INHERITED_RUN in os.environ:
        with start(name, attach=True) as run:
            yield run
    else:
        yield None


def find(model_file: Path) -> Run | None:
    """The newest run that saved a model file with this content, or None."""
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(
        experiments,
        f"tags.{MODEL_TAG} = '{files.sha256(model_file)}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found:
        return None
    logged = found[0].outputs.model_outputs if found[0].outputs else []
    return Run(found[0].info.run_id, logged[0].model_id if logged else None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def share_environment(project: Path, prefix: Path) -> str:
    """Put a link to a Python environment where `mlflow run` looks for that of a project.

    By default MLflow builds one with pyenv, named by a hash of what python_env.yaml asks for,
    unless one of that name is there.

    Returns:
        The link's path.

    Raises:
        DigitsError: the link cannot be made.
    """
    from mlflow.environment_variables import MLFLOW_ENV_ROOT
    from mlflow.projects.utils import load_project
    from mlflow.utils.environment import _PythonEnv
    from mlflow.utils.virtualenv import _get_virtualenv_name

    file = load_project(str(project)).env_config_path
    if file is None:
        raise DigitsError(f"{project}: no MLproject with a python_env there")
    wanted = _PythonEnv.from_yaml(file)
    link = Path(MLFLOW_ENV_ROOT.get()).expanduser() / _get_virtualenv_name(wanted, project)
    if link.exists() and not link.is_symlink():
        return str(link)
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(prefix, target_is_directory=True)
    except OSError as error:
        raise DigitsError(
            f"{link}: cannot be made ({error.strerror}): use `mlflow run . --env-manager local`, "
            "or set MLFLOW_ENV_ROOT to a folder that can be written"
        ) from error
    return str(link)
