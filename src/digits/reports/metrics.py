"""Read the folder of committed results, metrics/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files
from digits.core.schema import Data

REFERENCE, TIMES = "report-2018.json", "times.json"
Times = dict[str, dict[str, Any]]


REPORTED = frozenset(("test_accuracy", "test_errors", "training_time_s", "history"))


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
    """The results of all versions.

    Attributes:
        reference: the 2018 report, as `read_reference` returns it.
        data: the images that the versions are of.
    """

    reference: Mapping[str, Any]
    versions: Sequence[Version]
    data: Data

    @property
    def compared(self) -> bool:
        """Return whether the 2018 report has any of the versions."""
        return any(version.reported for version in self.versions)


def read(folder: Path, times: Times, data: Data) -> Metrics:
    """Read the metrics folder.

    Args:
        times: as `read_times` or `updated_times` returns them.
        data: the block `data` of params.yaml.

    Raises:
        DigitsError: a file is missing or damaged.
    """
    names = sorted(path.stem for path in (folder / "scores").glob("*.json"))
    if not names:
        raise DigitsError(f"{folder / 'scores'}: no scores there; run `dvc repro`")
    reference = read_reference(folder / REFERENCE, data)
    reported = reference.get("versions", {})
    return Metrics(reference, [_version(folder, n, times, reported) for n in names], data)


def read_reference(path: Path, data: Data) -> Mapping[str, Any]:
    """Read what 2018 reported of MNIST; {} if there is no such file, or the images are others.

    Raises:
        DigitsError: the file is of another kind.
    """
    if not (data.is_mnist and path.exists()):
        return {}
    reference: Mapping[str, Any] = files.read_json(path)
    try:
        is_whole = all(set(entry) >= REPORTED for entry in reference["versions"].values())
    except (AttributeError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        names = ", ".join(sorted(REPORTED))
        raise DigitsError(f"{path}: expected the report of 2018: `versions`, each with {names}")
    return reference


def read_scores(path: Path) -> Mapping[str, Any]:
    """Read the scores of a version or an ensemble.

    Raises:
        DigitsError: missing, damaged, or of earlier code, which wrote no precision.
    """
    scores: Mapping[str, Any] = files.read_json(path)
    if "precision" not in scores["test"]:
        raise DigitsError(
            f"{path}: expected precision, recall and f1 by class; `dvc repro -f evaluate` or, of "
            "an ensemble, `make ensemble` scores anew"
        )
    return scores


def _version(folder: Path, name: str, times: Times, reported: Mapping[str, Any]) -> Version:
    time = times.get(name)
    return Version(
        name=name,
        scores=read_scores(folder / "scores" / f"{name}.json"),
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
