"""Figures: they show their data, and the same data gives the same bytes."""

import numpy as np
from matplotlib.figure import Figure

from digits.core.dataset import Dataset
from digits.reports import figures

CURVE = {"loss": [1.0, 0.5], "accuracy": [0.6, 0.8]}


def texts(figure: Figure) -> str:
    """Return all text in a figure."""
    lines = [figure.get_suptitle()]
    for axes in figure.axes:
        lines += [axes.get_title(), *(text.get_text() for text in axes.texts)]
        if legend := axes.get_legend():
            lines += [text.get_text() for text in legend.get_texts()]
    return "\n".join(lines)


def test_misclassified_shows_every_error_with_labels_and_probability(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[tiny.y_test]
    p[3] = [0.25, *[0] * 8, 0.75]
    p[4] = [0.6, *[0] * 8, 0.4]
    text = texts(figures.misclassified("v1", tiny.x_test, tiny.y_test, p))
    assert "all 2 misclassified" in text
    assert text.index("3 → 9  (0.75)") < text.index("4 → 0  (0.60)")


def test_the_label_stands_above_its_own_image(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[(tiny.y_test + 1) % 10]
    (axes,) = figures.misclassified("v1", tiny.x_test, tiny.y_test, p).axes
    sheet = np.asarray(axes.images[0].get_array())
    for text, image in zip(axes.texts, tiny.x_test, strict=True):  # of equal probability: in order
        left, below = int(text.get_position()[0]) - 14, int(text.get_position()[1]) + 1
        assert np.array_equal(sheet[below : below + 28, left : left + 28], image)


def test_a_network_that_learnt_nothing_does_not_fill_the_memory(tiny: Dataset) -> None:
    y = np.tile(tiny.y_test, 50)
    p = np.eye(10, dtype=np.float32)[(y + 1) % 10]
    figure = figures.misclassified("v1", np.repeat(tiny.x_test, 50, axis=0), y, p)
    assert "300 of 1,000 misclassified" in texts(figure)
    assert texts(figure).count("→") == 300 + 1  # the title explains the arrow


def test_no_errors_are_no_problem(tiny: Dataset) -> None:
    p = np.eye(10, dtype=np.float32)[tiny.y_test]
    assert "all 0 misclassified" in texts(figures.misclassified("v4", tiny.x_test, tiny.y_test, p))


def test_learning_curves_stand_beside_those_of_2018() -> None:
    ours = CURVE | {"val_loss": [1.1, 0.6], "val_accuracy": [0.5, 0.7]}
    text = texts(figures.learning_curves("v1", ours, CURVE))
    assert "2018" in text
    assert "held-out" in text
    assert "2018" not in texts(figures.learning_curves("v5", CURVE, None))


def test_layers_show_shapes_and_sizes() -> None:
    described = [
        {"type": "Flatten", "output_shape": [784], "parameters": 0},
        {"type": "Dense", "output_shape": [10], "parameters": 7850},
    ]
    text = texts(figures.layers("v1", described))
    assert "v1: 7,850 parameters" in text
    assert "28 × 28 × 1" in text
    assert "784" in text


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
    assert "kind d → kind j  (0.75)" in text
    for figure in (
        figures.confusion("v1", np.eye(10, dtype=int).tolist(), "test", names),
        figures.samples(tiny.x_train, tiny.y_train, names=names),
    ):
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == names


def test_comparison_takes_versions_that_2018_did_not_have() -> None:
    scored = {v: {"test": {"errors": 5}, "parameters": 100} for v in ("v1", "v5")}
    text = texts(figures.comparison(scored, {"v1": {"test_errors": 238}, "v2": {"test_errors": 1}}))
    assert "238" in text
    assert "5" in text


def test_long_names_do_not_overlap() -> None:
    names = ["v4", "v4-2019", "v4-2020", "v4-2021", "v4-2022", "v4-ensemble"]
    figure = figures.comparison({v: {"test": {"errors": 5}, "parameters": 100} for v in names}, {})
    figures.png(figure)
    angles = {label.get_rotation() for label in figure.axes[0].get_xticklabels()}
    assert angles == {30.0}
    figure = figures.comparison(
        {v: {"test": {"errors": 5}, "parameters": 1} for v in names[:1]}, {}
    )
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {0.0}


def test_the_same_figure_is_the_same_bytes(tiny: Dataset) -> None:
    one, other = (figures.png(figures.samples(tiny.x_train, tiny.y_train)) for _ in range(2))
    assert one == other
    assert one.startswith(b"\x89PNG")


def test_the_curves_of_all_versions_are_one_table() -> None:
    table = figures.curves({"v1": CURVE, "v5": CURVE}, {"v1": {"history": CURVE}})
    assert table["version"] == ["v1", "v1", "v1 (2018)", "v1 (2018)", "v5", "v5"]
    assert table["epoch"] == [1, 2] * 3
