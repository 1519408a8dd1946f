"""Draw data as matplotlib figures. Nothing is read or written here."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE

OURS, REPORTED = "#1f6fb4", "#d9822b"
COLORS = {
    "Conv2D": "#9ecae1",
    "Dense": "#a1d99b",
    "MaxPooling2D": "#fdd0a2",
    "AveragePooling2D": "#fdd0a2",
    "Dropout": "#e3e3e3",
    "Flatten": "#f2f2f2",
}
Column = Mapping[str, Sequence[float]]
Names = Sequence[str] | None  # of the ten classes


def png(figure: Figure) -> bytes:
    """Return a figure as PNG without date or version: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def samples(
    x: NDArray[np.uint8], y: NDArray[np.uint8], each: int = 12, names: Names = None
) -> Figure:
    """Draw the first `each` images of every class in a row, labelled with names or digits."""
    figure = Figure(figsize=(each * 0.55 + 0.5, 10 * 0.55 + 0.5), layout="constrained")
    figure.suptitle("training images, by label" if names else "MNIST training images, by label")
    axes = figure.add_subplot()
    rows = [x[np.flatnonzero(y == digit)[:each]] for digit in range(10)]
    height, _ = _gallery(axes, rows, each, above=2)
    centres = (np.arange(10) + 0.5) * height
    axes.set_yticks(centres, _labels(names), fontsize=8 if names else 13)
    return figure


def _gallery(
    axes: Axes, rows: Sequence[NDArray[np.uint8]], columns: int, above: int
) -> tuple[int, int]:
    """Draw rows of images as one picture, in a fraction of the time that axes for each would take.

    Args:
        above: free pixels above each image.

    Returns:
        Height and width, in pixels, of an image with the space around it.
    """
    height, width = IMAGE_SIDE + above, IMAGE_SIDE + 3
    sheet = np.zeros((len(rows) * height, columns * width), dtype=np.uint8)
    for number, row in enumerate(rows):
        for column, image in enumerate(row):
            bottom, left = (number + 1) * height, column * width
            sheet[bottom - IMAGE_SIDE : bottom, left : left + IMAGE_SIDE] = image
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return height, width


def layers(version: str, described: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a network's layers from the image down to the probabilities, with shapes and sizes."""
    height = 0.62 * (len(described) + 1) + 0.7
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    total = sum(layer["parameters"] for layer in described)
    axes.set_title(f"{version}: {total:,} parameters")
    rows: list[Mapping[str, Any]] = [
        {"type": "image", "output_shape": [28, 28, 1], "parameters": 0},
        *described,
    ]
    for index, layer in enumerate(rows):
        y = -index
        box = FancyBboxPatch(
            (0.0, y - 0.33),
            6,
            0.66,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=COLORS.get(layer["type"], "#ffffff"),
            edgecolor="#555555",
        )
        axes.add_patch(box)
        axes.text(0.2, y, layer["type"], va="center", weight="bold")
        axes.text(2.7, y, " × ".join(map(str, layer["output_shape"])), va="center")
        if layer["parameters"]:
            axes.text(5.85, y, f"{layer['parameters']:,}", va="center", ha="right")
        if index:
            axes.annotate("", (3, y + 0.33), (3, y + 0.67), arrowprops={"arrowstyle": "->"})
    axes.set(xlim=(-0.1, 6.1), ylim=(-len(rows) + 0.5, 0.5))
    axes.axis("off")
    return figure


def learning_curves(version: str, ours: Column, reported: Column | None) -> Figure:
    """Draw loss and accuracy by epoch; those of held-out images dashed, those of 2018 in orange."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    figure.suptitle(f"{version}: training")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        epochs = range(1, len(ours[name]) + 1)
        axes.plot(epochs, ours[name], "o-", color=OURS, markersize=3, label="ours")
        if f"val_{name}" in ours:
            held_out = ours[f"val_{name}"]
            axes.plot(epochs, held_out, "--", color=OURS, label="ours, held-out images")
        if reported:
            epochs = range(1, len(reported[name]) + 1)
            axes.plot(epochs, reported[name], "s-", color=REPORTED, markersize=3, label="2018")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "loss":
            axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


def confusion(
    version: str, matrix: Sequence[Sequence[int]], images: str, names: Names = None
) -> Figure:
    """Draw counts by true and predicted class; the errors are shaded, the diagonal is not."""
    counts = np.array(matrix)
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    figure = Figure(figsize=(6.2, 5.6), layout="constrained")
    axes = figure.add_subplot()
    shades = axes.imshow(errors, cmap="Reds", vmin=0, vmax=max(int(errors.max()), 1))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = errors[row, column] > 0.6 * errors.max()
            axes.text(column, row, count, ha="center", va="center", color="w" if dark else "k")
    axes.set(
        title=f"{version}: {errors.sum()} errors in {counts.sum():,} {images} images",
        xlabel="assigned",
        ylabel="true",
    )
    axes.set_xticks(range(10), _labels(names), rotation=90 if names else 0)
    axes.set_yticks(range(10), _labels(names))
    figure.colorbar(shades, label="errors", ticks=MaxNLocator(integer=True))
    return figure


def misclassified(
    version: str,
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    names: Names = None,
) -> Figure:
    """Draw the images that are not predicted as labelled, most probable first, at most 300."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown = wrong[:300]
    columns = 12
    rows = [shown[start : start + columns] for start in range(0, max(len(shown), 1), columns)]
    figure = Figure(figsize=(columns * 0.85, len(rows) * 1.05 + 0.6), layout="constrained")
    count = f"all {len(wrong)}" if len(shown) == len(wrong) else f"{len(shown)} of {len(wrong):,}"
    figure.suptitle(f"{version}: {count} misclassified test images: label → assigned (probability)")
    axes, labels = figure.add_subplot(), _labels(names)
    height, width = _gallery(axes, [x[row] for row in rows], columns, above=9)
    for position, index in enumerate(shown):
        row, column = divmod(position, columns)
        text = f"{labels[y[index]]} → {labels[predicted[index]]}  ({confidence[index]:.2f})"
        size = 4 if names else 7.5
        axes.text(column * width + 14, row * height + 8, text, fontsize=size, ha="center")
    return figure


def comparison(ours: Mapping[str, Mapping[str, Any]], reported: Mapping[str, Any]) -> Figure:
    """Draw test errors and parameters of all versions beside those reported in 2018."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    errors = {version: scores["test"]["errors"] for version, scores in ours.items()}
    _bars(left, errors, {v: r["test_errors"] for v, r in reported.items()})
    left.set(title="errors on the 10,000 test images", ylabel="errors")
    left.legend()
    sizes = {version: scores["parameters"] for version, scores in ours.items()}
    _bars(right, sizes, {})
    right.set(title="parameters", ylabel="parameters")
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def training_time(ours: Mapping[str, float], reported: Mapping[str, Any], hardware: str) -> Figure:
    """Draw the training time of each version, in seconds, beside those reported in 2018."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _bars(axes, ours, {v: r["training_time_s"] for v, r in reported.items()})
    axes.set(title=f"training time (ours: {hardware})", ylabel="seconds", yscale="log")
    axes.set_ylim(top=4 * max(axes.get_ylim()[1], 1))
    axes.legend()
    return figure


def _bars(axes: Axes, ours: Mapping[str, float], reported: Mapping[str, float]) -> None:
    reported = {version: value for version, value in reported.items() if version in ours}
    width = 0.38 if reported else 0.6
    shift = width / 2 if reported else 0
    positions = {version: position for position, version in enumerate(ours)}
    for values, label, color, offset in (
        (reported, "2018", REPORTED, -shift),
        (ours, "ours", OURS, shift),
    ):
        if values:
            centres = [positions[version] + offset for version in values]
            bars = axes.bar(centres, list(values.values()), width, label=label, color=color)
            axes.bar_label(bars, [f"{value:,.0f}" for value in values.values()], padding=2)
    axes.set_xticks(range(len(ours)), list(ours))
    if len("".join(ours)) > 30:
        axes.tick_params("x", labelrotation=30)
    axes.margins(y=0.15)


def _labels(names: Names) -> Sequence[str]:
    return names or [str(digit) for digit in range(CLASSES)]


def curves(ours: Mapping[str, Column], reported: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the learning curves of all versions and of 2018 as one table, for `dvc plots`."""
    table: dict[str, list[Any]] = {"version": [], "epoch": [], "loss": [], "accuracy": []}
    for version, columns in ours.items():
        named = {version: columns}
        if version in reported:
            named[f"{version} (2018)"] = reported[version]["history"]
        for name, curve in named.items():
            epochs = len(curve["loss"])
            table["version"] += [name] * epochs
            table["epoch"] += range(1, epochs + 1)
            table["loss"] += curve["loss"]
            table["accuracy"] += curve["accuracy"]
    return table
