"""A folder of images, one subfolder a class, is read as a dataset."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from digits import DigitsError
from digits.core.dataset import ARRAYS, by
from digits.ingest import image_folder


def draw(path: Path, value: int = 0, shape: tuple[int, ...] = (4, 6), **options: Any) -> None:
    """Save an image of one value, by default grey, four high and six wide."""
    save(path, Image.fromarray(np.full(shape, value, np.uint8)), **options)


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def draw_classes(folder: Path, *counts: int, names: str = "abc") -> None:
    """Draw so many images of each class; the value of each is ten times its label, plus i."""
    for label, count in enumerate(counts):
        for i in range(count):
            draw(folder / names[label] / f"{i:03}.png", 10 * label + i)


def refusal(folder: Path) -> str:
    with pytest.raises(DigitsError) as refused:
        image_folder.read(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values(x: NDArray[np.uint8]) -> list[int]:
    return [int(image.max()) for image in x]


def test_train_and_test_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    draw_classes(tmp_path / "train", 2, 1)
    draw_classes(tmp_path / "test", 1, 2)
    dataset = image_folder.read(tmp_path)
    assert dataset.class_names == ("a", "b")
    assert dataset.x_train.shape == (3, 4, 6)
    assert (values(dataset.x_train), dataset.y_train.tolist()) == ([0, 1, 10], [0, 0, 1])
    assert (values(dataset.x_test), dataset.y_test.tolist()) == ([0, 10, 11], [0, 1, 1])
    assert {getattr(dataset, name).dtype for name in ARRAYS} == {np.dtype(np.uint8)}


def test_without_them_a_fifth_of_each_class_is_held_out(tmp_path: Path) -> None:
    draw_classes(tmp_path, 10, 5)
    dataset = image_folder.read(tmp_path)
    assert np.bincount(dataset.y_test).tolist() == [2, 1]
    assert np.bincount(dataset.y_train).tolist() == [8, 4]
    assert sorted(values(dataset.x_train) + values(dataset.x_test)) == [*range(15)]
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert values(x) == sorted(values(x))
        assert [value // 10 for value in values(x)] == y.tolist()


def test_the_split_follows_from_the_names_alone(tmp_path: Path) -> None:
    for folder, names in ((tmp_path / "one", "abc"), (tmp_path / "other", "xyz")):
        draw_classes(folder, 9, 9, names=names)
    draw(tmp_path / "other" / "x" / "000.png", 200)
    one, other = (image_folder.read(tmp_path / name) for name in ("one", "other"))
    assert [value % 200 for value in values(other.x_test)] == values(one.x_test)


def test_two_images_of_each_class_are_enough(tmp_path: Path) -> None:
    draw_classes(tmp_path, 2, 2)
    dataset = image_folder.read(tmp_path)
    assert dataset.y_train.tolist() == dataset.y_test.tolist() == [0, 1]


def test_hidden_and_other_files_are_passed_over_and_deeper_folders_read(tmp_path: Path) -> None:
    train = tmp_path / "train"
    draw_classes(train, 1, 1)
    draw_classes(tmp_path / "test", 1, 1)
    draw(train / "a" / "000-deeper" / "z.png", 1)
    draw(train / "a" / "001.JPEG", 2)
    draw(train / "a" / ".hidden.png", 3)
    draw(train / "a" / ".cache" / "x.png", 4)
    draw(train / ".git" / "x.png", 5)
    draw(tmp_path / ".cache" / "x.png", 6)
    for path in (tmp_path, train, train / "a"):
        (path / "notes.txt").touch()
        (path / ".DS_Store").touch()
    assert values(image_folder.read(tmp_path).x_train) == [1, 0, 2, 10]


@pytest.mark.parametrize("suffix", image_folder.SUFFIXES)
def test_each_format_gives_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / name / f"0{suffix}", 255, (4, 6, 3))
        draw(tmp_path / name / f"1{suffix.upper()}", 255, (4, 6, 3))
    x = image_folder.read(tmp_path).x_train
    assert x.shape == (2, 4, 6, 3)
    assert x.min() == 255


PALETTE = Image.new("RGB", (6, 4), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize(
    ("image", "options", "pixel"),
    [
        (Image.new("1", (6, 4), 1), {}, 255),
        (Image.new("L", (6, 4), 7), {}, 7),
        (PALETTE, {}, [255, 0, 0]),
        (PALETTE, {"transparency": 0}, [255, 0, 0, 0]),
        (Image.new("RGB", (6, 4), (1, 2, 3)), {}, [1, 2, 3]),
        (Image.new("RGBA", (6, 4), (1, 2, 3, 4)), {}, [1, 2, 3, 4]),
    ],
    ids=["1", "L", "P", "P with transparency", "RGB", "RGBA"],
)
def test_grey_stays_grey_and_a_palette_becomes_its_colours(
    image: Image.Image, options: dict[str, Any], pixel: Any, tmp_path: Path
) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        save(tmp_path / name, image, **options)
    x = image_folder.read(tmp_path).x_train
    assert x.shape[1:3] == (4, 6)
    assert x[0, 0, 0].tolist() == pixel


def test_an_image_is_rotated_as_its_exif_data_say(tmp_path: Path) -> None:
    draw_classes(tmp_path, 2, 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be rotated a quarter clockwise.
    draw(tmp_path / "a" / "000.png", 0, (6, 4), exif=exif)
    assert image_folder.read(tmp_path).x_train.shape == (2, 4, 6)


@pytest.mark.parametrize("shape", [(5, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_the_first_image_of_another_size_or_mode_is_named(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    draw_classes(tmp_path, 4, 4)
    for name in ("a/002.png", "b/001.png"):
        save(tmp_path / name, Image.fromarray(np.zeros(shape, np.uint8).squeeze()))
    assert refusal(tmp_path) == (
        f"{tmp_path}/a/002.png: {by(shape)} (height, width, channels), but 4×6×1 before it; "
        "convert all images to one size and mode"
    )


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("I;16", "png"), ("I", "tif"), ("F", "tif"), ("LA", "png"), ("CMYK", "jpg")],
)
def test_what_is_not_8_bit_grey_or_colour_is_refused(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    draw_classes(tmp_path, 3, 3)
    path = tmp_path / "b" / f"x.{suffix}"
    save(path, Image.new(mode, (6, 4)))
    expected = f"{path}: mode {mode}; expected 8-bit grey or colour (L, RGB or RGBA)"
    assert refusal(tmp_path) == expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_a_damaged_file_is_named(suffix: str, tmp_path: Path) -> None:
    draw_classes(tmp_path, 2, 2)
    path = tmp_path / "b" / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    save(path, Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refusal(tmp_path).startswith(f"{path}: ")
    for content in (b"", b"<html>404</html>"):
        path.write_bytes(content)
        assert refusal(tmp_path) == (
            f"{path}: not an image; expected a PNG, JPEG, BMP, GIF, WEBP, TIFF file"
        )
    path.unlink()
    path.symlink_to("nowhere")
    assert refusal(tmp_path) == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("limit", [10, 20], ids=["an error of Pillow", "a warning of Pillow"])
def test_a_decompression_bomb_is_refused_without_a_warning(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_classes(tmp_path, 2, 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "000.png: cannot be read: Image size (24 pixels) exceeds" in refusal(tmp_path)
    assert not caught


LAYOUT = "expected a folder with a subfolder of images for each class, or train/ and test/ of such"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], f": No such file or directory; {LAYOUT}"),
        (["/"], f": {LAYOUT}, 2 to 256 classes; got 0"),
        (["0.png"], f": {LAYOUT}, 2 to 256 classes; got 0"),
        (["a/0.png", "a/1.png"], f": {LAYOUT}, 2 to 256 classes; got 1"),
        ([f"{i}/0.png" for i in range(257)], f": {LAYOUT}, 2 to 256 classes; got 257"),
        (["a/0.png", "b/"], f"/b: no image; expected {', '.join(image_folder.SUFFIXES)} files"),
        (
            ["a/0.png", "a/1.png", "b/0.png"],
            "/b: one image; expected two or more: one to train on, one to test on",
        ),
        (
            ["a/0.png", "tw\no/0.png"],
            ": 'tw\\no': a class name that cannot be printed; rename it",
        ),
        (["train/0.png", "test/0.png"], f"/train: {LAYOUT}, 2 to 256 classes; got 0"),
        (
            ["train/a/0.png", "train/b/0.png", "test/"],
            "/test: no subfolder; expected one of images for each class",
        ),
        (
            ["train/a/0.png", "train/b/0.png", "test/c/0.png"],
            "/test/c: no such class in train/; expected one of those there",
        ),
    ],
    ids=[
        *("no folder", "an empty folder", "images without a class", "one class", "257 classes"),
        *("an empty class", "one image of a class", "a line break in a name"),
        *("train/ without classes", "an empty test/", "a class in test/ alone"),
    ],
)
def test_another_layout_is_refused_in_one_line(
    names: list[str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for name in names:
        if name.endswith("/"):
            (folder / name.strip("/")).mkdir(parents=True)
        else:
            draw(folder / name)
    assert refusal(folder) == f"{folder}{message}"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "0.png")
    assert refusal(tmp_path / "0.png") == f"{tmp_path}/0.png: Not a directory; {LAYOUT}"
