"""Crop the digits from a picture and normalise them as MNIST does: arrays in, arrays out.

Source of the normalisation: Y. LeCun, C. Cortes and C. Burges, "The MNIST database": each digit
was scaled to fit a 20×20 box, preserving its aspect ratio, and centred by mass in 28×28.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

IMAGE_SIDE = 28  # pixels of MNIST's images
BOX = 20  # pixels; the longer side of a digit in MNIST
MIN_CONTRAST = 0.08  # of the whole range; fainter differences are background
MIN_SIGNAL_TO_NOISE = 5.0  # contrast in standard deviations of the background
CLEAN_SIGNAL_TO_NOISE = 10.0  # below it, the picture is smoothed
SMOOTHING = 1 / 300  # standard deviation of the smoothing, as a share of the longer side
MIN_STROKE = 0.05  # area as a share of the largest stroke's; smaller ones are dust
MIN_AREA = 1e-4  # of a stroke as a share of the picture's
MIN_OVERLAP = 0.35  # of the narrower width, for two strokes to belong to one digit
MIN_ROW_GAP = 0.1  # between two rows, as a share of the tallest stroke's height
MIN_ROW_HEIGHT = 0.5  # of the tallest stroke in a row, as a share of the tallest stroke's height
MIN_HEIGHT = 0.35  # of the tallest digit's; lower ones are dots or dashes
MIN_RULE = 0.95  # length of a ruled line as a share of the picture's width or height
MAX_RULE_SLOPE = 0.1  # of a ruled line's bounding box: its shorter side as a share of the longer
FEWEST_SQUARES = 6  # inside the lines of squared paper; digits enclose two at most

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]
Strokes = Mapping[int, tuple[slice, slice]]  # by label: the rows and columns of its bounding box
ROWS, COLUMNS = 0, 1


@dataclass(frozen=True)
class DigitCrop:
    """A digit cropped from a picture.

    Attributes:
        image: (28, 28) uint8, ink 255 on background 0, as in MNIST.
        box: left, top, right and bottom of the digit as shares of the picture.
        digit_count: how many digits splitting would make of its ink.
        on_ruled_paper: whether the picture has lines or squares from edge to edge.
    """

    image: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    digit_count: int = 1
    on_ruled_paper: bool = False


def digits(picture: Array, split: bool = True) -> list[DigitCrop]:
    """Return digits row by row, left to right; strokes one above the other form one digit.

    Args:
        picture: (height, width, 3) float32 from 0 to 1, dark on light or light on dark.
        split: False takes all ink as one digit.
    """
    ink = ink_map(picture)
    labels, strokes = _find_strokes(ink)
    groups = [group for row in _split_into_rows(strokes) for group in _group_strokes(row)]
    count, ruled = 1, _is_ruled(labels, strokes)
    if groups and not split:
        count, groups = len(groups), [list(strokes)]
    return [_crop(ink, labels, group, count, ruled) for group in groups]


def _is_ruled(labels: Labels, strokes: Strokes) -> bool:
    """Tell whether a picture has two lines from edge to edge, or squares."""
    lines = 0
    for label, box in strokes.items():
        height, width = (side.stop - side.start for side in box)
        across = [height >= MIN_RULE * labels.shape[0], width >= MIN_RULE * labels.shape[1]]
        if all(across):
            squares = ndimage.label(labels != label)[1]
            if squares >= FEWEST_SQUARES:
                return True
        elif any(across) and min(height, width) <= MAX_RULE_SLOPE * max(height, width):
            lines += 1
    return lines >= 2


def ink_map(picture: Array) -> Array:
    """Return how much ink each pixel has: (height, width) float32 from 0, background, to 1.

    Ink differs from the background in one direction of colour space. The background may have any
    colour, uneven light and noise.
    """
    empty = np.zeros(picture.shape[:2], np.float32)
    if min(picture.shape[:2]) < 3:
        return empty
    distance, contrast, noise = _distance_from_background(picture)
    if contrast < CLEAN_SIGNAL_TO_NOISE * noise:
        sigma = max(picture.shape[:2]) * SMOOTHING
        smooth = ndimage.gaussian_filter(picture, (sigma, sigma, 0))
        distance, contrast, noise = _distance_from_background(smooth)
    if contrast < max(MIN_CONTRAST, MIN_SIGNAL_TO_NOISE * noise):
        return empty
    threshold = min(2.5 * noise, contrast / 3)
    share: Array = (distance - threshold) / (contrast - threshold)
    return share.clip(0, 1).astype(np.float32)


def _distance_from_background(picture: Array) -> tuple[Array, float, float]:
    """Return each pixel's distance from the background towards the ink, the contrast and the noise.

    Returns:
        The (height, width) distances; the median distance of the ink, 0 if there is none; the
        standard deviation of the background.
    """
    difference = picture - background(picture)
    squared = (difference**2).sum(axis=2, keepdims=True)
    direction = (difference * squared).sum(axis=(0, 1))
    distance = difference @ (direction / max(float(np.linalg.norm(direction)), 1e-12))
    if float(np.ptp(distance)) < MIN_CONTRAST:
        return distance, 0.0, 0.0
    threshold = _otsu_threshold(distance)
    blank = distance[distance <= threshold]
    # The factor makes the median absolute deviation a standard deviation, outliers disregarded.
    noise = 1.4826 * float(np.median(np.abs(blank - np.median(blank))))
    return distance, float(np.median(distance[distance > threshold])), noise


def background(picture: Array) -> Array:
    """Estimate the background's colour at each pixel by a quadratic surface: (height, width, 3).

    The surface is fitted by least squares to the pixels near the previous estimate, of which the
    first is the median colour of the border.
    """
    height, width = picture.shape[:2]
    step = max(1, max(height, width) // 64)
    terms = _quadratic_terms(height, width)
    sample = picture[::step, ::step].reshape(-1, 3)
    sample_terms = terms[::step, ::step].reshape(-1, terms.shape[2])

    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour = np.median(border, axis=0)
    surface = np.zeros((terms.shape[2], 3))
    surface[0] = colour
    estimate = np.broadcast_to(colour, sample.shape)
    tolerance = max(0.1, 2 * float(np.median(np.linalg.norm(border - colour, axis=1))))
    for used in (3, 3, 6, 6, 6):  # A plane has three terms, the whole surface six.
        near = np.linalg.norm(sample - estimate, axis=1) <= tolerance
        if near.sum() < 2 * used:
            break
        surface = np.zeros((terms.shape[2], 3))
        surface[:used] = np.linalg.lstsq(sample_terms[near, :used], sample[near], rcond=None)[0]
        estimate = sample_terms @ surface
        residual = np.linalg.norm(sample - estimate, axis=1)[near]
        tolerance = float(np.clip(4 * np.median(residual), 0.04, tolerance))
    result: Array = terms @ surface.astype(np.float32)
    return result


def _quadratic_terms(height: int, width: int) -> Array:
    """Return 1, y, x, y², xy and x² at each pixel: (height, width, 6)."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([np.ones_like(x), y, x, y * y, x * y, x * x], axis=2).astype(np.float32)


def _otsu_threshold(values: Array) -> float:
    """Compute Otsu's threshold, which maximises the between-class variance.

    Source: N. Otsu, "A threshold selection method from gray-level histograms" (1979).
    """
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    means_apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * means_apart**2)])


def _find_strokes(ink: Array) -> tuple[Labels, Strokes]:
    """Label the connected strokes; return the labels and the strokes that are not dust."""
    labels, count = ndimage.label(ink > 0.25, np.ones((3, 3)))
    if not count:
        return labels, {}
    areas = np.bincount(labels[ink > 0.5], minlength=count + 1)[1:]
    least = max(MIN_STROKE * areas.max(), MIN_AREA * ink.size, 3)
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    return labels, {label: box for label, box in boxes if areas[label - 1] >= least}


def _split_into_rows(strokes: Strokes) -> list[Strokes]:
    """Part strokes where there is a gap across the whole picture: rows, from top to bottom.

    A band of low strokes is no row: it is the bar of a 5, say, and belongs to the row next to it.
    """
    if not strokes:
        return []
    tall = max(map(_height, strokes.values()))
    rows: list[list[int]] = [[]]
    bottom = 0
    is_row = False  # whether a stroke of the last row is high enough for one
    for label in sorted(strokes, key=lambda label: strokes[label][ROWS].start):
        top = strokes[label][ROWS].start
        below = [s for s in strokes.values() if s[ROWS].start >= top]
        is_next = any(_height(box) >= MIN_ROW_HEIGHT * tall for box in below)
        if is_row and is_next and top - bottom >= MIN_ROW_GAP * tall:
            rows.append([])
            is_row = False
        rows[-1].append(label)
        is_row = is_row or _height(strokes[label]) >= MIN_ROW_HEIGHT * tall
        bottom = max(bottom, strokes[label][ROWS].stop)
    return [{label: strokes[label] for label in row} for row in rows]


def _height(box: tuple[slice, slice]) -> int:
    return int(box[ROWS].stop - box[ROWS].start)


def _group_strokes(strokes: Strokes) -> list[list[int]]:
    """Group the labels of strokes by digit, left to right, without dots and dashes."""
    groups: list[list[int]] = []
    group_left = group_right = 0
    for label in sorted(strokes, key=lambda label: strokes[label][COLUMNS].start):
        left, right = strokes[label][COLUMNS].start, strokes[label][COLUMNS].stop
        narrower = min(right - left, group_right - group_left)
        if min(right, group_right) - left > MIN_OVERLAP * narrower:
            groups[-1].append(label)
            group_right = max(group_right, right)
        else:
            groups.append([label])
            group_left, group_right = left, right
    rows = [[strokes[label][ROWS] for label in group] for group in groups]
    heights = [max(r.stop for r in row) - min(r.start for r in row) for row in rows]
    return [
        group
        for group, height in zip(groups, heights, strict=True)
        if height >= MIN_HEIGHT * max(heights)
    ]


def _crop(ink: Array, labels: Labels, group: list[int], count: int, ruled: bool) -> DigitCrop:
    """Crop the strokes of a group, with their pale edges, from an ink map."""
    strokes = np.isin(labels, group)
    edges = ndimage.binary_dilation(strokes, np.ones((3, 3))) & (labels == 0)
    ink = ink * (strokes | edges)
    rows, columns = ndimage.find_objects((ink > 0).astype(np.uint8))[0]
    height, width = ink.shape
    box = (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
    return DigitCrop(to_mnist(ink[rows, columns]), box, count, ruled)


def to_mnist(ink: Array) -> NDArray[np.uint8]:
    """Scale a cropped digit to 20 pixels on its longer side and centre it by mass in 28×28.

    Args:
        ink: (height, width) float32 from 0 to 1.
    """
    height, width = ink.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.HAMMING))
    scaled = scaled.clip(0, None) / max(float(scaled.max()), 1e-6)
    top, left = (
        int(np.clip(round(IMAGE_SIDE / 2 - centre), 0, IMAGE_SIDE - side))
        for centre, side in zip(ndimage.center_of_mass(scaled), scaled.shape, strict=True)
    )
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    image[top : top + scaled.shape[0], left : left + scaled.shape[1]] = np.round(255 * scaled)
    return image
