"""Distorted images: at random for training, other ones in every batch, and in given tta."""

from typing import Any

import numpy as np

from digits import IMAGE_SIDE
from digits.core import schema
from digits.core.keras_backend import tf
from digits.core.train_step import compiled, random_bits

CENTRE = (IMAGE_SIDE - 1) / 2
NODES = 5  # of an elastic distortion, along each side


def _basis() -> Any:
    """(28, NODES): cubic B-splines, by which the nodes' displacements become those of pixels."""
    spacing = (IMAGE_SIDE - 1) / (NODES - 1)
    away = np.abs(np.arange(IMAGE_SIDE)[:, None] / spacing - np.arange(NODES))
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clip(0) ** 3 / 6
    return np.where(away < 1, near, far).astype(np.float32)


@compiled
def distort(how: schema.Augmentation, images: Any, key: Any) -> Any:
    """Each image rotated, scaled, sheared, shifted and bent at random, in one interpolation.

    Source: P. Simard, D. Steinkraus and J. Platt, "Best practices for convolutional neural networks
    applied to visual document analysis" (2003); here the elastic field is a spline on a coarse
    grid.

    Args:
        how: the limits of each distortion.
        images: (n, 28, 28) uint8.
        key: integers from which all that is random follows.

    Returns:
        (n, 28, 28, 1) float32 from 0 to 1; what comes from outside the image is paper, 0.
    """
    n = images.shape[0]
    bits = random_bits(n * (7 + 2 * NODES**2), key)
    # The upper 24 bits, which float32 holds exactly.
    drawn = tf.cast(tf.bitwise.right_shift(bits, np.uint32(8)), tf.float32) / 2**23 - 1
    drawn = tf.reshape(drawn, (-1, n, 1, 1))
    angle = drawn[0] * np.float32(np.radians(how.rotation))
    tall, wide = 1 + how.scale * drawn[1], 1 + how.scale * drawn[2]
    slant = how.shear * drawn[3]
    down, across = how.shift * drawn[4], how.shift * drawn[5]

    up, along = _places(angle, tall, wide, slant, down, across)
    if how.elastic:
        nodes = how.elastic * tf.reshape(drawn[7:], (2, n, NODES, NODES))
        field = tf.einsum("ra,dnab,cb->dnrc", _basis(), nodes, _basis())
        up, along = up + field[0], along + field[1]
    return _sampled(images, up, along)[..., tf.newaxis]


@compiled
def apply_transform(view: schema.Transform, images: Any) -> Any:
    """(n, 28, 28) uint8 images as one view shows them: (n, 28, 28, 1) float32 from 0 to 1."""
    angle = np.full((1, 1, 1), np.radians(view.rotation), dtype=np.float32)
    up, along = _places(angle, 1.0, 1.0, 0.0, view.down, view.across)
    places = (images.shape[0], IMAGE_SIDE, IMAGE_SIDE)
    return _sampled(images, *(tf.broadcast_to(p, places) for p in (up, along)))[..., tf.newaxis]


def _places(angle: Any, tall: Any, wide: Any, slant: Any, down: Any, across: Any) -> Any:
    """Rows and columns that the pixels of a distort image come from, from (n, 1, 1) numbers."""
    row = tf.range(IMAGE_SIDE, dtype=tf.float32)[:, tf.newaxis] - CENTRE
    column = tf.range(IMAGE_SIDE, dtype=tf.float32)[tf.newaxis] - CENTRE
    leaning = column + slant * row
    up = CENTRE + down + tall * (tf.cos(angle) * row - tf.sin(angle) * leaning)
    along = CENTRE + across + wide * (tf.sin(angle) * row + tf.cos(angle) * leaning)
    return up, along


def _sampled(images: Any, row: Any, column: Any) -> Any:
    """Bilinear interpolation of images at (n, 28, 28) places, in pixels, from the first centre."""
    side = IMAGE_SIDE + 2  # a border of paper, from which everything outside is taken
    bordered = tf.reshape(tf.pad(images, ((0, 0), (1, 1), (1, 1))), [-1])
    row = tf.clip_by_value(row, -1.0, float(IMAGE_SIDE))
    column = tf.clip_by_value(column, -1.0, float(IMAGE_SIDE))
    top = tf.minimum(tf.floor(row), IMAGE_SIDE - 1.0)
    left = tf.minimum(tf.floor(column), IMAGE_SIDE - 1.0)
    lower, right = row - top, column - left
    first = tf.range(images.shape[0])[:, tf.newaxis, tf.newaxis] * side**2
    place = first + (tf.cast(top, tf.int32) + 1) * side + tf.cast(left, tf.int32) + 1

    def at(offset: int) -> Any:
        return tf.cast(tf.gather(bordered, place + offset), tf.float32) / 255

    upper_edge = at(0) * (1 - right) + at(1) * right
    lower_edge = at(side) * (1 - right) + at(side + 1) * right
    return upper_edge * (1 - lower) + lower_edge * lower
