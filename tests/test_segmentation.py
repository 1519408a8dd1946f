"""Digits are cropped from pictures and normalised as MNIST does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from digits.handwriting import pictures, segmentation

Draw = Callable[[ImageDraw.ImageDraw], object]


def drawn(
    draw: Draw, size: tuple[int, int] = (200, 160), background: str = "white"
) -> NDArray[np.floating[Any]]:
    image = Image.new("RGB", size, background)
    draw(ImageDraw.Draw(image))
    return np.asarray(image, np.float32) / 255


def one(pen: ImageDraw.ImageDraw, left: int = 90) -> None:
    pen.rectangle((left, 40, left + 11, 119), fill="black")


def seven(pen: ImageDraw.ImageDraw, colour: str = "black") -> None:
    pen.rectangle((60, 40, 119, 50), fill=colour)
    pen.rectangle((110, 40, 119, 119), fill=colour)


def ring(pen: ImageDraw.ImageDraw, left: int = 60) -> None:
    pen.ellipse((left, 40, left + 59, 119), outline="black", width=10)


def image_of(picture: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    (crop,) = segmentation.digits(picture, split=False)
    return crop.image


def test_a_digit_is_20_pixels_high_and_centred_by_mass_in_28() -> None:
    image = image_of(drawn(one))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert len(rows) == 20
    assert len(columns) in (3, 4)
    assert image.max() == 255
    row, column = np.array(np.nonzero(image)).mean(axis=1)
    assert abs(row - 13.5) <= 1
    assert abs(column - 13.5) <= 1


def test_a_wide_digit_is_20_pixels_wide_and_keeps_its_ratio() -> None:
    image = image_of(drawn(lambda pen: pen.rectangle((20, 60, 179, 99), fill="black")))
    assert np.count_nonzero(image.any(axis=0)) == 20
    assert np.count_nonzero(image.any(axis=1)) == 5


@pytest.mark.parametrize(
    ("background", "ink"),
    [
        ("white", "black"),
        ("black", "white"),
        ("#ffe080", "#204080"),
        ("#203020", "#f0c0c0"),
        ("#808080", "#b03030"),
        ("#00a000", "#a00000"),
    ],
)
def test_the_colours_do_not_matter(background: str, ink: str) -> None:
    expected = image_of(drawn(seven)).astype(int)
    image = image_of(drawn(lambda pen: seven(pen, colour=ink), background=background)).astype(int)
    assert abs(image - expected).max() <= 40


def test_a_digit_of_mnist_stays_as_it_is(tiny_digit: NDArray[np.uint8]) -> None:
    picture = np.repeat(tiny_digit[..., np.newaxis] / np.float32(255), 3, axis=2)
    image = image_of(picture).astype(int)
    # It may move by one pixel if its centre of mass lies between two.
    steps = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    moved = [np.roll(image, step, (0, 1)) for step in steps]
    nearest = min(moved, key=lambda image: float(abs(image - tiny_digit).mean()))
    assert abs(nearest - tiny_digit).max() <= 60
    assert abs(nearest - tiny_digit).mean() < 2


@pytest.fixture
def tiny_digit() -> NDArray[np.uint8]:
    """A seven with soft edges in the 20×20 box, centred."""
    large = Image.new("L", (200, 200))
    pen = ImageDraw.Draw(large)
    pen.line((20, 25, 175, 25, 80, 195), fill=255, width=25, joint="curve")
    return segmentation.to_mnist(np.asarray(large.crop(large.getbbox()), np.float32) / 255)


def test_uneven_light_and_noise_are_not_ink() -> None:
    random = np.random.default_rng(1)
    picture = drawn(one) * np.linspace(0.6, 1, 200, dtype=np.float32)[:, np.newaxis]
    picture += random.normal(0, 0.04, picture.shape).astype(np.float32)
    expected = image_of(drawn(one)).astype(int)
    image = image_of(picture).astype(int)
    assert abs(image - expected).mean() < 5


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((1, 1, 3), np.float32),
        np.ones((2, 50, 3), np.float32),
        np.ones((100, 100, 3), np.float32),
        np.full((30, 40, 3), 0.5, np.float32),
        np.repeat(np.linspace(0.3, 0.9, 90, dtype=np.float32), 270).reshape(90, 90, 3),
        np.random.default_rng(1).normal(0.7, 0.1, (120, 90, 3)).astype(np.float32).clip(0, 1),
        drawn(lambda pen: pen.point((50, 50), fill="black")),
    ],
    ids=["one pixel", "a strip", "white", "gray", "light to dark", "noise", "a speck"],
)
def test_an_empty_page_has_no_digit(picture: NDArray[np.floating[Any]]) -> None:
    assert segmentation.digits(picture) == []
    assert segmentation.digits(picture, split=False) == []


def test_dust_is_not_part_of_a_digit() -> None:
    def dusty(pen: ImageDraw.ImageDraw) -> None:
        one(pen)
        pen.rectangle((5, 5, 7, 7), fill="black")

    assert (image_of(drawn(dusty)) == image_of(drawn(one))).all()


def three_digits(pen: ImageDraw.ImageDraw) -> None:
    ring(pen, 130)
    one(pen, 20)
    ring(pen, 50)


def test_several_digits_are_cropped_from_left_to_right_with_their_boxes() -> None:
    first, second, third = segmentation.digits(drawn(three_digits))
    assert first.box == pytest.approx((0.10, 0.25, 0.16, 0.75), abs=0.02)
    assert first.box[0] < second.box[0] < third.box[0]
    assert (first.image == image_of(drawn(one))).all()
    assert abs(second.image.astype(int) - third.image).max() <= 30


def test_rows_are_read_from_top_to_bottom() -> None:
    def two_rows(pen: ImageDraw.ImageDraw) -> None:
        for top in (20, 110):
            pen.rectangle((40, top, 51, top + 69), fill="black")
            pen.ellipse((100, top, 149, top + 69), outline="black", width=10)

    crops = segmentation.digits(drawn(two_rows, (200, 200)))
    assert [(crop.box[0] > 0.4, crop.box[1] > 0.5) for crop in crops] == [
        *((False, False), (True, False), (False, True), (True, True))
    ]


def test_a_bar_above_its_digit_is_no_row() -> None:
    def five(pen: ImageDraw.ImageDraw) -> None:
        pen.rectangle((60, 20, 119, 30), fill="black")
        pen.rectangle((60, 44, 71, 119), fill="black")
        pen.rectangle((60, 110, 119, 119), fill="black")

    assert len(segmentation.digits(drawn(five))) == 1


def test_without_splitting_all_ink_is_one_digit_that_tells_how_many_it_may_be() -> None:
    (whole,) = segmentation.digits(drawn(three_digits), split=False)
    assert whole.digit_count == 3
    assert whole.box == pytest.approx((0.10, 0.25, 0.95, 0.75), abs=0.02)


def test_strokes_above_one_another_are_one_digit() -> None:
    def five(pen: ImageDraw.ImageDraw) -> None:
        pen.rectangle((60, 30, 120, 40), fill="black")
        pen.arc((50, 60, 120, 130), 200, 160, fill="black", width=10)

    assert len(segmentation.digits(drawn(five))) == 1


def test_a_dot_or_a_dash_is_no_digit() -> None:
    def decimal(pen: ImageDraw.ImageDraw) -> None:
        one(pen, 30)
        pen.rectangle((70, 108, 85, 119), fill="black")
        ring(pen, 120)

    assert len(segmentation.digits(drawn(decimal))) == 2


@pytest.mark.parametrize(("name", "count"), [("four.jpg", 1), ("seven.webp", 1), ("page.jpg", 4)])
def test_all_digits_in_the_pictures_of_the_readme_are_cropped(name: str, count: int) -> None:
    assert len(segmentation.digits(pictures.read(ROOT / "docs/handwriting" / name))) == count


def lines(pen: ImageDraw.ImageDraw, tilt: int = 5) -> None:
    for top in range(10, 150, 30):
        pen.line((0, top, 199, top + tilt), fill="#334488", width=2)


def squares(pen: ImageDraw.ImageDraw) -> None:
    lines(pen, tilt=0)
    for left in range(10, 190, 30):
        pen.line((left, 0, left, 159), fill="#334488", width=2)


@pytest.mark.parametrize("draw", [lines, squares])
def test_lined_and_squared_paper_is_known_as_such(draw: Draw) -> None:
    def page(pen: ImageDraw.ImageDraw) -> None:
        draw(pen)
        one(pen)

    crops = segmentation.digits(drawn(page))
    assert crops
    assert all(crop.on_ruled_paper for crop in crops)


@pytest.mark.parametrize("draw", [one, seven, ring])
def test_plain_paper_is_not_ruled(draw: Draw) -> None:
    tight = drawn(draw)[40:120, 60:120]
    for picture in (drawn(draw), tight):
        assert not any(crop.on_ruled_paper for crop in segmentation.digits(picture))
