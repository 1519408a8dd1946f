"""The ensemble's part of the written results: one network over several seeds, and all together."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from digits.core import evaluation
from digits.reports.metrics import ENSEMBLE, Ensemble, percent


def table(ensemble: Ensemble) -> str:
    """Two rows, one network over the seeds and the ensemble of them, and what they mean."""
    members = ensemble.members
    n = len(members)
    errors = [scores["test"]["errors"] for scores in members.values()]
    accuracy = [scores["test"]["accuracy"] for scores in members.values()]
    seconds = [told for told in ensemble.seconds.values() if told is not None]
    of_one, of_all = "–", "–"
    if len(seconds) == n:
        of_one, of_all = f"{_spread(seconds, '.0f')} s", f"{sum(seconds):.0f} s"
    version = ensemble.name.removesuffix(ENSEMBLE)
    test = ensemble.scores["test"]
    found = len(_of_doubtful_label(ensemble.scores))
    return "\n".join(
        [
            "| | n | test errors | test accuracy | training time |",
            "|---|--:|--:|--:|--:|",
            f"| {version}, one network | {n} | **{_spread(errors, '.1f', '.0f')}** | "
            f"{_spread([100 * a for a in accuracy], '.3f')} % | {of_one} |",
            f"| {ensemble.name} | 1 | **{test['errors']}** | {percent(test['accuracy'])} | "
            f"{of_all} |",
            "",
            "Mean ± standard deviation (least – greatest) over n seeds; the ensemble is the mean of"
            f" the probabilities of these {n} networks ({', '.join(members)}), each trained on "
            f"{' or '.join(ensemble.machines)}. Of its {test['errors']} errors {found} are "
            f"among the {len(evaluation.DOUBTFUL)} test images whose label people did not confirm "
            "when asked anew (cleanlab/label-errors)." + _without_views(ensemble),
        ]
    )


def _without_views(ensemble: Ensemble) -> str:
    part = evaluation.WITHOUT_TTA
    if part not in ensemble.scores:
        return ""
    errors = [scores[part]["errors"] for scores in ensemble.members.values()]
    return (
        " Seen as they are, without the tta of params.yaml, of which each costs a forward pass, "
        f"one network makes {_spread(errors, '.1f', '.0f')} errors and the ensemble "
        f"{ensemble.scores[part]['errors']}."
    )


def _spread(values: Sequence[float], style: str, ends: str | None = None) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    least, greatest = min(values), max(values)
    return (
        f"{statistics.mean(values):{style}} ± {deviation:{style}} "
        f"({least:{ends or style}} – {greatest:{ends or style}})"
    )


def section(ensemble: Ensemble) -> str:
    """The ensemble in metrics/report.md."""
    figures = ("comparison", f"{ensemble.name}-confusion", f"{ensemble.name}-misclassified")
    return "\n\n".join(
        [
            f"## {ensemble.name}",
            by_digit({ensemble.name: ensemble.scores, **ensemble.members}),
            f"Test images that it misses: {_listed(ensemble.scores['misclassified'])}. "
            + doubtful(ensemble.scores),
            *(f"![{figure}](ensemble/figures/{figure}.png)" for figure in figures),
        ]
    )


def by_digit(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the test errors and of the accuracy on each digit, a row a network."""
    lines = [
        f"| test accuracy by digit | errors | {' | '.join(map(str, range(10)))} |",
        "|---" + "|--:" * 11 + "|",
    ]
    for name, scored in scores.items():
        cells = " | ".join(map(percent, scored["test"]["per_class_accuracy"]))
        lines.append(f"| {name} | {scored['test']['errors']} | {cells} |")
    return "\n".join(lines)


def doubtful(scores: Mapping[str, Any]) -> str:
    """A sentence on the errors whose label is in doubt; for a report, not part of any score."""
    found = _listed(_of_doubtful_label(scores))
    return f"Of the {scores['test']['errors']} errors, of doubtful label: {found}."


def _of_doubtful_label(scores: Mapping[str, Any]) -> list[int]:
    return sorted(evaluation.DOUBTFUL.intersection(scores["misclassified"]))


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices)) or "none"
