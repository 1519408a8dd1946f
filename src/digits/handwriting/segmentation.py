"""The ink in a picture, and each digit of it as MNIST has digits: plain arrays in and out.

Source of the last steps: Y. LeCun, C. Cortes and C. Burges, "The MNIST database": scaled to a 20×20
box with its aspect ratio, then centred by mass in 28×28.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from digits import IMAGE_SIDE

BOX = 20  # pixels; the longer side of a digit's ink
LEAST_CONTRAST = 0.08  # of the whole range: fainter differences are paper
LEAST_OVER_NOISE = 5.0  # standard deviations of the paper
CLEAN = 10.0  # of the same: below it, the picture is smoothed
GRAINS = 300  # by this part of its longer side
SPECK = 0.05  # of the largest piece of ink: smaller ones are dust
LEAST_SHARE = 1e-4  # of the picture: less ink is dust, too
TOUCHES = 0.35  # of the narrower: pieces that lie over one another so much are of one digit
SHORTEST = 0.35  # of the tallest digit: what is lower is a dot or a dash

Array = NDArray[np.floating[Any]]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class DigitCrop:
    """A digit in a picture.

    Attributes:
        image: (28, 28) uint8, ink 255 on paper 0, as MNIST has it.
        box: left, top, right and bottom of its ink as shares of the picture.
        beside: how many digits its ink would be for `digits`.
    """

    image: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    beside: int = 1


def digits(picture: Array) -> list[DigitCrop]:
    """The digits in a picture from left to right, each all ink above one another.

    Args:
        picture: (height, width, 3) float32 from 0 to 1, dark on light or light on dark.
    """
    ink = amount(picture)
    named, pieces = _pieces(ink)
    return [_found(ink, named, group) for group in _groups(named, pieces)]


def digit(picture: Array) -> DigitCrop | None:
    """All ink of a picture as one digit; None if there is none. Argument as in `digits`."""
    ink = amount(picture)
    named, pieces = _pieces(ink)
    if not pieces:
        return None
    return replace(_found(ink, named, pieces), beside=len(list(_groups(named, pieces))))


def amount(picture: Array) -> Array:
    """How much ink there is at each pixel: (height, width) from 0, paper, to 1.

    Ink is what differs from the paper in one direction of colour; the paper may be of any colour,
    unevenly lit and noisy.
    """
    nothing = np.zeros(picture.shape[:2], np.float32)
    if min(picture.shape[:2]) < 3:
        return nothing
    ink, full, noise = _against_paper(picture)
    if full < CLEAN * noise:
        grain = max(picture.shape[:2]) / GRAINS
        ink, full, noise = _against_paper(ndimage.gaussian_filter(picture, (grain, grain, 0)))
    if full < max(LEAST_CONTRAST, LEAST_OVER_NOISE * noise):
        return nothing
    least = min(2.5 * noise, full / 3)
    share: Array = ((ink - least) / (full - least)).clip(0, 1).astype(np.float32)
    return share


def _against_paper(picture: Array) -> tuple[Array, float, float]:
    """How far each pixel is from the paper towards the ink, how far ink is, and paper's noise."""
    differs = picture - paper(picture)
    size = (differs**2).sum(axis=2, keepdims=True)
    direction = (differs * size).sum(axis=(0, 1))
    ink = differs @ (direction / max(float(np.linalg.norm(direction)), 1e-12))
    if float(np.ptp(ink)) < LEAST_CONTRAST:
        return ink, 0.0, 0.0
    limit = _otsu(ink)
    on_paper = ink[ink <= limit]
    noise = 1.4826 * float(np.median(np.abs(on_paper - np.median(on_paper))))
    return ink, float(np.median(ink[ink > limit])), noise


def paper(picture: Array) -> Array:
    """The colour that the paper would have at each pixel: a surface of second degree through it.

    It is fitted to what is near to it, first to what resembles the border.
    """
    height, width = picture.shape[:2]
    step = max(1, max(height, width) // 64)
    seen = picture[::step, ::step].reshape(-1, 3)
    terms = _terms(height, width)
    of_seen = terms[::step, ::step].reshape(-1, terms.shape[2])
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    median = np.median(edge, axis=0)
    away = np.linalg.norm(edge - median, axis=1)
    near = max(0.1, 2 * float(np.median(away)))
    expected = np.broadcast_to(median, seen.shape)
    surface = np.zeros((terms.shape[2], 3))
    surface[0] = median
    for degree in (1, 1, 2, 2, 2):
        distance = np.linalg.norm(seen - expected, axis=1)
        is_paper = distance <= near
        used = 3 if degree == 1 else terms.shape[2]
        if is_paper.sum() < 2 * used:
            break
        surface = np.zeros((terms.shape[2], 3))
        fitted = np.linalg.lstsq(of_seen[is_paper, :used], seen[is_paper], rcond=None)[0]
        surface[:used] = fitted
        expected = of_seen @ surface
        left = np.linalg.norm(seen - expected, axis=1)[is_paper]
        near = float(np.clip(4 * np.median(left), 0.04, near))
    estimated: Array = terms @ surface.astype(np.float32)
    return estimated


def _terms(height: int, width: int) -> Array:
    """(height, width, 6): 1, y, x and the products of these."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([np.ones_like(x), y, x, y * y, x * y, x * x], axis=2).astype(np.float32)


def _otsu(values: Array) -> float:
    """The value that parts the others into two kinds most unlike each other.

    Source: N. Otsu, "A threshold selection method from gray-level histograms" (1979).
    """
    counts, edges = np.histogram(values, bins=256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * middle)
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * apart**2)])


def _pieces(ink: Array) -> tuple[NDArray[np.int32], list[int]]:
    """A picture of the numbers of all pieces of ink, and the numbers of those that are no dust."""
    named, count = ndimage.label(ink > 0.25, np.ones((3, 3)))
    if not count:
        return named, []
    areas = ndimage.sum_labels(ink > 0.5, named, range(1, count + 1))
    least = max(SPECK * areas.max(), LEAST_SHARE * ink.size, 3)
    return named, [piece for piece in range(1, count + 1) if areas[piece - 1] >= least]


def _groups(named: NDArray[np.int32], pieces: Sequence[int]) -> Iterator[list[int]]:
    """The pieces of ink that make a digit, from left to right."""
    places = ndimage.find_objects(named)
    groups: list[tuple[int, int, int, int, list[int]]] = []  # left, right, top, bottom, pieces
    for piece in sorted(pieces, key=lambda piece: places[piece - 1][1].start):
        rows, columns = places[piece - 1]
        left, right, top, bottom = columns.start, columns.stop, rows.start, rows.stop
        if groups:
            last = groups[-1]
            over = min(right, last[1]) - left
            if over > TOUCHES * min(right - left, last[1] - last[0]):
                joined = (last[0], max(right, last[1]), min(top, last[2]), max(bottom, last[3]))
                groups[-1] = (*joined, [*last[4], piece])
                continue
        groups.append((left, right, top, bottom, [piece]))
    tallest = max((bottom - top for _, _, top, bottom, _ in groups), default=0)
    for _, _, top, bottom, group in groups:
        if bottom - top >= SHORTEST * tallest:
            yield group


def _found(ink: Array, named: NDArray[np.int32], pieces: Sequence[int]) -> DigitCrop:
    own = np.isin(named, pieces)
    pale = ndimage.binary_dilation(own, np.ones((3, 3))) & (named == 0)  # its edge
    ink = ink * (own | pale)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = ink.shape
    image = placed(ink[top:bottom, left:right])
    return DigitCrop(image, (left / width, top / height, right / width, bottom / height))


def placed(ink: Array) -> NDArray[np.uint8]:
    """A digit's ink, cropped, in 28×28: its longer side 20 pixels, centred by mass."""
    height, width = ink.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = ink
    if size != (width, height):
        scaled = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.HAMMING))
    scaled = scaled.clip(0, None) / max(float(scaled.max()), 1e-6)
    row, column = ndimage.center_of_mass(scaled)
    middle = IMAGE_SIDE / 2
    top, left = (
        int(np.clip(round(middle - centre), 0, IMAGE_SIDE - side))
        for centre, side in ((row, size[1]), (column, size[0]))
    )
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    image[top : top + size[1], left : left + size[0]] = np.round(255 * scaled)
    return image
