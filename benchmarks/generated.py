"""Generate pictures as people might send them from MNIST digits, to try `digits predict` on.

`python benchmarks/generated.py docs/handwriting` writes those that README shows.
"""

import sys
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import paths
from digits import DigitsError
from digits.core import dataset
from digits.handwriting.segmentation import IMAGE_SIDE

SCALES = (1.5, 9.0)  # of a digit's side
ROTATION = 10.0  # degrees, to either side
MARGIN = (0.1, 1.5)  # around the digit, as shares of its side
LEAST_CONTRAST = 0.35  # between the gray of ink and that of paper, of the whole range
GRADIENT = 0.15  # of the paper's brightness, from one edge to the other
NOISE = 0.04  # standard deviation, at most
UNEVEN = (0.85, 1.15)  # sizes of digits on one page, of their mean

SHOWN = {"four.jpg": [4], "seven.webp": [7], "page.jpg": [2, 0, 1, 8]}

Ink = NDArray[np.float64]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=8, show_default=True)
def main(folder: Path, seed: int) -> None:
    """Write some pictures of training digits to FOLDER."""
    mnist, random = dataset.load(paths.DATA), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in SHOWN.items():
        chosen = [random.choice(np.flatnonzero(mnist.y_train == label)) for label in labels]
        made = page(mnist.x_train[chosen], random)
        Image.fromarray(made).save(folder / name, quality=85)


def picture(digit: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a larger picture, (height, width, 3) uint8, of a (28, 28) digit with ink 255.

    Its size, angle and place are random, and so are the colours of ink and paper, of which either
    may be the darker, the light that falls on the paper, and the noise.
    """
    return _on_paper(_turned(digit, round(IMAGE_SIDE * random.uniform(*SCALES)), random), random)


def page(digits: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture of (n, 28, 28) digits from left to right on one paper, as by `picture`.

    Their sizes and heights differ a little; they do not touch.
    """
    side = IMAGE_SIDE * random.uniform(*SCALES)
    inks = [_turned(digit, round(side * random.uniform(*UNEVEN)), random) for digit in digits]
    tallest = max(len(ink) for ink in inks)
    above = [int(random.uniform(0, tallest - len(ink))) for ink in inks]
    return _on_paper(
        np.hstack(
            [
                np.pad(ink, ((top, tallest - len(ink) - top), (0, 0)))
                for ink, top in zip(inks, above, strict=True)
            ]
        ),
        random,
    )


def _turned(digit: NDArray[np.uint8], side: int, random: np.random.Generator) -> Ink:
    """Return a digit's ink from 0 to 1, of another size, turned, with a margin."""
    turned = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    turned = turned.rotate(
        random.uniform(-ROTATION, ROTATION), Image.Resampling.BICUBIC, expand=True
    )
    top, bottom, left, right = (side * random.uniform(*MARGIN, 4)).astype(int)
    return np.pad(np.asarray(turned, np.float64) / 255, ((top, bottom), (left, right)))


def _on_paper(ink: Ink, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a photo of ink, with colours, light and noise: (height, width, 3)."""
    share = ink[..., np.newaxis]
    paper, pen = _colours(random)
    height, width = ink.shape
    down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, GRADIENT) / 2
    light = 1 + slope * (np.sin(angle) * down + np.cos(angle) * across)[..., np.newaxis]
    photo = (paper * (1 - share) + pen * share) * light
    photo += random.normal(0, random.uniform(0, NOISE), photo.shape)
    rounded: NDArray[np.uint8] = np.round(255 * photo.clip(0, 1)).astype(np.uint8)
    return rounded


def _colours(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the colours of paper and ink, red green blue from 0 to 1, far enough apart in gray."""
    while True:
        paper, pen = random.uniform(0, 1, (2, 3))
        if abs(paper.mean() - pen.mean()) >= LEAST_CONTRAST:
            return paper, pen


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        sys.exit(f"digits: {error}")
