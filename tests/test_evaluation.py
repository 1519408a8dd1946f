"""Scores, worked out by hand."""

import numpy as np
import pytest

from digits.core import evaluation
from digits.core.schema import Transform

Y = np.array([0, 1, 1, 9], np.uint8)


def probabilities(*rows: dict[int, float]) -> np.ndarray:
    p = np.zeros((len(rows), 10), np.float32)
    for row, values in zip(p, rows, strict=True):
        for digit, value in values.items():
            row[digit] = value
    return p


P = probabilities({0: 1.0}, {1: 0.5, 2: 0.5}, {1: 0.25, 7: 0.75}, {9: 1.0})


def test_the_most_probable_digit_is_predicted_the_lower_of_two() -> None:
    assert evaluation.predicted_labels(P).tolist() == [0, 1, 7, 9]


def test_cross_entropy_is_the_mean_surprise_in_nats() -> None:
    assert evaluation.cross_entropy(P, Y) == pytest.approx((np.log(2) + np.log(4)) / 4)


def test_a_probability_of_nothing_does_not_cost_infinity() -> None:
    assert evaluation.cross_entropy(probabilities({0: 1.0}), np.array([5], np.uint8)) < 17


def test_the_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    matrix = evaluation.confusion_matrix(Y, evaluation.predicted_labels(P), 10)
    assert matrix.sum() == 4
    assert matrix[1, 7] == 1
    assert matrix[7, 1] == 0


def test_score_reports_all_of_it() -> None:
    scored = evaluation.score(P, Y)
    assert scored["accuracy"] == 0.75
    assert scored["errors"] == 1
    assert scored["recall"] == [1.0, 0.5, *[None] * 7, 1.0]
    assert scored["precision"] == [1.0, 1.0, *[None] * 5, 0.0, None, 1.0]
    assert scored["f1"] == [1.0, 0.666667, *[None] * 5, 0.0, None, 1.0]
    assert np.trace(scored["confusion_matrix"]) == 3


def test_loss_agrees_with_keras() -> None:
    from digits.core.keras_backend import keras

    p = np.random.default_rng(0).dirichlet(np.ones(10), 50).astype(np.float32)
    y = np.arange(50, dtype=np.uint8) % 10
    expected = float(keras.losses.CategoricalCrossentropy()(np.eye(10)[y], p))
    assert evaluation.cross_entropy(p, y) == pytest.approx(expected, rel=1e-5)


class Network:
    """A network that answers with the same probabilities whatever it is asked."""

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer

    def predict(self, x: np.ndarray, batch_size: int, verbose: int) -> np.ndarray:
        return self.answer[: len(x)]


IMAGES = np.zeros((4, 28, 28), np.uint8)


def test_an_ensemble_is_scored_by_the_mean_of_its_networks() -> None:
    other = P[::-1].copy()
    single = evaluation.evaluate_model([Network(P)], IMAGES, Y)
    both = evaluation.evaluate_model([Network(P), Network(other)], IMAGES, Y)
    np.testing.assert_array_equal(single.probabilities, P)
    assert single.scores == evaluation.score(P, Y)
    np.testing.assert_array_equal(both.probabilities, (P + other) / 2)
    np.testing.assert_array_equal(both.member_probabilities, [P, other])
    assert both.scores == evaluation.score(both.probabilities, Y)


def test_with_tta_the_prediction_is_the_mean_over_the_transforms() -> None:
    """A network that sees where the ink is, asked about an image moved by two and by four rows."""
    moved = [Transform(down=-2), Transform(down=-4)]

    class Locator(Network):
        def predict(self, x: np.ndarray, batch_size: int, verbose: int) -> np.ndarray:
            rows = x.sum(axis=(2, 3)).argmax(axis=1)
            answers: np.ndarray = np.eye(10, dtype=np.float32)[rows]
            return answers

    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 3, 14] = 255
    answer = evaluation.predict_probabilities(Locator(P), image, moved)
    np.testing.assert_allclose(answer, (np.eye(10)[[5]] + np.eye(10)[[7]]) / 2)
