"""Draw the figures that show how results spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from digits.reports.figures import OURS, REPORTED, canvas, panels, plain_numbers
from digits.reports.metrics import Version
from digits.reports.statistics import Summary
from digits.reports.study_report import VersionSummary

# The interval of fewer runs is wider than what they show.
BAND_RUNS = 5
Style = dict[str, Any]
BAND: Style = {"color": OURS, "alpha": 0.2, "lw": 0, "label": "95 % for one more run"}
MEAN: Style = {"color": OURS, "label": "mean of our runs"}
RUN: Style = {"color": OURS, "alpha": 0.8, "label": "a run of ours"}
REPORT: Style = {"color": REPORTED, "lw": 1, "label": "reported in 2018"}


def accuracies(versions: Sequence[VersionSummary]) -> Figure:
    """Draw the test accuracy of every run, the 95 % interval for one more, and that of 2018."""
    figure, cells = panels("Test accuracy over seeds, %", len(versions))
    for (axes,), version in zip(cells, versions, strict=True):
        percentages = 100 * np.array(version.accuracies)
        # Side by side, in the order of their seeds, because runs may be equal.
        axes.plot(np.linspace(-0.4, 0.4, len(percentages)), percentages, "o", **RUN)
        axes.axhline(version.accuracy.mean, **MEAN)
        if version.accuracy.n >= BAND_RUNS:
            axes.axhspan(*version.accuracy.interval(), **BAND)
        if version.reported:
            value = 100 * version.reported["test_accuracy"]
            axes.plot([-0.6, 0, 0.6], [value] * 3, "D--", markevery=[1], **REPORT)
        axes.set(title=f"{version.name}, n = {version.accuracy.n}", xticks=[], xlim=(-0.6, 0.6))
        axes.grid(alpha=0.3, axis="y")
    _add_legend(figure)
    return figure


def losses(versions: Sequence[VersionSummary]) -> Figure:
    """Draw how far the training loss of our runs, and that of 2018, is from our mean, by epoch.

    The losses themselves would lie on one another.
    """
    title = "Training loss over seeds: difference to the mean of our runs, %"
    figure, cells = panels(title, len(versions))
    for (axes,), version in zip(cells, versions, strict=True):
        epochs = np.arange(1, len(version.losses) + 1)
        means = np.array([summary.mean for summary in version.losses])
        if version.accuracy.n >= BAND_RUNS:
            bounds = np.array([summary.interval() for summary in version.losses]).T
            axes.fill_between(epochs, *(100 * (bounds / means - 1)), **BAND)
        else:
            runs = np.array([curve[: len(means)] for curve in version.curves])
            axes.plot(epochs, 100 * (runs / means - 1).T, "o", markersize=3, **RUN)
        axes.axhline(0, **MEAN)
        if curve := version.reported_losses:
            axes.plot(epochs, 100 * (np.array(curve) / means - 1), "s-", markersize=3, **REPORT)
        axes.set(title=f"{version.name}, n = {version.accuracy.n}", xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    _add_legend(figure)
    return figure


def _add_legend(figure: Figure) -> None:
    """Explain beneath a figure what its panels show, each thing once."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        shown, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, shown, strict=True))
    columns = 4 if len(figure.axes) > 1 else 2
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def errors_and_time(
    versions: Sequence[Version], errors: Mapping[str, Summary], note: str
) -> Figure:
    """Draw test errors against training time; an arrow leads from 2018's run of a version to ours.

    Args:
        versions: those whose time is known.
        errors: on the test images, over seeds, of each version.
        note: in what the times differ, in lines of 100 letters.
    """
    figure = canvas("Test errors against training time", 5.6)
    axes = figure.add_subplot(xscale="log", yscale="log")
    text: Style = {"textcoords": "offset points", "weight": "bold"}
    spread = "mean ± standard deviation over n seeds"
    if any(version.reported for version in versions):
        spread = f"ours, {spread}"
    for version in versions:
        summary = errors[version.name]
        # A logarithmic axis has no 0.
        ours = (version.seconds or 0, max(summary.mean, 0.5))
        label = f"{version.name} (n = {summary.n})"
        axes.errorbar(*ours, summary.deviation, fmt="o", color=OURS, capsize=4, label=spread)
        axes.annotate(label, ours, (8, -14), color=OURS, **text)
        # Room for the labels, also around a single point.
        axes.update_datalim(np.multiply.outer([0.6, 1.7], ours))
        if version.reported:
            reported = (version.reported["training_time_s"], version.reported["test_errors"])
            axes.plot(*reported, "s", color=REPORTED, label="reported in 2018, one run")
            axes.annotate(version.name, reported, (8, 6), color=REPORTED, **text)
            axes.update_datalim(np.multiply.outer([0.6, 1.7], reported))
            arrow: Style = {"arrowstyle": "->", "color": "#999999", "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", ours, reported, arrowprops=arrow)
    axes.set(xlabel=f"training time, s\n{note}", ylabel="test errors")
    axes.margins(0.05)
    for axis in (axes.xaxis, axes.yaxis):
        plain_numbers(axis)
    axes.grid(alpha=0.3, which="both")
    _add_legend(figure)
    return figure
