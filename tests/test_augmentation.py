"""Distortions of training images: within their limits, other ones every time, the same again."""

import numpy as np
import pytest

from digits.core.augmentation import apply_transform, distort
from digits.core.keras_backend import tf
from digits.core.schema import Augmentation, Transform

KEY = (np.uint32(1), np.uint32(2), np.uint32(0))


def blob(row: int = 14, column: int = 14, n: int = 200) -> np.ndarray:
    """n images of one bright pixel."""
    images = np.zeros((n, 28, 28), dtype=np.uint8)
    images[:, row, column] = 255
    return images


def centres(images: np.ndarray) -> np.ndarray:
    """(n, 2) rows and columns of the centre of the ink."""
    ink = images[..., 0] / images.sum(axis=(1, 2, 3))[:, np.newaxis, np.newaxis]
    places = np.arange(28)
    return np.stack([ink.sum(axis=2) @ places, ink.sum(axis=1) @ places], axis=1)


def distorted(
    images: np.ndarray, limits: dict[str, float], key: tuple[np.uint32, ...] = KEY
) -> np.ndarray:
    return np.asarray(distort(Augmentation.model_validate(limits), tf.constant(images), key))


def test_no_distortion_leaves_the_pixels_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.testing.assert_allclose(distorted(images, {})[..., 0], images / 255, atol=2e-5)


def test_a_shift_moves_down_and_across_up_to_its_limit() -> None:
    moved = centres(distorted(blob(), {"shift": 2.5})) - 14
    assert np.abs(moved).max() <= 2.5 + 1e-3
    assert np.all(moved.min(axis=0) < -2.3)
    assert np.all(moved.max(axis=0) > 2.3)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("limits", "along", "across"),
    [
        # A point 10.5 above the centre of the image, at half a column from it.
        ({"rotation": 13.0}, 0.4, 10.5 * np.sin(np.radians(13))),
        ({"scale": 0.12}, 10.5 * 0.12 / 0.88, 0.1),
        ({"shear": 0.15}, 0.1, 10.5 * 0.15),
    ],
)
def test_each_distortion_moves_a_point_as_its_limit_says(
    limits: dict[str, float], along: float, across: float
) -> None:
    moved = np.abs(centres(distorted(blob(row=3, column=14), limits)) - (3, 14)).max(axis=0)
    assert moved[0] == pytest.approx(along, abs=0.35)
    assert moved[1] == pytest.approx(across, abs=0.35)


def test_an_elastic_distortion_moves_neighbours_alike_and_far_points_apart() -> None:
    points = {
        place: centres(distorted(blob(*place), {"elastic": 3.0})) - place
        for place in ((8, 8), (8, 10), (20, 20))
    }
    near, far = (
        np.corrcoef(points[8, 8][:, 0], points[other][:, 0])[0, 1] for other in ((8, 10), (20, 20))
    )
    assert near > 0.8
    assert abs(far) < 0.3
    assert np.abs(points[8, 8]).max() <= 3 + 0.1


def test_ink_leaves_over_the_edge_and_paper_comes_in() -> None:
    images = np.full((50, 28, 28), 255, dtype=np.uint8)
    moved = distorted(images, {"shift": 5.0})
    assert moved.min() == 0.0
    np.testing.assert_allclose(moved[:, 6:22, 6:22], 1.0, rtol=1e-6)


def test_a_transform_turns_and_moves() -> None:
    images = blob(row=3, column=14, n=2)
    moved = centres(
        np.asarray(apply_transform(Transform(down=-2, across=0.5), tf.constant(images)))
    )
    np.testing.assert_allclose(moved, [[5, 13.5]] * 2, atol=1e-4)
    turned = centres(np.asarray(apply_transform(Transform(rotation=5.0), tf.constant(images))))
    sideways = 10.5 * np.sin(np.radians(5))
    assert np.abs(turned[:, 1] - 14) == pytest.approx(sideways, abs=0.15)
    plain = np.asarray(apply_transform(Transform(), tf.constant(images)))
    np.testing.assert_allclose(plain[..., 0], images / 255, atol=2e-5)


def test_what_is_random_follows_from_the_key() -> None:
    limits = {"rotation": 10.0, "shift": 2.0, "elastic": 2.0}
    first = distorted(blob(n=8), limits)
    np.testing.assert_array_equal(first, distorted(blob(n=8), limits))
    for other in ((2, 2, 0), (1, 3, 0)):
        key = tuple(np.uint32(part) for part in other)
        assert not np.array_equal(first, distorted(blob(n=8), limits, key))
    assert len(np.unique(first, axis=0)) == 8
