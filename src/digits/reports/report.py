"""The written results: metrics/report.md and the table in the README, made from metrics/."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from digits import DigitsError
from digits.reports import ensemble, study, study_figures
from digits.reports.metrics import REPRODUCTION, Results, hardware, percent

STUDY_FIGURES = f"studies/{REPRODUCTION}/figures"
Row = tuple[str, str, Callable[[Any], str]]


def training_time(results: Results) -> Figure:
    """The bar chart of training times."""
    seconds = {v: timing["training_seconds"] or 0.0 for v, timing in results.timing.items()}
    machine = hardware(next(iter(results.machine.values())))
    return study_figures.training_time(seconds, results.reported, machine)


def in_readme(readme: str, name: str, text: str) -> str:
    """A page with what stands between its marks `<!-- name -->` and `<!-- /name -->` replaced.

    Raises:
        DigitsError: the marks are not there.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, start, rest = readme.partition(first)
    _, end, after = rest.partition(last)
    if not (start and end):
        raise DigitsError(f"the page: expected the lines {first.strip()} and {last.strip()}")
    return f"{before}{start}{text}{end}{after}"


def table(results: Results) -> str:
    """One row per version, reported | ours."""
    lines = [
        (
            "| version | parameters | test accuracy, 2018 | **ours** "
            "| test errors, 2018 | **ours** | training time, 2018 | **ours** |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for version, scores in results.scores.items():
        known = results.reported.get(version)
        test = scores["test"]
        cells = [
            version,
            f"{scores['parameters']:,}",
            percent(known["test_accuracy"]) if known else "–",
            f"**{percent(test['accuracy'])}**",
            str(known["test_errors"]) if known else "–",
            f"**{test['errors']}**",
            _seconds(known["training_time_s"]) if known else "–",
            f"**{_seconds(results.timing[version]['training_seconds'])}**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    parts = ["\n".join(lines), _conditions(results)]
    if results.ensemble:
        parts.append(ensemble.table(results.ensemble))
    return "\n\n".join(parts) + "\n"


def _conditions(results: Results) -> str:
    """Hardware, libraries and dates: once where all versions share them."""
    ours: dict[str, list[str]] = {}
    for version, machine in results.machine.items():
        text = (
            f"{machine['date']} on {hardware(machine)}, {machine['system']}, "
            f"Python {machine['python']}, Keras {machine['keras']}, "
            f"TensorFlow {machine.get('tensorflow', machine.get('tensorflow-cpu'))}"
        )
        ours.setdefault(text, []).append(version)
    said = "; ".join(f"{', '.join(versions)}: {text}" for text, versions in ours.items())
    return (
        f"One run of each version (n = 1), the seed of params.yaml. Ours: {said}. "
        f"2018: {results.reported_hardware}; its times include scoring the training set after "
        "every epoch; ours are the whole call of fit, with tracking."
    )


def promises(counted: Mapping[str, Any]) -> str:
    """What is promised when things go wrong, and how often that was tried and kept."""
    lines = ["| what happens | what is promised | tried | kept |", "|---|---|--:|--:|"]
    for fault, row in counted["faults"].items():
        lines.append(f"| {fault} | {row['promise']} | {row['tried']} | {row['survived']} |")
    made = (
        f"`make test-faults` on {counted['date']}: {hardware(counted)}, {counted['system']}, "
        f"Python {counted['python']}, MLflow {counted['mlflow']}, DVC {counted['dvc']}."
    )
    return "\n".join([*lines, "", made])


def page(results: Results) -> str:
    """All of metrics/report.md."""
    parts = [
        "# Reported in 2018, measured here",
        "Written by `digits report` from the files in this folder.",
        table(results).strip(),
        "![test errors and parameters](figures/comparison.png)",
        "![training time](training-time.png)",
        *(_section(version, results) for version in results.scores),
        *([ensemble.section(results.ensemble)] if results.ensemble else []),
        *(_study(results) if results.study else []),
        "## The data",
        "![samples](figures/samples.png)",
        "## What the 2018 report says of itself that its logs do not",
        "\n".join(f"- {note}" for note in results.notes),
    ]
    return "\n\n".join(parts) + "\n"


def study_figures(results: Results) -> dict[str, Figure]:
    """The figures of the study over seeds, by the end of their path; none without a study."""
    if results.study is None or not (grouped := study.by_version(results.study.results)):
        return {}
    accuracies = {version: study.test_accuracies(found) for version, found in grouped.items()}
    losses = {version: study.losses(found) for version, found in grouped.items()}
    known = results.reported
    return {
        f"{STUDY_FIGURES}/accuracies.png": study_figures.accuracies(
            accuracies, {version: told["test_accuracy"] for version, told in known.items()}
        ),
        f"{STUDY_FIGURES}/losses.png": study_figures.losses(
            losses, {version: told["history"]["loss"] for version, told in known.items()}
        ),
    }


def study_table(results: Results) -> str:
    """Many seeds against the report: tables and verdict."""
    study = results.study
    if study is None:
        return ""
    return study.table(study.results, results.reported, study.machines) + "\n"


def _study(results: Results) -> list[str]:
    assert results.study
    return [
        "## Over seeds",
        study_table(results).strip(),
        study.section(results.study.results, results.reported, STUDY_FIGURES),
    ]


def _section(version: str, results: Results) -> str:
    scores, known = results.scores[version], results.reported.get(version, {})
    ours = {
        "parameters": scores["parameters"],
        "epochs": results.epochs[version],
        "first_loss": results.first_loss[version],
        "training_time_s": results.timing[version]["training_seconds"],
        **{
            f"{part}_{name}": scores[part][name]
            for part in ("train", "test")
            for name in ("loss", "accuracy", "errors")
        },
    }
    reported = dict(known)
    if known:
        curve = known["history"]["loss"]
        reported |= {"first_loss": curve[0], "epochs": len(curve)}
    rows: tuple[Row, ...] = (
        ("parameters", "parameters", "{:,}".format),
        ("epochs", "epochs", "{:.0f}".format),
        ("training loss, first epoch", "first_loss", "{:.4f}".format),
        ("loss, training images", "train_loss", "{:.5f}".format),
        ("accuracy, training images", "train_accuracy", percent),
        ("errors, training images", "train_errors", "{:,}".format),
        ("loss, test images", "test_loss", "{:.5f}".format),
        ("accuracy, test images", "test_accuracy", percent),
        ("errors, test images", "test_errors", "{:,}".format),
        ("training time", "training_time_s", _seconds),
    )
    lines = ["| | 2018 | ours | ours − 2018 |", "|---|--:|--:|--:|"]
    for label, key, style in rows:
        then, now = reported.get(key), ours[key]
        change = "–" if then is None or now is None else _signed(now - then, style)
        lines.append(
            f"| {label} | {'–' if then is None else style(then)} | {style(now)} | {change} |"
        )
    figures = ("layers", "curves", "confusion", "misclassified")
    return "\n\n".join(
        [
            f"## {version}",
            "\n".join(lines),
            ensemble.by_digit({version: scores}),
            ensemble.doubtful(scores),
            *(f"![{version}: {name}](figures/{version}-{name}.png)" for name in figures),
        ]
    )


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"


def _signed(change: float, style: Callable[[float], str]) -> str:
    size = style(abs(change)).replace("%", "points")
    return f"{'−' if change < 0 else '+' if change > 0 else '±'}{size}"
