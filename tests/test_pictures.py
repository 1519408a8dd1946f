"""Pictures are read from files of every common format."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from digits import DigitsError
from digits.handwriting import pictures


def drawn(mode: str = "RGB", size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A dark bar at the left on white."""
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).rectangle((10, 10, 25, size[1] - 10), fill=0)
    return image.convert(mode)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def looks_drawn(picture: NDArray[np.float32]) -> bool:
    height, width = picture.shape[:2]
    return bool(
        picture.dtype == np.float32
        and picture.shape[2] == 3
        and picture[height // 2, 15 * width // 120].max() < 0.1
        and picture[height // 2, 80 * width // 120].min() > 0.9
    )


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *((file_format, "RGB") for file_format in pictures.FORMATS),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(("TIFF", mode) for mode in ("1", "L", "LAB", "CMYK", "YCbCr", "I;16", "I", "F")),
        *(("JPEG", mode) for mode in ("L", "CMYK")),
        *(("WEBP", mode) for mode in ("RGBA",)),
        *(("BMP", mode) for mode in ("1", "L", "P")),
    ],
)
def test_every_format_and_mode_gives_the_same_picture(file_format: str, mode: str) -> None:
    image = drawn("L" if mode in ("I;16", "LAB") else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if mode == "LAB":
        image = Image.merge("LAB", (image, *(Image.new("L", image.size, 128),) * 2))
    assert looks_drawn(pictures.decode(encoded(image, file_format), "it"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_rotated_as_its_exif_data_say(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be rotated a quarter clockwise.
    rotated = drawn().transpose(Image.Transpose.ROTATE_90)
    content = encoded(rotated, file_format, exif=exif)
    assert looks_drawn(pictures.decode(content, "it"))


@pytest.mark.parametrize(("ink", "background"), [(0, 1.0), (255, 0.0)])
def test_behind_dark_ink_transparent_becomes_white_and_behind_light_ink_black(
    ink: int, background: float
) -> None:
    image = Image.new("RGBA", (60, 60), (128, 128, 128, 0))
    ImageDraw.Draw(image).rectangle((20, 10, 30, 50), fill=(ink, ink, ink, 255))
    picture = pictures.decode(encoded(image, "PNG"), "it")
    assert picture[0, 0].tolist() == [background] * 3
    assert picture[30, 25].tolist() == [ink / 255] * 3


def test_a_large_picture_is_reduced() -> None:
    picture = pictures.decode(encoded(drawn().resize((6000, 4000)), "PNG"), "it")
    assert picture.shape == (667, 1000, 3)
    assert looks_drawn(picture)


def test_one_pixel_is_a_picture() -> None:
    assert pictures.decode(encoded(Image.new("L", (1, 1)), "PNG"), "it").shape == (1, 1, 3)


def test_16_bits_of_gray_keep_their_faint_ink() -> None:
    gray = np.full((50, 50), 65535, np.uint16)
    gray[10:40, 20:30] = 60000
    picture = pictures.decode(encoded(Image.fromarray(gray), "PNG"), "it")
    assert picture[25, 25, 0] == pytest.approx(60000 / 65535, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it: empty; expected a PNG, JPEG, WEBP, TIFF or BMP file"),
        (b"three\n", "it: not a picture; expected a PNG, JPEG, WEBP, TIFF or BMP file"),
        (encoded(drawn(), "PNG")[:100], "it: damaged: "),
        (encoded(drawn(), "JPEG")[:500], "it: damaged: "),
        (encoded(drawn(), "GIF"), "it: not a picture"),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "a GIF"],
)
def test_a_file_that_is_no_picture_is_refused_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(DigitsError) as refused:
        pictures.decode(content, "it")
    assert str(refused.value).startswith(reason)
    assert "\n" not in str(refused.value)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    with pytest.raises(DigitsError, match="it: too large; expected at most 64 megapixels"):
        pictures.decode(bomb, "it")


def test_a_folder_stands_for_the_pictures_in_it(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures.paths(tmp_path)] == ["a.jpg", "b.PNG"]
    assert pictures.paths(tmp_path / "b.PNG") == [tmp_path / "b.PNG"]
    assert pictures.paths(tmp_path / "none.png") == [tmp_path / "none.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DigitsError, match="empty: no picture in this folder"):
        pictures.paths(tmp_path / "empty")


def test_only_files_are_read_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(DigitsError, match="expected a file, got a device, a pipe or a socket"):
            pictures.read(path)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1_000_000)
    with Path("/dev/zero").open(encoding="utf-8") as endless:
        monkeypatch.setattr("sys.stdin", endless)
        with pytest.raises(DigitsError, match="standard input: too large; expected at most 1 MB"):
            pictures.read(pictures.STDIN)
