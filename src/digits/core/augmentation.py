"""Distorted images: at random and anew in every batch for training, fixed ones for TTA."""

from typing import Any

import numpy as np

from digits import IMAGE_SIDE
from digits.core.keras_backend import compiled, tf
from digits.core.schema import Augmentation, Transform

CENTRE = (IMAGE_SIDE - 1) / 2
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
        images: (n, 28, 28) uint8.
        key: integers from which all that is random follows.
        strength: a factor of all limits.

    Returns:
        (n, 28, 28, 1) float32 from 0 to 1; outside of the image there is paper, 0.
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
    rows, columns = _source_positions(angle, height, width, shear, down, across)
    if limits.elastic:
        nodes = limits.elastic * tf.reshape(uniform[7:], (2, n, NODES, NODES))
        field = tf.einsum("ra,dnab,cb->dnrc", _spline_basis(), nodes, _spline_basis())
        rows, columns = rows + field[0], columns + field[1]
    return _interpolate(images, rows, columns)[..., tf.newaxis]


@compiled
def apply_transform(transform: Transform, images: Any) -> Any:
    """Return (n, 28, 28) uint8 images transformed: (n, 28, 28, 1) float32 from 0 to 1."""
    angle = np.full((1, 1, 1), np.radians(transform.rotation), dtype=np.float32)
    positions = _source_positions(angle, 1.0, 1.0, 0.0, transform.down, transform.across)
    shape = (images.shape[0], IMAGE_SIDE, IMAGE_SIDE)
    rows, columns = (tf.broadcast_to(position, shape) for position in positions)
    return _interpolate(images, rows, columns)[..., tf.newaxis]


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


def _spline_basis() -> Any:
    """Return (28, NODES) cubic B-splines, which spread the nodes' displacements over the pixels."""
    spacing = (IMAGE_SIDE - 1) / (NODES - 1)
    distance = np.abs(np.arange(IMAGE_SIDE)[:, None] / spacing - np.arange(NODES))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clip(0) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _source_positions(
    angle: Any, height: Any, width: Any, shear: Any, down: Any, across: Any
) -> Any:
    """Return the rows and columns that the pixels of a distorted image come from.

    Args:
        angle, height, width, shear, down, across: (n, 1, 1) or numbers; radians, factors, pixels.
    """
    row = tf.range(IMAGE_SIDE, dtype=tf.float32)[:, tf.newaxis] - CENTRE
    column = tf.range(IMAGE_SIDE, dtype=tf.float32)[tf.newaxis] - CENTRE
    sheared = column + shear * row
    rows = CENTRE + down + height * (tf.cos(angle) * row - tf.sin(angle) * sheared)
    columns = CENTRE + across + width * (tf.sin(angle) * row + tf.cos(angle) * sheared)
    return rows, columns


def _interpolate(images: Any, rows: Any, columns: Any) -> Any:
    """Interpolate images bilinearly at (n, 28, 28) positions, in pixels from the first centre."""
    side = IMAGE_SIDE + 2  # A border of paper stands for everything outside.
    bordered = tf.reshape(tf.pad(images, ((0, 0), (1, 1), (1, 1))), [-1])
    rows = tf.clip_by_value(rows, -1.0, float(IMAGE_SIDE))
    columns = tf.clip_by_value(columns, -1.0, float(IMAGE_SIDE))
    top = tf.minimum(tf.floor(rows), IMAGE_SIDE - 1.0)
    left = tf.minimum(tf.floor(columns), IMAGE_SIDE - 1.0)
    lower, right = rows - top, columns - left
    first = tf.range(images.shape[0])[:, tf.newaxis, tf.newaxis] * side**2
    index = first + (tf.cast(top, tf.int32) + 1) * side + tf.cast(left, tf.int32) + 1

    def at(offset: int) -> Any:
        return tf.cast(tf.gather(bordered, index + offset), tf.float32) / 255

    upper_edge = at(0) * (1 - right) + at(1) * right
    lower_edge = at(side) * (1 - right) + at(side + 1) * right
    return upper_edge * (1 - lower) + lower_edge * lower
