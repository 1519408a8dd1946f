"""Distorted images: at random and anew in every batch for training, fixed ones for TTA."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from digits.core.keras_backend import compiled, tf
from digits.core.schema import Augmentation, Transform

NODES = 5  # of an elastic distortion, along each side
GOLDEN_RATIO = np.uint32(0x9E3779B9)


@compiled
def distort(limits: Augmentation, images: Any, key: Any, strength: Any = 1.0) -> Any:
    """Rotate, scale, shear, shift and bend each image at random, in one interpolation.

    Source: P. Simard, D. Steinkraus and J. Platt, "Best practices for convolutional neural networks
    applied to visual document analysis" (2003); here the elastic field is a spline on a coarse
    grid.

    Args:
        limits: of each distortion.
        images: (n, height, width) or (n, height, width, channels) uint8.
        key: integers from which all that is random follows.
        strength: a factor of all limits.

    Returns:
        (n, height, width, channels) float32 from 0 to 1; outside of the image there is 0, which is
        paper in MNIST.
    """
    n = images.shape[0]
    bits = random_bits(n * (7 + 2 * NODES**2), key)
    # The upper 24 bits become numbers from -1 to 1; float32 holds no more.
    uniform = tf.cast(tf.bitwise.right_shift(bits, np.uint32(8)), tf.float32) / 2**23 - 1
    uniform = strength * tf.reshape(uniform, (-1, n, 1, 1))
    angle = uniform[0] * np.float32(np.radians(limits.rotation))
    height, width = 1 + limits.scale * uniform[1], 1 + limits.scale * uniform[2]
    shear = limits.shear * uniform[3]
    down, across = limits.shift * uniform[4], limits.shift * uniform[5]
    sides = images.shape[1:3]
    rows, columns = _source_positions(sides, angle, height, width, shear, down, across)
    if limits.elastic:
        nodes = limits.elastic * tf.reshape(uniform[7:], (2, n, NODES, NODES))
        over_rows, over_columns = map(_spline_basis, sides)
        field = tf.einsum("ra,dnab,cb->dnrc", over_rows, nodes, over_columns)
        rows, columns = rows + field[0], columns + field[1]
    return _interpolate(images, rows, columns)


@compiled
def apply_transform(transform: Transform, images: Any) -> Any:
    """Return uint8 images transformed: (n, height, width, channels) float32 from 0 to 1."""
    angle = np.full((1, 1, 1), np.radians(transform.rotation), dtype=np.float32)
    shift = (transform.down, transform.across)
    positions = _source_positions(images.shape[1:3], angle, 1.0, 1.0, 0.0, *shift)
    rows, columns = (tf.broadcast_to(position, images.shape[:3]) for position in positions)
    return _interpolate(images, rows, columns)


def random_bits(size: Any, key: Any) -> Any:
    """Return (size,) uint32, all values equally likely, that follow from a tuple of integers.

    They look independent, which is enough here; but all keys draw from one cycle of 2**32 values,
    of which the stretches of some keys overlap.

    The SplitMix generator of Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (2014), in 32 bits, with the mixing function of Wellons, "Prospecting for hash
    functions" (2018). XLA computes it along with what uses the bits, in a third of the time of
    TensorFlow's own generator.
    """
    state = tf.constant(0, tf.uint32)
    for part in key:
        state = _mix(state + GOLDEN_RATIO + tf.cast(part, tf.uint32))
    return _mix(state + GOLDEN_RATIO * tf.cast(tf.range(size), tf.uint32))


def _mix(bits: Any) -> Any:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
        shifted = tf.bitwise.right_shift(bits, np.uint32(shift))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * np.uint32(factor)
    return bits


def _spline_basis(side: int) -> Any:
    """Return (side, NODES) cubic B-splines, which spread nodes' displacements over the pixels."""
    spacing = (side - 1) / (NODES - 1)
    distance = np.abs(np.arange(side)[:, None] / spacing - np.arange(NODES))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clip(0) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _source_positions(
    sides: Sequence[int], angle: Any, height: Any, width: Any, shear: Any, down: Any, across: Any
) -> Any:
    """Return the rows and columns that the pixels of a distorted image come from.

    Args:
        sides: height and width of the image, in pixels.
        angle, height, width, shear, down, across: (n, 1, 1) or numbers; radians, factors, pixels.
    """
    middle_row, middle_column = ((side - 1) / 2 for side in sides)
    row = tf.range(sides[0], dtype=tf.float32)[:, tf.newaxis] - middle_row
    column = tf.range(sides[1], dtype=tf.float32)[tf.newaxis] - middle_column
    sheared = column + shear * row
    rows = middle_row + down + height * (tf.cos(angle) * row - tf.sin(angle) * sheared)
    columns = middle_column + across + width * (tf.sin(angle) * row + tf.cos(angle) * sheared)
    return rows, columns


def _interpolate(images: Any, rows: Any, columns: Any) -> Any:
    """Interpolate images bilinearly, each at (height, width) positions in pixels from its first.

    Returns:
        (n, height, width, channels) float32 from 0 to 1.
    """
    n, height, width, *channels = images.shape
    border = ((0, 0), (1, 1), (1, 1), *((0, 0) for _ in channels))  # of all that is outside
    bordered = tf.reshape(tf.pad(images, border), [-1, *channels])
    rows = tf.clip_by_value(rows, -1.0, float(height))
    columns = tf.clip_by_value(columns, -1.0, float(width))
    top = tf.minimum(tf.floor(rows), height - 1.0)
    left = tf.minimum(tf.floor(columns), width - 1.0)
    lower, right = rows - top, columns - left
    step = width + 2
    first = tf.range(n)[:, tf.newaxis, tf.newaxis] * ((height + 2) * step)
    index = first + (tf.cast(top, tf.int32) + 1) * step + tf.cast(left, tf.int32) + 1
    if channels:
        lower, right = lower[..., tf.newaxis], right[..., tf.newaxis]

    def at(offset: int) -> Any:
        return tf.cast(tf.gather(bordered, index + offset), tf.float32) / 255

    upper_edge = at(0) * (1 - right) + at(1) * right
    lower_edge = at(step) * (1 - right) + at(step + 1) * right
    pixels = upper_edge * (1 - lower) + lower_edge * lower
    return pixels if channels else pixels[..., tf.newaxis]
