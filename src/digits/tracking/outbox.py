"""What a run is told: sent to MLflow, or kept on disk for a server that is gone, and sent later.

An entry is a dictionary of one kind of thing that JSON can hold; see `tell`.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, InputTag, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from digits import DigitsError
from digits.core import files
from digits.core.schema import Transform
from digits.tracking.logged_model import log_model

Entry = dict[str, Any]
JOURNAL, MODEL, EXAMPLES = "entries.jsonl", "model.keras", "examples.npz"


def tell(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Have MLflow record one entry of a run."""
    match entry:
        case {"tags": tags}:
            for name, value in tags.items():
                client.set_tag(run_id, name, value)
        case {"parameters": parameters}:
            mlflow.log_params(parameters, run_id=run_id)
        case {"metrics": rows, "model": model}:
            client.log_batch(run_id, [Metric(*row, model, run_id=run_id) for row in rows])
        case {"inputs": inputs}:
            found = [
                DatasetInput(LoggedDataset(**described), [InputTag("mlflow.data.context", context)])
                for context, described in inputs.items()
            ]
            try:
                client.log_inputs(run_id, found)
            except MlflowException:
                # MLflow 3.17 looks whether it knows the images before it adds them, and another run
                # may add the same in between; the second time it knows them.
                client.log_inputs(run_id, found)
        case {"text": text, "name": name}:
            client.log_text(run_id, text, name)
        case {"png": encoded, "name": name}:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(name).name
                path.write_bytes(base64.b64decode(encoded))
                client.log_artifact(run_id, str(path), str(Path(name).parent))
        case {"status": status, "end_time": end_time}:
            client.set_terminated(run_id, status, end_time)


def keep(folder: Path, entry: Entry) -> None:
    """Add an entry to those of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(entry) + "\n")


def keep_model(
    folder: Path, model: Any, images: Any, probabilities: Any, tta: Sequence[Transform]
) -> None:
    """Keep a model, its examples and its tta until they can be sent."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / MODEL)
    np.savez(folder / EXAMPLES, images=images, probabilities=probabilities)
    keep(folder, {"model_file": MODEL, "tta": [view.model_dump() for view in tta]})


def pending(folder: Path) -> Iterator[Path]:
    """The folders of the runs that are not wholly sent."""
    yield from sorted(path.parent for path in folder.glob(f"*/{JOURNAL}"))


def send(folder: Path, load_model: Callable[[Path], Any]) -> int:
    """Send what was kept of one run, then forget it; the number of entries.

    Raises:
        DigitsError: it cannot be sent, and stays.
    """
    run_id, client, model_id = folder.name, MlflowClient(), None
    journal = (files.read_bytes(folder / JOURNAL) or b"").decode()
    lines = journal.rpartition("\n")[0].splitlines()  # a killed process may have begun another
    try:
        for line in lines:
            entry = json.loads(line)
            if "model_file" in entry:
                tta = [Transform.model_validate(view) for view in entry.get("tta", [])]
                with np.load(folder / EXAMPLES) as examples:
                    model = load_model(folder / entry["model_file"])
                    given = examples["images"], examples["probabilities"]
                model_id = log_model(model, *given, tta, run_id)
            elif "metrics" in entry:
                tell(client, run_id, {**entry, "model": entry["model"] or model_id})
            else:
                tell(client, run_id, entry)
    except DigitsError:
        raise
    except Exception as error:  # of MLflow or the network: any may come through
        raise DigitsError(f"{folder}: not sent, and kept: {one_line(error)}") from error
    shutil.rmtree(folder)
    return len(lines)


def one_line(error: Exception) -> str:
    """What MLflow says, which may be long."""
    return " ".join(str(error).split())[:200]
