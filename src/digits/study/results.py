"""The results of a study: one table, trials.csv, with a row for each trial that has ended."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files
from digits.study.spec import StudySpec, Trial

TABLE = "trials.csv"
MACHINE = ("date", "processor", "cores", "memory", "python", "keras", "tensorflow")

# A row in memory is nested: the column test.errors is row["test"]["errors"]. What a trial lacks has
# the value that stands here, and an empty cell.
Row = dict[str, Any]
EMPTY: Row = {
    "name": "",
    "version": "",  # of candidates: the candidate's name
    "seed": 0,
    "fold": 0,  # of candidates: which held-out images score it
    "changes": {},  # of a search: what differs from params.yaml, by key
    "digest": "",  # of all that the result follows from
    "threads": 0,
    "pruned": False,  # whether the trial was ended early, because others did better
    "metrics": {},  # loss, accuracy and, with held-out images, val_loss, val_accuracy: by epoch
    "test": {},  # over seeds: loss, accuracy, errors and, where there is tta, errors_without_tta
    "errors": {},  # of candidates: how many held-out images are missed, as_is and by name of tta
    "loss": None,  # of candidates: the mean cross-entropy of the held-out images, as_is, in nats
    "missed": [],  # of candidates: the indices, among all training images, of those missed as_is
    "tflop": None,  # of candidates: 10**12 operations of the whole training
    "epochs": 0,
    "seconds": None,  # of training
    "machine": None,  # by the names in MACHINE
}
TEXTS, LISTS = ("name", "version", "digest", "machine"), ("metrics", "missed")


def read_trials(path: Path) -> list[Row]:
    """Read a table of trials; an empty list if there is no such file.

    Raises:
        DigitsError: the file is damaged.
    """
    content = files.read_bytes(path) or b""
    try:
        return [_row(cells) for cells in csv.DictReader(io.StringIO(content.decode()), strict=True)]
    except (csv.Error, ValueError) as error:
        raise DigitsError(
            f"{path}: not a table of trials ({error}); `git checkout {path}` restores it"
        ) from error


def write_trials(path: Path, rows: Sequence[Row]) -> None:
    """Write a table of trials, without the columns that no row fills."""
    table = [_cells(row) for row in rows]
    order = list(EMPTY)
    columns = dict.fromkeys(column for cells in table for column in cells)
    text = io.StringIO()
    writer = csv.DictWriter(
        text, sorted(columns, key=lambda c: order.index(c.partition(".")[0])), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(table)
    files.write_text(path, text.getvalue())


def _row(cells: Mapping[str, str]) -> Row:
    if None in cells or None in cells.values():
        raise ValueError("a row has more or fewer cells than the header")
    row = dict(EMPTY)
    for column, text in cells.items():
        group, _, key = column.partition(".")
        if text:
            value = _value(group, text)
            row[group] = {**(row[group] or {}), key: value} if key else value
    return row


def _value(group: str, text: str) -> Any:
    if group in TEXTS:
        return text
    return [json.loads(word) for word in text.split()] if group in LISTS else json.loads(text)


def _cells(row: Row) -> dict[str, str]:
    flat = {group: value for group, value in row.items() if not isinstance(value, dict)}
    for group in row.keys() - flat:
        flat |= {f"{group}.{key}": value for key, value in row[group].items()}
    return {
        column: _text(column.partition(".")[0], value)
        for column, value in flat.items()
        if value != EMPTY.get(column)
    }


def _text(group: str, value: Any) -> str:
    if group in TEXTS:
        return str(value)
    return " ".join(map(json.dumps, value)) if group in LISTS else json.dumps(value)


class Results:
    """The rows of a table that belong to a study, in memory and on disk.

    Rows of other parameters, another code or other data count as missing; the next trial that ends
    replaces them.
    """

    def __init__(self, path: Path, spec: StudySpec, data_digest: str) -> None:
        self._path, self._spec, self._data_digest = path, spec, data_digest
        self._rows = {row["name"]: row for row in read_trials(path) if self._is_current(row)}

    def _is_current(self, row: Row) -> bool:
        trial = Trial(row["name"], row["version"], row["seed"], row["changes"], row["fold"])
        try:
            return bool(row["digest"] == self._spec.digest(trial, self._data_digest))
        except DigitsError:  # The version, or the parameter that was changed, is no longer there.
            return False

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def add(self, row: Row) -> None:
        """Add a row to the table, unless it is there or not of this study."""
        if row["name"] not in self and self._is_current(row):
            self._rows[row["name"]] = row
            ordered = {row["name"]: row for row in self.rows()} | self._rows
            write_trials(self._path, list(ordered.values()))

    def discard(self, names: Iterable[str]) -> None:
        """Count trials as missing, though the table on disk has their rows."""
        for name in names:
            del self._rows[name]

    def rows(self) -> list[Row]:
        """Return the rows that the study asks for, in its order."""
        if search := self._spec.study.search:
            return list(self._rows.values())[: search.trials]
        return [self._rows[trial.name] for trial in self._spec.trials() if trial.name in self]

    def missing(self) -> int:
        """Return how many trials have no row yet."""
        return self._spec.size() - len(self.rows())
