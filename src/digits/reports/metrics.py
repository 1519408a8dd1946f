"""What the metrics folder holds, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files

ENSEMBLE = "-ensemble"
TRIALS, TIMING = "trials", "timing"  # folders of a study
REPRODUCTION = "reproduction"  # the study of studies/reproduction.yaml


@dataclass(frozen=True)
class Ensemble:
    """What metrics/ensemble holds.

    Attributes:
        name: of the ensemble.
        scores: of the ensemble.
        members: the scores of each member, by its name.
        seconds: of training, by member; None where the time is not that of the training.
        machines: that the members were trained on, in words.
    """

    name: str
    scores: Mapping[str, Any]
    members: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float | None]
    machines: Sequence[str]


@dataclass(frozen=True)
class Trials:
    """What a folder of metrics/studies holds: the trials' results, and the machines they ran on."""

    results: Sequence[Mapping[str, Any]]
    machines: Sequence[str]


@dataclass(frozen=True)
class Results:
    """What the metrics folder holds, by version; `study` is the one over seeds."""

    notes: list[str]
    reported: Mapping[str, Any]
    reported_hardware: str
    scores: Mapping[str, Any]
    timing: Mapping[str, Any]
    machine: Mapping[str, Any]
    epochs: Mapping[str, int]
    first_loss: Mapping[str, float]
    ensemble: Ensemble | None
    study: Trials | None


def percent(share: float | None) -> str:
    """A share of 1, if it is known."""
    return "–" if share is None else f"{100 * share:.2f} %"


def hardware(machine: Mapping[str, str]) -> str:
    """A machine in words."""
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}"


def read(metrics: Path) -> Results:
    """Read the metrics folder.

    Raises:
        DigitsError: a file is missing or damaged.
    """
    reference = files.read_json(metrics / "report-2018.json")
    versions = sorted(path.stem for path in (metrics / "scores").glob("*.json"))
    if not versions:
        raise DigitsError(f"{metrics / 'scores'}: no scores there; run `dvc repro`")
    history = {v: files.read_columns(metrics / "history" / f"{v}.csv") for v in versions}
    return Results(
        notes=reference["notes"],
        reported=reference["versions"],
        reported_hardware=reference["hardware"],
        scores={v: _scores(metrics, v) for v in versions},
        timing={v: _timing(metrics, v) for v in versions},
        machine={v: _machine(metrics, v) for v in versions},
        epochs={v: len(columns["epoch"]) for v, columns in history.items()},
        first_loss={v: columns["loss"][0] for v, columns in history.items()},
        ensemble=_ensemble(metrics, versions),
        study=trials(metrics / "studies" / REPRODUCTION),
    )


def trials(folder: Path) -> Trials | None:
    """The results of the study in a folder, if there are any."""
    found = [files.read_json(path) for path in sorted((folder / TRIALS).glob("*.json"))]
    return Trials(found, machines(folder)) if found else None


def machines(folder: Path) -> list[str]:
    """The machines that the trials of a study ran on, in words."""
    beside = [files.read_json(path) for path in sorted((folder / TIMING).glob("*.json"))]
    return sorted({hardware(told["machine"]) for told in beside if told["machine"]})


def _scores(folder: Path, version: str) -> Any:
    return files.read_json(folder / "scores" / f"{version}.json")


def _machine(folder: Path, version: str) -> Any:
    return files.read_json(folder / "machine" / f"{version}.json")


def _timing(folder: Path, version: str) -> Any:
    """The times of a training, none if DVC's cache restored a history without the one timed."""
    timing = files.read_json(folder / "timing" / f"{version}.json")
    history = files.sha256(folder / "history" / f"{version}.csv")
    if _machine(folder, version)["history_sha256"] != history:
        return {"training_seconds": None}
    return timing


def _ensemble(metrics: Path, versions: list[str]) -> Ensemble | None:
    """The ensemble, unless its version has since been trained to another result."""
    folder = metrics / "ensemble"
    found = {p.stem: files.read_json(p) for p in sorted((folder / "scores").glob("*.json"))}
    name = next((name for name in found if name.endswith(ENSEMBLE)), "")
    version = name.removesuffix(ENSEMBLE)
    if version not in versions or found.get(version) != _scores(metrics, version):
        return None
    scores = found.pop(name)
    home = {member: metrics if member == version else folder for member in found}
    return Ensemble(
        name=name,
        scores=scores,
        members=found,
        seconds={m: _timing(home[m], m)["training_seconds"] for m in found},
        machines=sorted({hardware(_machine(home[m], m)) for m in found}),
    )
