"""The pages that `digits report` writes: metrics/report.md, and one for each study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digits import DigitsError
from digits.reports import figures, study_figures, study_report, tables
from digits.reports.metrics import Metrics, Version, read_scores
from digits.reports.statistics import summarise
from digits.reports.study_report import is_of, scores_over_seeds, summaries
from digits.study import spec as study_spec
from digits.study.results import TABLE, Row, read_trials
from digits.study.spec import StudySpec

Warn = Callable[[str], None]


@dataclass(frozen=True)
class StudyResults:
    """A study with the contents of its folder, METRICS/studies/NAME."""

    folder: Path
    spec: StudySpec
    trials: list[Row]
    ensemble: Mapping[str, Any] | None


def read_studies(folder: Path, studies: Path, params: Path, warn: Warn) -> list[StudyResults]:
    """Read what METRICS/studies holds.

    Args:
        folder: METRICS.
        studies: the folder of the studies' files.
        params: the parameter file, which the studies vary.
        warn: called with a line for each study whose file does not fit the parameters.
    """
    results = []
    for path in sorted((folder / "studies").glob(f"*/{TABLE}")):
        try:
            spec = study_spec.load(studies / f"{path.parent.name}.yaml", params)
        except DigitsError as error:
            warn(f"{path.parent / 'report.md'}: not written: {error}")
            continue
        ensemble = path.with_name("ensemble.json")
        scores = read_scores(ensemble) if ensemble.exists() else None
        results.append(StudyResults(path.parent, spec, read_trials(path), scores))
    return results


def render_all(
    folder: Path, metrics: Metrics, studies: Sequence[StudyResults]
) -> dict[Path, bytes]:
    """Return the contents of all pages and figures of the metrics folder, by path."""
    contents = {folder / "report.md": render(metrics, studies).encode()}
    if figure := errors_and_time(metrics, studies):
        contents[folder / "errors-and-time.png"] = figures.png(figure)
    reference = metrics.reference.get("versions", {})
    for study in studies:
        drawn = {}
        if study.spec.study.seeds and (versions := summaries(study.trials, reference)):
            drawn = {
                "accuracies.png": figures.png(study_figures.accuracies(versions)),
                "losses.png": figures.png(study_figures.losses(versions)),
            }
        contents |= {study.folder / name: drawn[name] for name in drawn}
        page = study_report.render(
            study.spec,
            study.trials,
            reference,
            metrics.data,
            ensemble=study.ensemble,
            figures={*drawn, *(path.name for path in study.folder.glob("*.png"))},
        )
        contents[study.folder / "report.md"] = page.encode()
    return contents


def render(metrics: Metrics, studies: Sequence[StudyResults]) -> str:
    """Return metrics/report.md."""
    machines: dict[str, list[str]] = {}
    for version in metrics.versions:
        machines.setdefault(_conditions(version), []).append(version.name)
    return tables.render(
        "report.md.j2",
        metrics=metrics,
        machines=machines,
        studies=[(study.spec.name, study_report.subject(study.spec)) for study in studies],
        ensembles=[study for study in studies if is_of(study.ensemble, study.trials)],
    )


def _conditions(version: Version) -> str:
    if version.time is None:
        return "a training whose time is not in times.json"
    time = version.time
    return f"{time['date']} on {tables.hardware(time)}, {time['system']}, {tables.software(time)}"


def errors_and_time(metrics: Metrics, studies: Sequence[StudyResults]) -> Figure | None:
    """Draw test errors over seeds against the times in times.json; None if no time is known.

    The times of a study's trials would not do: they had other numbers of threads.
    """
    versions = [version for version in metrics.versions if version.time]
    machines = dict.fromkeys(tables.hardware(version.time or {}) for version in versions)
    note = tables.listed(list(machines)) if machines else ""
    if any(version.reported for version in versions):
        hardware = f"2018: {metrics.reference['hardware']};\n"
        including = "its times include scoring the training images after every epoch.\n"
        note = f"{hardware}{including}Ours: {note}."
    trials = [study.trials for study in studies]
    errors = {}
    for version in versions:
        runs = scores_over_seeds(version.name, trials, [version.scores["test"]])
        errors[version.name] = summarise([scores["errors"] for scores in runs])
    return study_figures.errors_and_time(versions, errors, note) if versions else None
