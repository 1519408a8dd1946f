"""Pictures of handwriting, from any common image file to an array."""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from digits import DigitsError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"))
MEGAPIXELS = 64  # of the largest picture that is read; cameras have 50
WORKING_SIDE = 1000  # pixels; what is larger is reduced, for no digit needs more

# Of odd EXIF data, and of sizes, which are checked here.
warnings.filterwarnings("ignore", module="PIL")

Picture = NDArray[np.floating[Any]]


def paths(path: Path) -> Iterator[Path]:
    """The path itself, or of a folder the pictures in it, in the order of their names.

    Raises:
        DigitsError: a folder without pictures.
    """
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error
    if inside is None:
        yield path
        return
    found = [p for p in inside if p.suffix.lower() in SUFFIXES]
    if not found:
        raise DigitsError(f"{path}: no picture in this folder; expected {', '.join(FORMATS)} files")
    yield from found


def read(path: Path) -> Picture:
    """The picture in a file; see `decode`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error
    return decode(content, str(path))


def decode(
    content: bytes, name: str, formats: Sequence[str] = FORMATS, megapixels: int = MEGAPIXELS
) -> Picture:
    """A picture as it is meant to be seen: turned as its EXIF says, transparent parts filled.

    Returns:
        (height, width, 3) float32 from 0 to 1, of at most WORKING_SIDE pixels a side.

    Raises:
        DigitsError: not such a file, damaged, or too large; names it.
    """
    if not content:
        raise DigitsError(f"{name}: empty; expected a {_listed(formats)} file")
    try:
        with Image.open(io.BytesIO(content), formats=list(formats)) as image:
            width, height = image.size
            if width * height > megapixels * 1_000_000:
                raise Image.DecompressionBombError
            image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # a JPEG is unpacked smaller
            return _seen(_reduced(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        raise DigitsError(f"{name}: not a picture; expected a {_listed(formats)} file") from None
    except Image.DecompressionBombError:
        expected = f"expected at most {megapixels} megapixels"
        raise DigitsError(f"{name}: too large; {expected}") from None
    except Exception as error:  # a damaged file makes Pillow raise anything at all
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DigitsError(f"{name}: damaged: {reason}") from error


def _listed(formats: Sequence[str]) -> str:
    return " or ".join([", ".join(formats[:-1]), formats[-1]][len(formats) == 1 :])


def _reduced(image: Image.Image) -> Image.Image:
    """The image reduced by a whole factor, each new pixel the mean of old ones."""
    factor = -(-max(image.size) // WORKING_SIDE)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_unit(np.asarray(image)))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "LA", "RGBA"):  # "P" among them: numbers of colours have no mean
        image = image.convert("RGB")
    return image.reduce(factor) if factor > 1 else image


def _unit(values: NDArray[np.generic]) -> Picture:
    """Gray values of more than 8 bits, from 0 to 1; those of floats by their range."""
    gray = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer):
        return gray / np.float32(65535 if gray.max(initial=0) > 255 else 255)
    low, high = float(np.nanmin(gray)), float(np.nanmax(gray))
    return np.nan_to_num((gray - low) / (high - low)) if high > low else np.zeros_like(gray)


def _seen(image: Image.Image) -> Picture:
    if image.mode == "F":
        return np.repeat(np.asarray(image)[..., np.newaxis], 3, axis=2)
    if image.mode in ("LA", "RGBA"):
        layers = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        colour, opacity = layers[..., :3], layers[..., 3:]
        # Dark ink is meant for a white ground and light ink for a black one.
        weight = float(opacity.sum())
        mean = float((colour * opacity).sum()) / (3 * weight) if weight else 0.0
        return colour * opacity + (1 - opacity) * np.float32(mean < 0.5)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
