"""Figures of a study over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from digits.reports.figures import OURS, REPORTED
from digits.reports.statistics import Spread, spread

Curves = Sequence[Sequence[float]]


def accuracies(by_version: Mapping[str, Sequence[float]], reported: Mapping[str, float]) -> Figure:
    """The test accuracy of every run, the 95 % interval for one more, and what was reported.

    Args:
        by_version: shares of 1, one for each run.
        reported: of the versions that are known.
    """
    figure = Figure(figsize=(2.4 * len(by_version), 4.0), layout="constrained")
    figure.suptitle("Test accuracy over seeds")
    panels = np.atleast_1d(figure.subplots(1, len(by_version)))
    for axes, (version, values) in zip(panels, by_version.items(), strict=True):
        shares = 100 * np.array(values)
        low, high = (100 * end for end in spread(values).interval())
        axes.fill_between([0.6, 1.4], low, high, color=OURS, alpha=0.15, lw=0)
        axes.plot([0.6, 1.4], 2 * [shares.mean()], color=OURS)
        # Runs of equal accuracy stand side by side.
        aside = np.zeros(len(shares))
        for value in set(shares):
            same = np.flatnonzero(shares == value)
            aside[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * 0.07
        axes.plot(1 + aside, shares, "o", color=OURS, markersize=5, alpha=0.8)
        if version in reported:
            axes.plot(1, 100 * reported[version], "D", color=REPORTED, markersize=8)
            axes.axhline(100 * reported[version], color=REPORTED, lw=1, ls="--")
        axes.set(title=f"{version}, n = {len(shares)}", xticks=[], xlim=(0.4, 1.6))
        axes.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].plot([], [], "o", color=OURS, label="a run")
    panels[-1].plot([], [], color=OURS, label="their mean")
    panels[-1].fill_between([], [], [], color=OURS, alpha=0.15, label="95 % for one more")
    panels[-1].plot([], [], "D--", color=REPORTED, label="reported in 2018")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def losses(by_version: Mapping[str, Curves], reported: Mapping[str, Sequence[float]]) -> Figure:
    """Training loss by epoch: the 95 % interval for one more run, and the curve of 2018 on it.

    Below, the same in units of the spread between seeds, in which a difference can be seen.
    """
    figure = Figure(figsize=(3.2 * len(by_version), 5.2), layout="constrained")
    figure.suptitle("Training loss over seeds")
    panels = figure.subplots(2, len(by_version), squeeze=False, sharex="col", height_ratios=[3, 2])
    for column, (version, curves) in enumerate(by_version.items()):
        above, below = panels[:, column]
        told = [spread(values) for values in zip(*curves, strict=True)]
        epochs = np.arange(1, len(told) + 1)
        means = np.array([of_epoch.mean for of_epoch in told])
        low, high = np.array([of_epoch.interval() for of_epoch in told]).T
        above.fill_between(epochs, low, high, color=OURS, alpha=0.25, lw=0)
        above.plot(epochs, means, color=OURS)
        below.fill_between(epochs, *_scaled(told, low, high), color=OURS, alpha=0.25, lw=0)
        below.axhline(0, color=OURS)
        if version in reported:
            curve = np.array(reported[version])
            above.plot(epochs, curve, "s-", color=REPORTED, markersize=3, lw=1)
            (scaled,) = _scaled(told, curve)
            below.plot(epochs, scaled, "s-", color=REPORTED, markersize=3, lw=1)
        else:  # nothing to compare with
            below.set_visible(False)
            above.tick_params(labelbottom=True)
            above.set(xlabel="epoch")
        above.set(title=f"{version}, n = {told[0].n}", yscale="log")
        below.set(xlabel="epoch")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (above, below):
            axes.grid(alpha=0.3, which="both")
    panels[0, 0].set_ylabel("training loss")
    panels[1, 0].set_ylabel("difference to the mean,\nin standard deviations")
    panels[0, 0].plot([], [], color=OURS, label="mean of our runs")
    panels[0, 0].fill_between([], [], [], color=OURS, alpha=0.25, label="95 % for one more")
    panels[0, 0].plot([], [], "s-", color=REPORTED, markersize=3, label="reported in 2018")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _scaled(told: Sequence[Spread], *curves: Any) -> list[Any]:
    means = np.array([of_epoch.mean for of_epoch in told])
    deviations = np.array([of_epoch.deviation for of_epoch in told])
    return [(curve - means) / deviations for curve in curves]
