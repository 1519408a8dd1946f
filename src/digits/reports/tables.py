"""Helpers of the templates: tables, numbers with their spread, machines; None is shown as "–"."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined

from digits.reports.statistics import LEVEL, Summary, familywise_p, summarise

MISSING = "–"
# Test images of MNIST whose label got no majority when people labelled them anew. Source:
# C. Northcutt, A. Athalye and J. Mueller, "Pervasive label errors in test sets" (2021),
# cleanlab/label-errors.
DOUBTFUL = frozenset(
    [947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729]
)


def columns(*names: object, left: int = 1) -> str:
    """Return the header of a Markdown table: its first `left` columns to the left, others right.

    Args:
        names: a list stands for several columns, as in `row`.
    """
    cells = _flat(names)
    rule = ["---"] * left + ["--:"] * (len(cells) - left)
    return f"{row(*cells)}\n|{'|'.join(rule)}|"


def row(*cells: object) -> str:
    """Return one line of a Markdown table."""
    texts = [number(cell).replace("|", "\\|") for cell in _flat(cells)]
    return f"| {' | '.join(texts)} |"


def _flat(cells: Iterable[object]) -> list[object]:
    lists = [cell if isinstance(cell, list | tuple) else [cell] for cell in cells]
    return [cell for cells in lists for cell in cells]


def number(value: Any, spec: str = "", unit: str = "", scale: float = 1) -> str:
    """Format a value in another unit."""
    return MISSING if value is None else f"{value if scale == 1 else scale * value:{spec}}{unit}"


def percent(share: float | None, digits: int = 2, unit: str = " %") -> str:
    """Format a share of 1 as percentage."""
    return number(share, f".{digits}f", unit, 100)


def signed(value: float | None, spec: str = "", unit: str = "", scale: float = 1) -> str:
    """Format a difference."""
    if value is None:
        return MISSING
    return ("−" if value < 0 else "+" if value else "±") + number(abs(value), spec, unit, scale)


def class_rows(scores: Mapping[str, Any], names: Sequence[str] | None) -> list[list[object]]:
    """Return for each class its name or label, images, errors, precision, recall and F1.

    Args:
        scores: of one part, as `digits.core.evaluation.score` returns them.
        names: of the classes; used if there is one for each class of the scores.
    """
    matrix = scores["confusion_matrix"]
    labels = names if names and len(names) == len(matrix) else range(len(matrix))
    return [
        [
            name,
            f"{sum(counts):,}",
            f"{sum(counts) - counts[label]:,}",
            *(percent(scores[measure][label]) for measure in ("precision", "recall", "f1")),
        ]
        for label, (name, counts) in enumerate(zip(labels, matrix, strict=True))
    ]


def doubtful(scores: Mapping[str, Any]) -> list[int]:
    """Return the misclassified test images whose label is in doubt."""
    return sorted(DOUBTFUL.intersection(scores["misclassified"]))


def bold(text: str) -> str:
    """Emphasise the text of a cell."""
    return f"**{text}**"


def mean_deviation(summary: Summary, spec: str) -> str:
    """Format mean ± sample standard deviation; of a single number, that number."""
    mean = f"{summary.mean:{spec}}"
    return f"{mean} ± {summary.deviation:{spec}}" if summary.n > 1 else mean


def spread(summary: Summary, spec: str, ends: str | None = None) -> str:
    """Format mean ± sample standard deviation (least – greatest).

    Args:
        spec: the format of all four.
        ends: the format of least and greatest, if they have another, as counts do.
    """
    if summary.n == 1:
        return f"{summary.mean:{ends or spec}}"
    extremes = interval((summary.least, summary.greatest), ends or spec)
    return f"{mean_deviation(summary, spec)} ({extremes})"


def placed(summary: Summary, value: float | None) -> list[str]:
    """Format a loss and its percentile among the runs."""
    if value is None:
        return [MISSING, MISSING]
    return [f"{value:.4f}", percent(summary.percentile(value), 1, "")]


def interval(ends: tuple[float, float], spec: str) -> str:
    """Format the two ends of an interval."""
    return f"{ends[0]:{spec}} – {ends[1]:{spec}}"


def listed(words: Sequence[object], conjunction: str = "and") -> str:
    """Join words as in a sentence: a, b and c."""
    *most, last = map(str, words)
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def hardware(machine: Mapping[str, str]) -> str:
    """Describe a machine by its processor, cores and memory."""
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}"


def software(machine: Mapping[str, str]) -> str:
    """Name the versions of Python, Keras and TensorFlow of a machine."""
    tensorflow = machine.get("tensorflow", machine.get("tensorflow-cpu"))
    return f"Python {machine['python']}, Keras {machine['keras']}, TensorFlow {tensorflow}"


def environment(loader: BaseLoader) -> Environment:
    """Return an environment whose templates know these helpers and raise on unknown names."""
    result = Environment(
        loader=loader,
        extensions=["jinja2.ext.do"],
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the pages are Markdown
    )
    numbers = (number, percent, signed, summarise, mean_deviation, spread, placed, interval)
    for helper in (columns, row, bold, listed, hardware, software, class_rows, doubtful, *numbers):
        result.globals[helper.__name__] = result.filters[helper.__name__] = helper
    result.globals |= {"LEVEL": LEVEL, "DOUBTFUL": DOUBTFUL, "familywise_p": familywise_p}
    return result


def render(template: str, **context: Any) -> str:
    """Render a template of this package."""
    return environment(PackageLoader("digits.reports")).get_template(template).render(context)
