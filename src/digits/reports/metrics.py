"""Read the folder of committed results, metrics/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files

TIMES = "times.json"
Times = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Version:
    """The results of one version.

    Attributes:
        scores: the content of scores/VERSION.json.
        history: loss and accuracy by epoch.
        time: its entry of times.json; None unless that was measured in the training of `history`.
        reported: its entry in the 2018 report, if it has one.
    """

    name: str
    scores: Mapping[str, Any]
    history: Mapping[str, Sequence[float]]
    time: Mapping[str, Any] | None
    reported: Mapping[str, Any] | None

    @property
    def seconds(self) -> float | None:
        """Return the time of training, if known."""
        return self.time["training_seconds"] if self.time else None


@dataclass(frozen=True)
class Metrics:
    """The results of all versions; `reference` is the 2018 report, report-2018.json."""

    reference: Mapping[str, Any]
    versions: Sequence[Version]


def read(folder: Path, times: Times) -> Metrics:
    """Read the metrics folder.

    Args:
        times: as `read_times` or `updated_times` returns them.

    Raises:
        DigitsError: a file is missing or damaged.
    """
    names = sorted(path.stem for path in (folder / "scores").glob("*.json"))
    if not names:
        raise DigitsError(f"{folder / 'scores'}: no scores there; run `dvc repro`")
    reference = files.read_json(folder / "report-2018.json")
    return Metrics(reference, [_version(folder, n, times, reference["versions"]) for n in names])


def _version(folder: Path, name: str, times: Times, reported: Mapping[str, Any]) -> Version:
    time = times.get(name)
    return Version(
        name=name,
        scores=files.read_json(folder / "scores" / f"{name}.json"),
        history=files.read_columns(folder / "history" / f"{name}.csv"),
        time=time if time and time["history_sha256"] == _history(folder, name) else None,
        reported=reported.get(name),
    )


def _history(folder: Path, version: str) -> str | None:
    path = folder / "history" / f"{version}.csv"
    return files.sha256(path) if path.exists() else None


def read_times(folder: Path) -> Times:
    """Read times.json: by version, the training time, the machine and the history's SHA-256."""
    times: Times = files.read_json(folder / TIMES) if (folder / TIMES).exists() else {}
    return times


def updated_times(folder: Path, timing: Path, machine: Path) -> Times:
    """Return the times of times.json, replaced by those of the last trainings on this machine.

    A time is taken over if it was measured in the training of the history in `folder`; DVC may have
    restored another one from its cache.

    Args:
        timing, machine: the folders that `digits train --timing --machine` wrote to.
    """
    times = read_times(folder)
    for path in sorted(machine.glob("*.json")):
        facts = files.read_json(path)
        if facts["history_sha256"] == _history(folder, path.stem):
            measured = files.read_json(timing / path.name)
            times[path.stem] = {"history_sha256": facts["history_sha256"], **measured, **facts}
    return dict(sorted(times.items()))
