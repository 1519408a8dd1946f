"""Labelled images of any origin, to score models on."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE, DigitsError

KEYS = (("x_test", "y_test"), ("x", "y"))


def is_whole(path: Path) -> bool:
    """Whether a file has training images too, as mnist.npz has."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "x_train.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images, (n, 28, 28) uint8, and labels, (n,) uint8, of an .npz file.

    Their keys are x_test and y_test, as in mnist.npz, or x and y.

    Raises:
        DigitsError: no such file, damaged, or not that; names the key.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = next((pair for pair in KEYS if set(pair) <= set(archive.files)), None)
            if keys is None:
                raise DigitsError(
                    f"{path}: expected the keys x and y, or x_test and y_test; got "
                    f"{', '.join(archive.files) or 'none'}"
                )
            x, y = archive[keys[0]], archive[keys[1]]
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DigitsError:
        raise
    except Exception as error:  # a damaged file makes NumPy raise anything at all
        raise DigitsError(f"{path}: not a whole .npz file") from error
    if x.dtype != np.uint8 or x.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or len(x) == 0:
        raise DigitsError(f"{path}: {keys[0]}: expected (n, 28, 28) uint8, got {x.shape} {x.dtype}")
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (len(x),):
        expected = f"expected ({len(x)},) integers"
        raise DigitsError(f"{path}: {keys[1]}: {expected}, got {y.shape} {y.dtype}")
    if y.min() < 0 or y.max() >= CLASSES:
        raise DigitsError(
            f"{path}: {keys[1]}: expected labels from 0 to 9, got {y.min()} to {y.max()}"
        )
    return x, y.astype(np.uint8)
