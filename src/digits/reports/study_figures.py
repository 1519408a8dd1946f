"""Draw the figures of a study over seeds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from digits.reports.figures import OURS, REPORTED
from digits.reports.statistics import summarise
from digits.reports.study_report import VersionSummary


def accuracies(versions: Sequence[VersionSummary]) -> Figure:
    """Draw the test accuracy of every run, the 95 % interval for one more, and that of 2018."""
    figure = Figure(figsize=(max(2.4 * len(versions), 4.0), 4.0), layout="constrained")
    figure.suptitle("Test accuracy over seeds")
    panels = np.atleast_1d(figure.subplots(1, len(versions)))
    for axes, version in zip(panels, versions, strict=True):
        percentages = 100 * np.array(version.accuracies)
        low, high = (100 * end for end in summarise(version.accuracies).interval())
        axes.fill_between([0.6, 1.4], low, high, color=OURS, alpha=0.15, lw=0)
        axes.plot([0.6, 1.4], 2 * [percentages.mean()], color=OURS)
        # Runs of equal accuracy are drawn side by side.
        aside = np.zeros(len(percentages))
        for value in set(percentages):
            same = np.flatnonzero(percentages == value)
            aside[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * 0.07
        axes.plot(1 + aside, percentages, "o", color=OURS, markersize=5, alpha=0.8)
        if version.reported:
            value = 100 * version.reported["test_accuracy"]
            axes.plot(1, value, "D", color=REPORTED, markersize=8)
            axes.axhline(value, color=REPORTED, lw=1, ls="--")
        axes.set(title=f"{version.name}, n = {version.accuracy.n}", xticks=[], xlim=(0.4, 1.6))
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("test accuracy, %")
    last = panels[-1]
    last.plot([], [], "o", color=OURS, label="a run")
    last.plot([], [], color=OURS, label="their mean")
    last.fill_between([], [], [], color=OURS, alpha=0.15, label="95 % for one more")
    if any(version.reported for version in versions):
        last.plot([], [], "D--", color=REPORTED, label="reported in 2018")
    columns = 4 if len(versions) > 2 else 2
    handles, labels = last.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


def losses(versions: Sequence[VersionSummary]) -> Figure:
    """Draw the training loss by epoch: the 95 % interval for one more run, and the curve of 2018.

    Where there is such a curve, the lower panel shows the same in standard deviations between
    seeds, a scale on which differences are visible.
    """
    rows = 2 if any(version.reported_losses for version in versions) else 1
    size = max(3.2 * len(versions), 4.8), 5.2 if rows == 2 else 3.6
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle("Training loss over seeds")
    panels = figure.subplots(
        rows, len(versions), squeeze=False, sharex="col", height_ratios=[3, 2][:rows]
    )
    for column, version in enumerate(versions):
        above, summaries = panels[0, column], version.losses
        epochs = np.arange(1, len(summaries) + 1)
        means = np.array([summary.mean for summary in summaries])
        deviations = np.array([summary.deviation for summary in summaries])
        low, high = np.array([summary.interval() for summary in summaries]).T
        above.fill_between(epochs, low, high, color=OURS, alpha=0.25, lw=0)
        above.plot(epochs, means, color=OURS)
        above.set(title=f"{version.name}, n = {version.accuracy.n}", yscale="log")
        above.grid(alpha=0.3, which="both")
        panels[-1, column].set(xlabel="epoch")
        panels[-1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
        if version.reported_losses:
            below, curve = panels[1, column], np.array(version.reported_losses)
            above.plot(epochs, curve, "s-", color=REPORTED, markersize=3, lw=1)
            bounds = ((end - means) / deviations for end in (low, high))
            below.fill_between(epochs, *bounds, color=OURS, alpha=0.25, lw=0)
            below.axhline(0, color=OURS)
            scaled = (curve - means) / deviations
            below.plot(epochs, scaled, "s-", color=REPORTED, markersize=3, lw=1)
            below.grid(alpha=0.3, which="both")
        elif rows == 2:
            panels[1, column].set_visible(False)
            above.tick_params(labelbottom=True)
            above.set(xlabel="epoch")
    first = panels[0, 0]
    first.set_ylabel("training loss")
    first.plot([], [], color=OURS, label="mean of our runs")
    first.fill_between([], [], [], color=OURS, alpha=0.25, label="95 % for one more")
    if rows == 2:
        panels[1, 0].set_ylabel("difference to the mean,\nin standard deviations")
        first.plot([], [], "s-", color=REPORTED, markersize=3, label="reported in 2018")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if len(versions) > 1 else 2)
    return figure
