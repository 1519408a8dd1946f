"""Entries of a run: recorded by MLflow or, while a server is lost, stored on disk and sent later.

An entry is a dictionary that JSON can hold, of one kind of thing that is logged; see `record`.
"""

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from digits.core import files
from digits.core.schema import Transform
from digits.tracking import notes
from digits.tracking.errors import in_one_line, try_twice
from digits.tracking.logged_model import log_model

Entry = dict[str, Any]
JOURNAL, MODEL = "entries.jsonl", "model.keras"


def record(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Have MLflow record one entry of a run."""
    match entry:
        case {"tags": tags}:
            client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
        case {"parameters": parameters}:
            client.log_batch(run_id, params=[Param(*item) for item in parameters.items()])
        case {"metrics": rows, "model": model_id}:
            # Earlier code wrote rows without the images, which are the name and digest at the end.
            client.log_batch(
                run_id,
                [Metric(*row[:4], model_id, *row[4:], run_id=run_id) for row in rows],
            )
        case {"datasets": datasets}:
            inputs = [
                DatasetInput(LoggedDataset(**values), [InputTag("mlflow.data.context", context)])
                for context, values in datasets.items()
            ]
            try_twice(lambda: client.log_inputs(run_id, inputs))
        case {"artifact": encoded, "name": name}:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(name).name
                path.write_bytes(base64.b64decode(encoded))
                client.log_artifact(run_id, str(path), os.path.dirname(name) or None)
        case {"describe": True}:
            notes.describe(client, run_id)
        case {"status": status, "end_time": end_time}:
            client.set_terminated(run_id, status, end_time)


def append(folder: Path, entry: Entry) -> None:
    """Add an entry to the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(entry) + "\n")


def append_model(folder: Path, network: Any, tta: Sequence[Transform]) -> None:
    """Add a Keras model, with its TTA, to the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder / MODEL)
    append(folder, {"model_file": MODEL, "tta": [transform.model_dump() for transform in tta]})


def pending(folder: Path) -> list[Path]:
    """Return the folders of the runs that have entries to send."""
    return sorted(path.parent for path in folder.glob(f"*/{JOURNAL}"))


def send(folder: Path) -> int:
    """Send the entries of one run, delete its folder, and return their number.

    Raises:
        DigitsError: they cannot be sent, and stay where they are.
    """
    client, run_id, model_id = MlflowClient(), folder.name, None
    journal = (files.read_bytes(folder / JOURNAL) or b"").decode()
    lines = journal.rpartition("\n")[0].splitlines()  # A killed process may have begun another.
    with in_one_line(f"{folder}: not sent, and stays there"):
        for line in lines:
            entry = json.loads(line)
            if "model_file" in entry:
                from digits.core import models  # Imports TensorFlow.

                tta = [Transform.model_validate(transform) for transform in entry["tta"]]
                model_id = log_model(models.load(folder / entry["model_file"]), tta, run_id)
                continue
            if "metrics" in entry:
                entry["model"] = entry["model"] or model_id
            record(client, run_id, entry)
    shutil.rmtree(folder)
    return len(lines)
