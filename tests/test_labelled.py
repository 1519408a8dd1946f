"""Labelled images of any origin."""

from pathlib import Path

import numpy as np
import pytest

from digits import DigitsError
from digits.core import labelled
from digits.core.dataset import Dataset, save

X, Y = np.zeros((3, 28, 28), np.uint8), np.array([1, 2, 3])


def test_the_keys_may_be_those_of_mnist_or_x_and_y(tmp_path: Path, tiny: Dataset) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, x=X, y=Y)
    x, y = labelled.load(path)
    assert x.shape == (3, 28, 28)
    assert y.dtype == np.uint8
    assert y.tolist() == [1, 2, 3]
    assert not labelled.is_whole(path)
    save(tiny, path)
    assert labelled.is_whole(path)
    assert (labelled.load(path)[1] == tiny.y_test).all()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"a": X}, "expected the keys x and y, or x_test and y_test; got a"),
        ({"x": X / 255, "y": Y}, r"x: expected \(n, 28, 28\) uint8, got \(3, 28, 28\) float64"),
        ({"x": X[:, :8, :8], "y": Y}, r"x: expected \(n, 28, 28\) uint8, got \(3, 8, 8\) uint8"),
        ({"x": X[:0], "y": Y[:0]}, "x: expected"),
        ({"x": X, "y": Y[:2]}, r"y: expected \(3,\) integers, got \(2,\)"),
        ({"x": X, "y": Y / 2}, r"y: expected \(3,\) integers, got \(3,\) float64"),
        ({"x": X, "y": Y + 7}, "y: expected labels from 0 to 9, got 8 to 10"),
        ({"x": X, "y": Y - 2}, "y: expected labels from 0 to 9, got -1 to 1"),
    ],
)
def test_what_they_are_not_is_named(tmp_path: Path, arrays: dict[str, object], reason: str) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DigitsError, match=f"some.npz: {reason}"):
        labelled.load(path)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    with pytest.raises(DigitsError, match=r"some.npz: cannot be read"):
        labelled.load(path)
    path.write_text("x, y")
    assert not labelled.is_whole(path)
    with pytest.raises(DigitsError, match=r"some.npz: not a whole .npz file"):
        labelled.load(path)
