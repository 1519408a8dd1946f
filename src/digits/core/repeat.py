"""A training as a record from which it can be repeated.

`python -m digits.core.repeat RECORD DATA OUT [EPOCHS]` repeats one in a checkout of the commit that
made it. Records and checkouts of different commits meet here, so these arguments stay as they are.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from digits import THREADS, DigitsError
from digits.core import config, dataset, files, models
from digits.core.dataset import Dataset, without_fold
from digits.core.keras_backend import keras
from digits.core.schema import Params
from digits.core.training import TrainingResult, train_model


def record(
    version: str,
    params: Params,
    images: Dataset,
    seed: int,
    fold: tuple[int, int],
    result: TrainingResult,
) -> dict[str, Any]:
    """Return what a training follows from and what came of it, as JSON can hold it.

    Args:
        images: all that there were, those of the fold too.
        fold: the number of training images held out from it, and which of the disjoint sets.
    """
    return {
        "version": version,
        "params": params.model_dump(mode="json", exclude_unset=True),
        "seed": seed,
        "fold": list(fold),
        "data_sha256": images.digest(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "result": _outcome(result),
    }


class StopAfter(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a training after some epochs; the schedule is that of all."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        print(f"epoch {epoch + 1}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}")
        self.model.stop_training |= epoch + 1 == self._epochs


def _outcome(result: TrainingResult) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        models.save(result.network, path)
        sha256 = files.sha256(path)
    return {"model_sha256": sha256, "history": result.history, "precision": result.precision}


def main(record_path: str, data: str, out: str, epochs: str = "0") -> None:
    """Repeat a training and write what came of it as JSON.

    Args:
        record_path: JSON file of the record.
        data: .npz file of the images.
        epochs: after how many to stop; 0 is all.
    """
    try:
        recorded, images = files.read_json(Path(record_path)), dataset.load(Path(data))
        if images.digest() != recorded["data_sha256"]:
            raise DigitsError("the images are not those of the record")
        params = config.check(recorded["params"], Params, "the recorded parameters")
        size, fold = recorded["fold"]
        images, _ = without_fold(images, size, params.seed, fold)
        version, stop = recorded["version"], StopAfter(int(epochs))
        result = train_model(version, params, images, seed=recorded["seed"], callbacks=[stop])
        files.write_json(Path(out), _outcome(result))
    except DigitsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
