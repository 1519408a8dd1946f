"""Figures: they show their data, and the same data gives the same bytes."""

import io
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from PIL import Image

from digits.core import config
from digits.core.dataset import Dataset
from digits.core.schema import Model
from digits.reports import figures, study_figures
from digits.reports.metrics import Version
from digits.reports.statistics import summarise

MODELS = config.load(ROOT / "params.yaml").models
CURVE = {"loss": [1.0, 0.5], "accuracy": [0.6, 0.8]}


def texts(figure: Figure) -> str:
    """Return all text in a figure."""
    lines = [figure.get_suptitle()]
    for axes in figure.axes:
        lines += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        lines += [text.get_text() for text in axes.texts]
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        lines += [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join(lines)


def test_misclassified_shows_every_error_with_labels_and_probability(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[tiny.y_test]
    p[3] = [0.25, *[0] * 8, 0.75]
    p[4] = [0.6, *[0] * 8, 0.4]
    text = texts(figures.misclassified("v1", tiny.x_test, tiny.y_test, p))
    assert "all 2 misclassified" in text
    assert text.index("3 → 9 (0.75)") < text.index("4 → 0 (0.60)")


def test_the_label_stands_above_its_own_image(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[(tiny.y_test + 1) % 10]
    (axes,) = figures.misclassified("v1", tiny.x_test, tiny.y_test, p).axes
    sheet = np.asarray(axes.images[0].get_array())
    for text, image in zip(axes.texts, tiny.x_test, strict=True):  # of equal probability: in order
        left, below = int(text.get_position()[0]) - 14, int(text.get_position()[1]) + 2
        assert np.array_equal(sheet[below : below + 28, left : left + 28], image)


def test_of_many_errors_the_most_confident_are_shown(tiny: Dataset) -> None:
    y = np.tile(tiny.y_test, 50)
    p = np.eye(10, dtype=np.float32)[(y + 1) % 10]
    figure = figures.misclassified("v1", np.repeat(tiny.x_test, 50, axis=0), y, p)
    assert "48 of 1,000 misclassified test images, the most confident (952 more)" in texts(figure)
    assert texts(figure).count("→") == 48 + 1  # the title explains the arrow


def test_no_errors_are_no_problem(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[tiny.y_test]
    assert "all 0 misclassified" in texts(figures.misclassified("v4", tiny.x_test, tiny.y_test, p))


def test_learning_curves_stand_beside_those_of_2018() -> None:
    ours = CURVE | {"val_loss": [1.1, 0.6], "val_accuracy": [0.5, 0.7]}
    text = texts(figures.learning_curves("v1", ours, CURVE))
    assert "2018" in text
    assert "held-out" in text
    assert "2018" not in texts(figures.learning_curves("v5", CURVE, None))


def test_accuracy_is_drawn_as_error_rate_with_plain_numbers() -> None:
    drawn = figures.learning_curves("v1", CURVE, None)
    figures.png(drawn)
    _, axes = drawn.axes
    assert axes.get_ylabel() == "error rate (1 − accuracy), %"
    assert np.allclose(np.asarray(axes.lines[0].get_ydata()), [40, 20])
    assert "20" in [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("curve", [[1.0], [0.0], [0.1, 0.0]])
def test_a_logarithmic_axis_bears_zeros_and_single_epochs(curve: list[float]) -> None:
    column = {"loss": curve, "accuracy": [1 - value for value in curve]}
    assert figures.png(figures.learning_curves("v1", column, None))


def test_a_loss_of_smoothed_labels_is_named() -> None:
    assert "loss, labels smoothed by 0.1" in texts(
        figures.learning_curves("v4", CURVE, None, MODELS["v4"])
    )
    assert "smoothed" not in texts(figures.learning_curves("v1", CURVE, None, MODELS["v1"]))


def layer_rows(described: list[tuple[str, list[int], int]], model: Model | None) -> list[list[str]]:
    """Return the texts of the table that `layers` draws, by row."""
    layers = [
        {"type": name, "output_shape": shape, "parameters": number}
        for name, shape, number in described
    ]
    drawn = figures.layers("v1", layers, model)
    rows: dict[float, list[str]] = {}
    for text in drawn.axes[0].texts:
        rows.setdefault(text.get_position()[1], []).append(text.get_text())
    return list(rows.values())


DENSE = [("Flatten", [784], 0), ("Dense", [128], 100_480), ("Dense", [10], 1290)]
FIRST_ROWS = [
    ["layer", "kernel", "stride", "output", "parameters"],
    ["image", "", "", "28 × 28 × 1", ""],
]


def test_layers_show_shapes_and_sizes() -> None:
    assert layer_rows(DENSE, MODELS["v1"]) == [
        *FIRST_ROWS,
        ["Flatten", "", "", "784", ""],
        ["Dense + ReLU", "", "", "128", "100,480"],
        ["Dense + softmax", "", "", "10", "1,290"],
    ]


def test_normalization_and_activation_are_in_the_row_of_their_layer() -> None:
    model = MODELS["v4"].model_copy(update={"layers": MODELS["v4"].layers[:12]})
    block = [("Conv2D", [12, 12, 32], 800), ("BatchNormalization", [12, 12, 32], 128)]
    block.append(("ReLU", [12, 12, 32], 0))
    described = [*block, *block, *block, ("MaxPooling2D", [4, 4, 64], 0), *block[:2]]
    convolution = "Conv2D + BatchNorm + ReLU"
    assert layer_rows(described, model) == [
        *FIRST_ROWS,
        [convolution, "5 × 5", "2", "12 × 12 × 32", "928"],
        *[[convolution, "3 × 3", "1", "12 × 12 × 32", "928"]] * 2,
        ["MaxPooling2D", "2 × 2", "2", "4 × 4 × 64", ""],
        ["Conv2D + BatchNorm", "3 × 3, padded", "1", "12 × 12 × 32", "928"],
    ]


def test_layers_of_other_parameters_have_no_kernels() -> None:
    for model in (MODELS["v2"], None):
        assert layer_rows(DENSE, model)[2:] == [
            ["Flatten", "", "", "784", ""],
            ["Dense", "", "", "128", "100,480"],
            ["Dense", "", "", "10", "1,290"],
        ]


def test_confusion_counts_the_errors() -> None:
    matrix = np.diag([10] * 10)
    matrix[4, 9] = 3
    assert "v1: 3 errors in 103 test images" in texts(
        figures.confusion("v1", matrix.tolist(), "test")
    )


def test_classes_may_have_names(tiny: Dataset) -> None:
    names = [f"kind {letter}" for letter in "abcdefghij"]
    p = np.eye(10, dtype=np.float32)[tiny.y_test]
    p[3] = [0.25, *[0] * 8, 0.75]
    text = texts(figures.misclassified("v1", tiny.x_test, tiny.y_test, p, names))
    assert "kind d →\nkind j (0.75)" in text
    for figure in (
        figures.confusion("v1", np.eye(10, dtype=int).tolist(), "test", names),
        figures.samples(tiny.x_train, tiny.y_train, names=names),
    ):
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == names


@pytest.mark.parametrize("number", [1, 4, 10])
def test_reliability_has_a_panel_for_each_version_with_its_calibration_error(number: int) -> None:
    p = np.full((4, 10), 0.02, dtype=np.float32)
    p[:, 7] = 0.82
    versions = {f"v{version}": p for version in range(1, number + 1)}
    drawn = figures.reliability(versions, np.array([7, 7, 7, 1], dtype=np.uint8))
    assert [axes.get_title() for axes in drawn.axes[::2]] == [f"{v}\nECE 7.0 %" for v in versions]
    accuracy, images = np.zeros(15), np.zeros(15)
    accuracy[12], images[12] = 0.75, 4
    for above, below in zip(drawn.axes[::2], drawn.axes[1::2], strict=True):
        assert np.array_equal(heights(above), accuracy)
        assert np.array_equal(heights(below), images)


def heights(axes: Axes) -> Any:
    """Return the heights of the bars in a panel."""
    (bars,) = axes.containers
    assert isinstance(bars, BarContainer)
    return bars.datavalues


def version(name: str, seconds: float, reported: tuple[float, int] | None = None) -> Version:
    entry = dict(zip(("training_time_s", "test_errors"), reported, strict=True)) if reported else {}
    return Version(name, {}, {}, {"training_seconds": seconds}, entry or None)


def test_errors_and_time_are_means_over_seeds_beside_the_run_of_2018() -> None:
    versions = [version("v1", 10, (20, 238)), version("v4", 400)]
    errors = {"v1": summarise([210, 220]), "v4": summarise([29])}
    drawn = study_figures.errors_and_time(versions, errors, "Ours: another machine.")
    text = texts(drawn)
    for words in ("v1\n", "v1 (n = 2)", "v4 (n = 1)", "2018", "Ours: another machine."):
        assert words in text
    points = {tuple(np.ravel(line.get_xydata())) for line in drawn.axes[0].lines}
    assert {(10.0, 215.0), (20.0, 238.0), (400.0, 29.0)} <= points
    assert drawn.axes[0].get_xscale() == drawn.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("number", [1, 10])
def test_errors_and_time_take_any_number_of_versions_also_without_errors(number: int) -> None:
    versions = [version(f"v{index}", 12.0 + index) for index in range(number)]
    errors = {version.name: summarise([0, 0]) for version in versions}
    drawn = study_figures.errors_and_time(versions, errors, "")
    assert figures.png(drawn)
    assert "2018" not in texts(drawn)


def test_figures_are_opaque_white_at_the_width_of_a_page() -> None:
    with Image.open(io.BytesIO(figures.png(figures.learning_curves("v1", CURVE, None)))) as image:
        assert image.width == 880
        edge = np.asarray(image)[:, 0]
    assert (edge == 255).all()


def test_the_same_figure_is_the_same_bytes(tiny: Dataset) -> None:
    one, other = (figures.png(figures.samples(tiny.x_train, tiny.y_train)) for _ in range(2))
    assert one == other
    assert one.startswith(b"\x89PNG")


def test_the_curves_of_all_versions_are_one_table() -> None:
    table = figures.curves({"v1": CURVE, "v5": CURVE}, {"v1": {"history": CURVE}})
    assert table["version"] == ["v1", "v1", "v1 (2018)", "v1 (2018)", "v5", "v5"]
    assert table["epoch"] == [1, 2] * 3
