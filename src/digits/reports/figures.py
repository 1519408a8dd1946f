"""Draw data as matplotlib figures. Nothing is read or written here."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from digits.core.schema import MNIST_SHAPE, Model
from digits.reports.statistics import CALIBRATION_BINS, calibration

OURS, REPORTED = "#1f6fb4", "#d9822b"
COLORS = {
    "Conv2D": "#9ecae1",
    "Dense": "#a1d99b",
    "MaxPooling2D": "#fdd0a2",
    "GlobalAveragePooling2D": "#fdd0a2",
    "GlobalMaxPooling2D": "#fdd0a2",
    "Add": "#c6b6dd",
    "Concatenate": "#c6b6dd",
    "AveragePooling2D": "#fdd0a2",
    "Dropout": "#e3e3e3",
}
WIDTH = 8.0  # inches: the 880 pixels at which GitHub shows a picture, so that no text shrinks
MISCLASSIFIED = 48  # at most so many are shown
Column = Mapping[str, Sequence[float]]
Names = Sequence[str] | None  # of the classes, if they have any
MOST_CLASSES = 30  # are shown one by one


def png(figure: Figure) -> bytes:
    """Return a figure as PNG without date or version: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(buffer, format="png", dpi=110, **options)
    return buffer.getvalue()


def canvas(title: str, height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of a size in inches, white and with a margin for dark pages."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    figure.suptitle(title)
    return figure


def panels(title: str, number: int, parts: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure, and the axes of its panels: at most four panels side by side.

    Args:
        parts: of a panel, one below the other.
    """
    columns = min(number, 4)
    rows = -(-number // columns)
    figure = canvas(title, 3.3 * rows + 1.2, 6.0 if number == 1 else WIDTH)
    return figure, [
        [
            figure.add_subplot(rows * parts, columns, (row * parts + part) * columns + column + 1)
            for part in range(parts)
        ]
        for row, column in (divmod(position, columns) for position in range(number))
    ]


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 0.5, 1, 2, 5 …, or 1, 100, … if it is long, without exponents."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10_000 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.9f}".rstrip("0").rstrip("."))
    axis.set_minor_formatter(NullFormatter())


def samples(
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    each: int = 12,
    names: Names = None,
    title: str = "MNIST training images, by label",
) -> Figure:
    """Draw the first `each` images of every class in a row, labelled with names or numbers."""
    classes = min(int(y.max()) + 1, MOST_CLASSES)
    figure = canvas(title, classes * 0.55 + 0.7, each * 0.55 + 0.7)
    axes = figure.add_subplot()
    rows = [x[np.flatnonzero(y == label)[:each]] for label in range(classes)]
    height, _ = _gallery(axes, rows, each, above=2)
    centres = (np.arange(classes) + 0.5) * height
    axes.set_yticks(centres, _labels(names, classes), fontsize=8 if names else 13)
    return figure


def _gallery(
    axes: Axes, rows: Sequence[NDArray[np.uint8]], columns: int, above: int
) -> tuple[int, int]:
    """Draw rows of images as one picture, in a fraction of the time that axes for each would take.

    Args:
        rows: of grey images, drawn as ink on paper, or of colour; of other channels the first.
        above: free pixels above each image.

    Returns:
        Height and width, in pixels, of an image with the space around it.
    """
    image_height, image_width, *channels = rows[0].shape[1:]
    is_colour = channels in ([3], [4])
    paper = 255 if is_colour else 0
    height, width = image_height + above, image_width + 3
    sheet_shape = (len(rows) * height, columns * width, *(channels if is_colour else []))
    sheet = np.full(sheet_shape, paper, dtype=np.uint8)
    for number, row in enumerate(rows):
        for column, image in enumerate(row if is_colour or not channels else row[..., 0]):
            bottom, left = (number + 1) * height, column * width
            sheet[bottom - image_height : bottom, left : left + image_width] = image
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return height, width


def layers(
    version: str,
    described: Sequence[Mapping[str, Any]],
    model: Model | None,
    image_shape: Sequence[int] = MNIST_SHAPE,
) -> Figure:
    """Draw a network's layers as a table, from the image down to the probabilities.

    Args:
        described: of each layer, as in the scores: type, output shape and number of parameters.
        model: the version's parameters, for activations, kernels and strides.
    """
    rows = _layer_rows(described, model, image_shape)
    total = sum(layer["parameters"] for layer in described)
    figure = canvas(f"{version}: {total:,} parameters", 0.36 * len(rows) + 0.9)
    axes = figure.add_subplot()
    colors = [COLORS.get(name.split()[0], "#f7f7f7") for name, *_ in rows]
    axes.barh(range(len(rows)), 100, 0.85, color=colors)
    headings = ("layer", "kernel", "stride", "output", "parameters")
    sides = ("left", "left", "right", "left", "right")
    for x, side, *cells in zip((1, 43, 64, 68, 99), sides, headings, *rows, strict=True):
        for y, text in enumerate(cells, -1):
            axes.text(x, y, text, ha=side, va="center")
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -1.5))
    axes.axis("off")
    return figure


def _layer_rows(
    described: Sequence[Mapping[str, Any]], model: Model | None, image_shape: Sequence[int]
) -> list[list[str]]:
    """Return the texts of `layers`; BatchNormalization and ReLU join the layer before them."""
    rows: list[list[Any]] = [["image", "", "", _by(image_shape), 0]]
    layers = model.layers if model else []
    # Scores of other parameters may be drawn, if `digits plot` is called by hand.
    names = [layer.name.rpartition(".")[-1] for layer in layers]
    fits = names == [layer["type"] for layer in described]
    for index, layer in enumerate(described):
        name, arguments = layer["type"], layers[index].arguments if fits else {}
        if name in ("BatchNormalization", "ReLU") and index:
            rows[-1][0] += f" + {name.replace('alization', '')}"
            rows[-1][-1] += layer["parameters"]
            continue
        name += f" {arguments['rate']}" if "rate" in arguments else ""
        if branches := arguments.get("branches"):
            firsts = [branch[0].name if branch else "the input" for branch in branches]
            name += f" of {' and '.join(firsts)}"
        if activation := arguments.get("activation"):
            name += f" + {activation.replace('relu', 'ReLU')}"
        size = arguments.get("kernel_size", arguments.get("pool_size", ""))
        kernel = f"{size} × {size}" if isinstance(size, int) else _by(size)
        kernel += ", padded" if arguments.get("padding") == "same" else ""
        stride = arguments.get("strides", arguments.get("pool_size", 1 if size else ""))
        stride = str(stride) if isinstance(stride, int) else _by(stride)
        rows.append([name, kernel, stride, _by(layer["output_shape"]), layer["parameters"]])
    return [[*texts, f"{number:,}" if number else ""] for *texts, number in rows]


def _by(sizes: Iterable[object]) -> str:
    return " × ".join(map(str, sizes))


def learning_curves(
    version: str, ours: Column, reported: Column | None, model: Model | None = None
) -> Figure:
    """Draw loss and error rate by epoch; those of held-out images dashed, of 2018 in orange.

    Args:
        model: the version's parameters, which say whether the loss is that of smoothed labels.
    """
    smoothing = model.loss.arguments.get("label_smoothing") if model else None
    loss = f"loss, labels smoothed by {smoothing:g}" if smoothing else "loss"
    run = "ours" if reported else "this run"
    figure = canvas(f"{version}: training", 3.8)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for label, style, color, column in (
            (run, "o-", OURS, ours[name]),
            (f"{run}, held-out images", "--", OURS, ours.get(f"val_{name}")),
            ("2018", "s-", REPORTED, reported and reported[name]),
        ):
            if column:
                values, least = np.array(column), 1e-6  # A logarithmic axis has no 0.
                if name == "accuracy":
                    values, least = np.round(100 * (1 - values), 4), 1e-4
                epochs = range(1, len(column) + 1)
                axes.plot(
                    epochs, np.maximum(values, least), style, color=color, markersize=3, label=label
                )
        axes.set(xlabel="epoch", yscale="log")
        axes.set_ylabel(loss if name == "loss" else "error rate (1 − accuracy), %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        plain_numbers(axes.yaxis)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


def confusion(
    version: str, matrix: Sequence[Sequence[int]], images: str, names: Names = None
) -> Figure:
    """Draw counts by true and predicted class; the errors are shaded, the diagonal is not."""
    counts = np.array(matrix)
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    classes = len(counts)
    figure = canvas("", *((5.8, 6.6) if classes <= 10 else (7.6, WIDTH)))
    axes = figure.add_subplot()
    shades = axes.imshow(errors, cmap="Reds", vmin=0, vmax=max(int(errors.max()), 1))
    for (row, column), count in np.ndenumerate(counts):
        if count and classes <= MOST_CLASSES:
            dark = errors[row, column] > 0.6 * errors.max()
            axes.text(column, row, count, ha="center", va="center", color="w" if dark else "k")
    axes.set(
        title=f"{version}: {errors.sum()} errors in {counts.sum():,} {images} images",
        xlabel="assigned",
        ylabel="true",
    )
    if classes <= MOST_CLASSES:
        axes.set_xticks(range(classes), _labels(names, classes), rotation=90 if names else 0)
        axes.set_yticks(range(classes), _labels(names, classes))
    figure.colorbar(shades, label="errors", ticks=MaxNLocator(integer=True))
    return figure


def misclassified(
    version: str,
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    names: Names = None,
) -> Figure:
    """Draw the images that are not predicted as labelled: the most confident of them, in order."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown, columns = wrong[:MISCLASSIFIED], 8
    count, rest = f"all {len(wrong)}", ""
    if more := len(wrong) - len(shown):
        count, rest = f"{len(shown)} of {len(wrong):,}", f", the most confident ({more:,} more)"
    title = f"{version}: {count} misclassified test images{rest}\nlabel → assigned (probability)"
    rows = [shown[start : start + columns] for start in range(0, max(len(shown), 1), columns)]
    figure = canvas(title, len(rows) * 1.15 + 0.65)
    axes, labels = figure.add_subplot(), _labels(names, probabilities.shape[1])
    height, width = _gallery(axes, [x[row] for row in rows], columns, above=9)
    for position, index in enumerate(shown):
        row, column = divmod(position, columns)
        # Names need two lines.
        arrow, size = ("→\n", 6) if names else ("→ ", 9)
        text = f"{labels[y[index]]} {arrow}{labels[predicted[index]]} ({confidence[index]:.2f})"
        middle = column * width + (width - 3) / 2
        axes.text(middle, row * height + 7, text, fontsize=size, ha="center")
    return figure


def reliability(probabilities: Mapping[str, NDArray[np.float32]], y: NDArray[np.uint8]) -> Figure:
    """Draw accuracy by confidence, and beneath it how many images have which confidence.

    Args:
        probabilities: of each version, (n, classes) of the n images with labels y.
    """
    title = f"Calibration on the test images, in {CALIBRATION_BINS} bins"
    figure, cells = panels(title, len(probabilities), parts=2)
    starts = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
    for (above, below), (version, p) in zip(cells, probabilities.items(), strict=True):
        counts, accuracy, error = calibration(p.max(axis=1), p.argmax(axis=1) == y)
        above.set_title(f"{version}\nECE {100 * error:.1f} %", fontsize=10)
        above.set(ylim=(0, 1), ylabel="accuracy")
        below.set(yscale="log", ylim=(0.5, 2 * len(y)), ylabel="images", xlabel="confidence")
        plain_numbers(below.yaxis)
        for axes, heights in ((above, accuracy), (below, counts)):
            axes.bar(starts, heights, 1 / CALIBRATION_BINS, align="edge", color=OURS, ec="white")
            axes.set_xlim(0, 1)
            axes.label_outer()
        above.plot([0, 1], [0, 1], "--", color=REPORTED)
    return figure


def _labels(names: Names, classes: int) -> Sequence[str]:
    return [*names][:classes] if names else [str(label) for label in range(classes)]


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
