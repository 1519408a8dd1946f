"""Read image files of the common formats into arrays."""

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from digits import DigitsError
from digits.core import files

STDIN = Path("-")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
ACCEPTED = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"))
MEGAPIXELS = 64  # the largest picture accepted; cameras have 50
MAX_BYTES = 400_000_000  # as many as the largest picture has in memory, in six bytes a pixel
WORKING_SIDE = 1000  # pixels; larger pictures are reduced, since no digit needs more

# Pillow warns of odd EXIF data and of large sizes; `decode` checks the size itself.
warnings.filterwarnings("ignore", module="PIL")

Picture = NDArray[np.floating[Any]]


def paths(path: Path) -> list[Path]:
    """Return the path itself or, for a folder, the pictures in it, sorted by name.

    Raises:
        DigitsError: the folder has no pictures.
        OSError: it cannot be read.
    """
    if path == STDIN or not path.is_dir():
        return [path]
    pictures = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
    if not pictures:
        raise DigitsError(f"{path}: no picture in this folder; expected {', '.join(FORMATS)} files")
    return pictures


def read(path: Path) -> Picture:
    """Read a picture from a file or, for `-`, from standard input; see `decode`."""
    if path == STDIN:
        return decode(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    with files.regular(path).open("rb") as file:
        return decode(file.read(MAX_BYTES + 1), str(path))


def decode(content: bytes, name: str) -> Picture:
    """Decode an image file, rotate it as its EXIF data say and fill its transparent parts.

    Args:
        content: of the file.
        name: of the picture, in error messages.

    Returns:
        (height, width, 3) float32 from 0 to 1, of at most WORKING_SIDE pixels a side.

    Raises:
        DigitsError: it is empty, of another format, damaged or too large.
    """
    if not content:
        raise DigitsError(f"{name}: empty; expected a {ACCEPTED} file")
    if len(content) > MAX_BYTES:
        raise DigitsError(f"{name}: too large; expected at most {MAX_BYTES // 10**6} MB")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MEGAPIXELS * 1_000_000:
                raise Image.DecompressionBombError
            image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # JPEG can be decoded at reduced size
            return _to_array(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DigitsError(f"{name}: not a picture; expected a {ACCEPTED} file") from None
    except Image.DecompressionBombError:
        raise DigitsError(f"{name}: too large; expected at most {MEGAPIXELS} megapixels") from None
    except Exception as error:  # Pillow may raise any exception on a damaged file.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DigitsError(f"{name}: damaged: {reason}") from error


def _to_array(image: Image.Image) -> Picture:
    """Convert an image to (height, width, 3) from 0 to 1, reduced by averaging whole blocks."""
    factor = -(-max(image.size) // WORKING_SIDE)
    if image.mode.startswith(("I", "F")):
        gray = np.asarray(Image.fromarray(_scale_to_unit(np.asarray(image))).reduce(factor))
        return np.repeat(gray[..., np.newaxis], 3, axis=2)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB").reduce(factor), dtype=np.float32) / 255
    channels = np.asarray(image.convert("RGBA").reduce(factor), dtype=np.float32) / 255
    colour, opacity = channels[..., :3], channels[..., 3:]
    # The background becomes white behind dark ink and black behind light ink.
    weight = float(opacity.sum())
    mean = float((colour * opacity).sum()) / (3 * weight) if weight else 0.0
    return colour * opacity + (1 - opacity) * np.float32(mean < 0.5)


def _scale_to_unit(values: NDArray[np.generic]) -> Picture:
    """Scale gray values to 0 … 1: integers by 8 or 16 bits, floats by their own range."""
    gray = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer):
        return gray / np.float32(65535 if gray.max(initial=0) > 255 else 255)
    low, high = float(np.nanmin(gray)), float(np.nanmax(gray))
    return np.nan_to_num((gray - low) / (high - low)) if high > low else np.zeros_like(gray)
