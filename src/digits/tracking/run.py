"""Open, log to and close MLflow runs."""

import base64
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import mlflow
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from digits import DigitsError
from digits.core.dataset import Dataset
from digits.core.schema import Transform
from digits.tracking import local_store, machine, outbox
from digits.tracking.errors import in_one_line, one_line
from digits.tracking.local_store import EXPERIMENT
from digits.tracking.logged_model import log_model

OUTBOX = "outbox"  # the folder for entries of runs whose server is gone
VERSION_TAG, MODEL_TAG, DATA_DIGEST = "version", "model_sha256", "data.sha256"
PROCESS_TAG = "process"  # the process that is to close the run
ENDED_TAG = "ended"  # why another process closed the run
ERROR_TAG = "error"  # the line that the command printed, if it ended with one
ABANDONED = "its process was killed, or the machine stopped"
SYSTEM_METRICS_INTERVAL = 2  # seconds; v1 trains for less than 10
FLUSH_INTERVAL = 1.0  # seconds; each request takes about 15 ms, an epoch of v1 some 300
DIGEST_LENGTH = 32  # MLflow takes half of a SHA-256.
# The parts of a dataset as MLflow calls them.
CONTEXTS: Mapping[Literal["train", "test"], str] = {"train": "training", "test": "testing"}
# `mlflow run` sets it for all its child processes, though only one of them is that run.
INHERITED_RUN = "MLFLOW_RUN_ID"

Log = Callable[[str], object]


def ignore(line: str) -> None:
    """Print nothing: the default of `log`."""


class Run:
    """One run, open or closed, and the model that it logged.

    Work goes on if the server is lost: from then on, all that is logged is added to the outbox.

    Attributes:
        id: of the run in MLflow.
        model_id: of the logged model in MLflow, if there is one.
        outbox_folder: where entries go once the server is lost.
        is_cut_off: whether the server is lost.
    """

    def __init__(
        self,
        run_id: str,
        model_id: str | None = None,
        root: Path = Path(),
        log: Log = ignore,
    ) -> None:
        self.id = run_id
        self.model_id = model_id
        self.outbox_folder = root / OUTBOX / run_id
        self.is_cut_off = False
        self._log = log
        self._client = MlflowClient()
        self._waiting: list[tuple[str | float, ...]] = []
        self._last_flush = -FLUSH_INTERVAL

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        self._record({"tags": {name: str(value) for name, value in tags.items()}})

    def parameters(self, parameters: Mapping[str, object]) -> None:
        """Log parameters."""
        self._record({"parameters": {name: str(value) for name, value in parameters.items()}})

    def metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
        images: tuple[str, str] | None = None,
    ) -> None:
        """Log metrics of the run and, once it has logged a model, of that model.

        Metrics with a step wait up to a second for others, or until the run is closed.

        Args:
            images: those that the metrics were computed on: their name and SHA-256.
        """
        now = get_current_time_millis()
        dataset = (images[0], images[1][:DIGEST_LENGTH]) if images else ()
        self._waiting += [
            (name, float(value), now, step or 0, *dataset) for name, value in metrics.items()
        ]
        if step is None or time.monotonic() - self._last_flush >= FLUSH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait."""
        if self._waiting:
            self._record({"metrics": self._waiting, "model": self.model_id})
        self._waiting, self._last_flush = [], time.monotonic()

    def datasets(self, dataset: Dataset, name: str, source: DatasetSource) -> None:
        """Log the training and the test images as inputs, each with its own digest.

        If MLflow has the same images of an earlier run, their source stays the earlier one.
        """
        inputs = {}
        for part, context in CONTEXTS.items():
            x, y = (getattr(dataset, f"{axis}_{part}") for axis in "xy")
            digest = dataset.digest(part)[:DIGEST_LENGTH]
            images = from_numpy(x, source, targets=y, name=f"{name}-{context}", digest=digest)
            inputs[context] = images.to_dict()
        self._record({"datasets": inputs})

    def model(self, network: Any, tta: Sequence[Transform] = ()) -> None:
        """Log a Keras model, with its TTA."""
        if not self.is_cut_off:
            with self._detecting_loss():
                self.model_id = log_model(network, tta, self.id)
                return
        outbox.append_model(self.outbox_folder, network, tta)

    def image(self, png: bytes, name: str) -> None:
        """Log a PNG file among the figures."""
        self.file(png, f"figures/{name}")

    def text(self, text: str, name: str) -> None:
        """Log a text file."""
        self.file(text.encode(), name)

    def file(self, content: bytes, name: str) -> None:
        """Log a file."""
        self._record({"artifact": base64.b64encode(content).decode(), "name": name})

    def describe(self) -> None:
        """Describe the run and its experiment anew, from what was logged."""
        self._record({"describe": True})

    def close(self, status: str) -> None:
        """Send the metrics that wait, describe the run, and end it; it must be open."""
        try:
            self.flush()
            self.describe()
        finally:
            with self._detecting_loss():
                mlflow.end_run(status)
                if self._client.get_run(self.id).data.tags.get(ENDED_TAG) == ABANDONED:
                    self._client.delete_tag(self.id, ENDED_TAG)  # It was a mistake.
            if self.is_cut_off:
                ended = {"status": status, "end_time": get_current_time_millis()}
                outbox.append(self.outbox_folder, ended)

    def _record(self, entry: outbox.Entry) -> None:
        if not self.is_cut_off:
            with self._detecting_loss():
                outbox.record(self._client, self.id, entry)
                return
        outbox.append(self.outbox_folder, entry)

    @contextmanager
    def _detecting_loss(self) -> Iterator[None]:
        """Take any error for the loss of the server; if there is none, raise a DigitsError."""
        try:
            yield
        except Exception as error:
            address = local_store.without_passwords(mlflow.get_tracking_uri())
            if not local_store.is_remote(address):
                raise DigitsError(f"MLflow store {address}: {one_line(error)}") from error
            if not self.is_cut_off:
                self.is_cut_off = True
                self._log(
                    f"MLflow server {address}: gone; what is logged from now on is in "
                    f"{self.outbox_folder}: `digits send` sends it once the server is back"
                )


@contextmanager
def start_run(
    name: str,
    *,
    attach: bool = False,
    resume: str | None = None,
    parent: str | None = None,
    root: Path = Path(),
    log: Log = ignore,
) -> Iterator[Run]:
    """Open a run, and close it as FINISHED, FAILED or, if it is interrupted, KILLED.

    Args:
        name: of the run.
        attach: use the run that `mlflow run` opened for this process, if it did; else such a run
            becomes the parent of a new one.
        resume: the id of a closed run to open again.
        parent: the id of the run that a new one is part of.
        root: the project's folder, for the outbox.
        log: prints that the server is lost.
    """
    inherited = os.environ.pop(INHERITED_RUN, None)
    run_id = _open(name, (attach and inherited) or resume, parent or inherited)
    run, status = Run(run_id, root=root, log=log), "FAILED"
    try:
        yield run
        run.flush()
        status = "FINISHED"
    except DigitsError as error:
        with suppress(DigitsError):
            run.tags({ERROR_TAG: str(error)})
        raise
    except KeyboardInterrupt:
        status = "KILLED"
        # `mlflow run` 3.17 overwrites the status with FAILED, because it compares the name of a
        # status with numbers. The tag stays.
        run.tags({"interrupted": "true"})
        raise
    finally:
        run.close(status)


def _open(name: str, existing: str | None, parent: str | None) -> str:
    """Make a run MLflow's active one, an existing one or a new one, and return its id."""
    client = MlflowClient()
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL)
    # It complains of every value that a lost server does not take.
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    process = {PROCESS_TAG: machine.process_id()}
    with in_one_line("MLflow: no run could be opened"):
        if existing:
            client.update_run(existing, name=name)
            if ERROR_TAG in client.get_run(existing).data.tags:  # of the time before
                client.delete_tag(existing, ERROR_TAG)
            mlflow.start_run(run_id=existing, log_system_metrics=True, tags=process)
            return existing
        if parent:
            around = client.get_run(parent)
            experiment = around.info.experiment_id
            if PROCESS_TAG not in around.data.tags:  # `mlflow run` opened it.
                client.set_tag(parent, PROCESS_TAG, machine.process_id(machine.mlflow_run()))
        else:
            experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        run = mlflow.start_run(
            experiment_id=experiment,
            run_name=name,
            parent_run_id=parent,
            nested=parent is not None,  # The parent may be active in this process.
            log_system_metrics=True,
            tags=process,
        )
        return str(run.info.run_id)


def tag_inherited_run(error: DigitsError) -> None:
    """Tag the run that `mlflow run` opened for this process with the reason why it is refused."""
    MlflowClient().set_tag(os.environ[INHERITED_RUN], ERROR_TAG, str(error))


def attached_run(
    name: str, wanted: bool = True, root: Path = Path(), log: Log = ignore
) -> AbstractContextManager[Run | None]:
    """Attach to the run that `mlflow run` opened for this process; None without, or if unwanted."""
    if wanted and INHERITED_RUN in os.environ:
        return start_run(name, attach=True, root=root, log=log)
    return nullcontext()
