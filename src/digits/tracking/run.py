"""Runs: opened, told what happens, closed as what became of them."""

import base64
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from digits import DigitsError
from digits.core.dataset import Dataset
from digits.core.schema import Transform
from digits.reports import figures
from digits.tracking import local_store, outbox
from digits.tracking.logged_model import log_model
from digits.tracking.outbox import one_line

EXPERIMENT = "mnist"
MODEL_TAG = "model_sha256"
PROCESS_TAG = "process"  # that is to close the run: machine, number, time of its start
OUTBOX = "outbox"  # folder of what a server that is gone could not be told
SYSTEM_METRICS_EVERY = 2  # seconds; v1 trains for less than 10
WRITE_EVERY = 1.0  # seconds; each writing takes about 15 ms, v1's epochs some 300

# A project run sets it for all its child processes, though only one of them is that run.
INHERITED_RUN = "MLFLOW_RUN_ID"


class Run:
    """One run, open or closed, and the model that it logged.

    A server that is gone does not stop the work that it records: from then on all is kept on disk.
    """

    def __init__(
        self,
        run_id: str,
        model_id: str | None = None,
        unsent_folder: Path = Path(OUTBOX),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.id = run_id
        self.model_id = model_id
        self.unsent = unsent_folder / run_id
        self.is_cut_off = False
        self._say = say
        self._client = MlflowClient()
        self._unwritten: list[tuple[str, float, int, int]] = []
        self._written = -WRITE_EVERY

    def tell(self, entry: outbox.Entry) -> None:
        """Send an entry, or keep it."""
        if not self.is_cut_off:
            try:
                return outbox.tell(self._client, self.id, entry)
            except Exception as error:  # of MLflow or the network: any may come through
                self._cut_off(error)
        outbox.keep(self.unsent, entry)

    def _cut_off(self, error: Exception) -> None:
        address = mlflow.get_tracking_uri()
        if not local_store.is_remote(address):
            raise DigitsError(f"MLflow store {address}: {one_line(error)}") from error
        self.is_cut_off = True
        self._say(
            f"MLflow server {address}: gone; what it is not told is kept in {self.unsent}: "
            "`digits send` sends it once the server is back"
        )

    def tags(self, tags: Mapping[str, object]) -> None:
        self.tell({"tags": {name: str(value) for name, value in tags.items()}})

    def parameters(self, parameters: Mapping[str, object]) -> None:
        self.tell({"parameters": {name: str(value) for name, value in parameters.items()}})

    def metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of the run and, once a model is logged, of that model.

        Those of a step wait for others up to a second, or until the run closes.
        """
        now = _now()
        self._unwritten += [(name, float(v), now, step or 0) for name, v in metrics.items()]
        if step is None or time.monotonic() - self._written >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Send the metrics that wait."""
        if self._unwritten:
            self.tell({"metrics": self._unwritten, "model": self.model_id})
        self._unwritten, self._written = [], time.monotonic()

    def datasets(self, dataset: Dataset, name: str, sources: Sequence[str], digest: str) -> None:
        """Log the training and the test images as inputs; `digest` is shortened to fit MLflow."""
        source = CodeDatasetSource({"sources": " ".join(sources)})
        inputs = {}
        for context, x, y in (
            ("training", dataset.x_train, dataset.y_train),
            ("testing", dataset.x_test, dataset.y_test),
        ):
            described = from_numpy(
                x, source=source, targets=y, name=f"{name}-{context}", digest=digest[:32]
            )
            inputs[context] = dict(described._to_mlflow_entity())
        self.tell({"inputs": inputs})

    def model(
        self,
        model: Any,
        images: NDArray[np.uint8],
        probabilities: NDArray[np.float32],
        tta: Sequence[Transform] = (),
    ) -> None:
        """Log a Keras model that answers as in `log_model`."""
        if not self.is_cut_off:
            try:
                self.model_id = log_model(model, images, probabilities, tta, self.id)
                return
            except Exception as error:  # as in `tell`
                self._cut_off(error)
        outbox.keep_model(self.unsent, model, images, probabilities, tta)

    def figure(self, figure: Figure, name: str) -> None:
        encoded = base64.b64encode(figures.png(figure)).decode()
        self.tell({"png": encoded, "name": f"figures/{name}"})

    def text(self, text: str, name: str) -> None:
        self.tell({"text": text, "name": name})

    def close(self, status: str) -> None:
        """End the open run."""
        try:
            mlflow.end_run(status)
        except Exception as error:  # as in `tell`
            if not self.is_cut_off:
                self._cut_off(error)
        if self.is_cut_off:
            outbox.keep(self.unsent, {"status": status, "end_time": _now()})


@contextmanager
def start_run(
    name: str,
    *,
    attach: bool = False,
    again: str | None = None,
    parent: str | None = None,
    experiment: str = EXPERIMENT,
    root: Path = Path(),
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Run]:
    """Open a run, and close it as what became of it: FINISHED, FAILED or, if interrupted, KILLED.

    Args:
        name: of the run.
        attach: use the run that `mlflow run` opened for this process, if it did; else such a run
            becomes the parent of a new one.
        again: the id of a closed run to open again.
        parent: the id of the run that a new one is part of.
        experiment: where the run is kept, unless it has a parent.
        root: of the project, where what cannot be sent is kept.
        say: is told of a server that is gone.
    """
    inherited = os.environ.pop(INHERITED_RUN, None)
    opened = _open(name, (attach and inherited) or again, parent or inherited, experiment)
    run, status = Run(opened, unsent_folder=root / OUTBOX, say=say), "FAILED"
    try:
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
        run.close(status)


def _open(name: str, known: str | None, parent: str | None, experiment: str) -> str:
    """The id of a run that is now MLflow's active one: one that is known, or a new one."""
    client = MlflowClient()
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_EVERY)
    # It complains of every value that a server which is gone does not take.
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    process = {PROCESS_TAG: this_process()}
    try:
        if known:
            client.update_run(known, name=name)
            mlflow.start_run(run_id=known, log_system_metrics=True, tags=process)
            return known
        beside = client.get_run(parent).info if parent else None
        opened = mlflow.start_run(
            experiment_id=(beside or client.get_experiment_by_name(experiment)).experiment_id,
            run_name=name,
            parent_run_id=parent,
            log_system_metrics=True,
            tags=process,
        )
        return str(opened.info.run_id)
    except MlflowException as error:
        raise DigitsError(f"MLflow: no run could be opened: {one_line(error)}") from error


@contextmanager
def attached_run(
    name: str,
    wanted: bool,
    root: Path = Path(),
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Run | None]:
    """The run that `mlflow run` opened for this process; None if it did not, or is not wanted."""
    if wanted and INHERITED_RUN in os.environ:
        with start_run(name, attach=True, root=root, say=say) as run:
            yield run
    else:
        yield None


def this_process() -> str:
    """Tells this process from all others, also after it is gone."""
    own = psutil.Process()
    return f"{platform.node()} {own.pid} {own.create_time():.1f}"


def is_of_this_machine(process: str) -> bool:
    return process.startswith(f"{platform.node()} ")


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
