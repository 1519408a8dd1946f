"""A study's page: what its trials say about the report, about candidates or about parameters."""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ruamel.yaml import YAML

from digits import DigitsError
from digits.core import config
from digits.core.schema import Data
from digits.reports import tables
from digits.reports.statistics import LEVEL, Summary, familywise_level, mcnemar, summarise
from digits.study.results import Row
from digits.study.spec import AS_IS, Candidates, Search, StudySpec

Trials = Sequence[Row]
Reference = Mapping[str, Any]


def render(
    spec: StudySpec,
    trials: Trials,
    reference: Reference,
    data: Data,
    *,
    ensemble: Mapping[str, Any] | None = None,
    figures: Collection[str] = (),
) -> str:
    """Return a study's page, which `digits study report` prints and `digits report` writes.

    Args:
        trials: rows of `digits.study.results.read_trials`.
        reference: the versions of the 2018 report; {} if there is none of these images.
        data: the images, as params.yaml has them.
        ensemble: the content of ensemble.json beside trials.csv, if it exists.
        figures: names of the figures beside the page, which it shows.

    Raises:
        DigitsError: there are no trials.
    """
    trials = [trial for trial in trials if _fits(spec, trial)]
    if not trials:
        raise DigitsError(f"{spec.name}: no trials; `digits study run studies/{spec.name}.yaml`")
    kind: str
    context: dict[str, Any]
    if search := spec.study.search:
        ranked = rank(search, trials)
        kind, context = "search", {"ranked": ranked, "block": _block(spec, ranked[0])}
    elif candidates := spec.study.candidates:
        rows = _compare_candidates(candidates, trials)
        common = [len(missed) for missed in _missed_by_all(trials)]
        pairs = _missed_by_both(trials) if candidates.folds_of else []
        kind, context = "candidates", {"rows": rows, "common": common, "pairs": pairs}
    else:
        kind, context = "seeds", _judge(summaries(trials, reference))
        context["ensemble"] = ensemble if is_of(ensemble, trials) else None
    return tables.render(
        f"study-{kind}.md.j2",
        spec=spec,
        subject=subject(spec),
        reference=reference,
        data=data,
        trials=trials,
        machines=sorted({tables.hardware(t["machine"]) for t in trials if t["machine"]}),
        figures=sorted(figures),
        **context,
    )


def _fits(spec: StudySpec, trial: Row) -> bool:
    """Return whether a trial has what the page shows; the study's file may have changed since."""
    if spec.study.search:
        return bool(trial["metrics"].get(spec.study.search.metric))
    if candidates := spec.study.candidates:
        return set(trial["errors"]) >= {AS_IS, *candidates.tta}
    return bool(trial["test"])


def is_of(ensemble: Mapping[str, Any] | None, trials: Trials) -> bool:
    """Return whether the members of an ensemble are these trials."""
    names = {trial["name"] for trial in trials}
    return ensemble is not None and ensemble["members"].keys() == names


def subject(spec: StudySpec) -> str:
    """Describe in a few words what a study trains."""
    if search := spec.study.search:
        return f"a search of {search.trials} trials for better parameters of {search.version}"
    if candidates := spec.study.candidates:
        return f"{len(candidates.models)} candidates, compared on held-out training images"
    counts = (spec.study.seeds or {}).items()
    return tables.listed([f"{version} with {n} seeds" for version, n in counts])


@dataclass(frozen=True)
class VersionSummary:
    """The trials of one version, which differ in their seeds.

    Attributes:
        accuracies: of each trial, on the test images, 0 to 1.
        accuracy: the same, in percent.
        test_loss, losses: nats; on the test images, and by epoch while training.
        curves: the training losses of each trial.
        reported: the version's entry in the 2018 report, if it has one.
    """

    name: str
    accuracies: Sequence[float]
    accuracy: Summary
    test_loss: Summary
    losses: Sequence[Summary]
    curves: Sequence[Sequence[float]]
    reported: Mapping[str, Any] | None

    @property
    def reported_losses(self) -> Sequence[float]:
        """Return the reported training loss by epoch; empty if there is none to compare."""
        curve = self.reported["history"]["loss"] if self.reported else []
        return curve if len(curve) == len(self.losses) else []

    def is_consistent(self, level: float) -> bool:
        """Return whether the interval of one more run includes the reported accuracy, if any."""
        value = self.reported and 100 * self.reported["test_accuracy"]
        return not value or self.accuracy.includes(value, level)

    def epochs_outside(self, level: float = LEVEL) -> int:
        """Return in how many epochs the interval of one more run lacks the reported loss."""
        pairs = zip(self.losses, self.reported_losses, strict=False)
        return sum(not loss.includes(value, level) for loss, value in pairs)


def summaries(trials: Trials, reference: Reference) -> list[VersionSummary]:
    """Summarise each version whose trials differ, so that the spread of another run is known."""
    result = []
    for version in sorted({trial["version"] for trial in trials}):
        rows = sorted((t for t in trials if t["version"] == version), key=lambda t: t["seed"])
        accuracies = [row["test"]["accuracy"] for row in rows]
        # Trials may have stopped early; losses are compared as far as all of them ran.
        curves = [row["metrics"]["loss"] for row in rows]
        losses = list(zip(*curves, strict=False))
        samples = [accuracies, [row["test"]["loss"] for row in rows], *losses]
        if all(len(set(values)) > 1 for values in samples):
            accuracy, test_loss, *by_epoch = map(summarise, samples)
            entry = reference.get(version)
            result.append(
                VersionSummary(
                    version, accuracies, accuracy.scaled(100), test_loss, by_epoch, curves, entry
                )
            )
    return result


def scores_over_seeds(
    version: str, studies: Iterable[Trials], single: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Return the test scores of a version: of the study with most of its seeds, or of no study."""
    samples = [
        [trial["test"] for trial in trials if trial["version"] == version and trial["test"]]
        for trials in studies
    ]
    return max(samples, key=len, default=[]) or single


def _judge(versions: Sequence[VersionSummary]) -> dict[str, Any]:
    """Find the reported numbers that are not those of one more run."""
    compared = [version for version in versions if version.reported]
    level = familywise_level(max(len(compared), 1))
    epochs = sum(len(version.reported_losses) for version in compared)
    epoch_level = familywise_level(max(epochs, 1))
    return {
        "versions": versions,
        "compared": compared,
        "level": level,
        "outside": [version for version in compared if not version.is_consistent(level)],
        "epochs": epochs,
        "epoch_level": epoch_level,
        "deviating": [version for version in compared if version.epochs_outside(epoch_level)],
    }


def _compare_candidates(candidates: Candidates, trials: Trials) -> list[dict[str, Any]]:
    """Return for each candidate its errors, and its first seed's paired with the reference's."""
    ordered = sorted(trials, key=lambda trial: (trial["seed"], trial["fold"]))
    grouped = {n: [t for t in ordered if t["version"] == n] for n in candidates.models}
    reference = grouped[candidates.reference]
    result = []
    for name, rows in grouped.items():
        if rows:
            errors = [[row["errors"][tta] for row in rows] for tta in (AS_IS, *candidates.tta)]
            losses = [row["loss"] for row in rows if row["loss"] is not None]
            result.append(
                {
                    "name": name,
                    "first": rows[0],
                    "folds": len({trial["fold"] for trial in rows}),
                    "errors": list(map(summarise, errors)),
                    "loss": summarise(losses) if losses else None,
                    "paired": None if name == candidates.reference else _pair(rows, reference),
                }
            )
    return result


def _pair(rows: Trials, reference: Trials) -> tuple[int, int, float] | None:
    """Compare the first seeds of two candidates on the folds that both have, image by image."""
    one, other = (
        {t["fold"]: t["missed"] for t in several if t["seed"] == several[0]["seed"]}
        for several in (rows, reference)
    )
    if not (shared := one.keys() & other.keys()):
        return None
    missed, other_missed = ([i for fold in shared for i in by[fold]] for by in (one, other))
    return mcnemar(missed, other_missed)


def _missed_by_both(trials: Trials) -> list[tuple[str, str, int]]:
    """Return how many images two candidates both miss, of those that are scored on the most folds.

    Of each candidate the first seed counts.
    """
    missed: dict[str, dict[int, set[int]]] = {}
    for trial in sorted(trials, key=lambda trial: trial["seed"]):
        missed.setdefault(trial["version"], {}).setdefault(trial["fold"], set(trial["missed"]))
    folds = max((by_fold.keys() for by_fold in missed.values()), key=len)
    complete = [name for name, by_fold in missed.items() if by_fold.keys() == folds]
    return [
        (one, other, sum(len(missed[one][fold] & missed[other][fold]) for fold in folds))
        for one, other in combinations(complete, 2)
    ]


def _missed_by_all(trials: Trials) -> list[set[int]]:
    """Return for each fold the images that all of its networks miss."""
    return [
        set.intersection(*(set(trial["missed"]) for trial in trials if trial["fold"] == fold))
        for fold in sorted({trial["fold"] for trial in trials})
    ]


def rank(search: Search, trials: Trials) -> list[Row]:
    """Return the trials by their last metric, best first; those that were pruned come last."""
    name, sign = search.metric, -1 if search.mode == "max" else 1
    return sorted(trials, key=lambda t: (-len(t["metrics"][name]), sign * t["metrics"][name][-1]))


def _block(spec: StudySpec, trial: Row) -> str:
    """Return the version's block of params.yaml with the changes of a trial, laid out as there."""
    version = trial["version"]
    model = deepcopy(spec.raw["models"][version])
    for key, value in trial["changes"].items():
        config.replace(model, key.split("."), value)
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = None, 100
    yaml.sort_base_mapping_type_on_output = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump({"models": {version: model}}, text)
    return text.getvalue().rstrip()
