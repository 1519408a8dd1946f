"""Labelled images in memory: read, checked, split, identified."""

import hashlib
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE, DigitsError
from digits.core import files

Images = NDArray[np.uint8]  # (n, 28, 28), ink 255 on paper 0
Labels = NDArray[np.uint8]  # (n,), 0 to 9
# The names under which an .npz file may hold images to score models on.
LABELLED = (("x_test", "y_test"), ("x", "y"))


class NotAnArchiveError(DigitsError):
    """A file that is no whole .npz file."""


@dataclass(frozen=True)
class Dataset:
    """Training and test images, under the names of Keras's own mnist.npz."""

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels

    def digest(self) -> str:
        """Return the SHA-256 of all pixels and labels, hexadecimal."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).data)
        return digest.hexdigest()


def save(dataset: Dataset, path: Path) -> None:
    """Write an .npz file: uncompressed, so that its bytes do not depend on a zlib version."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **vars(dataset))

    files.write(path, write)


def load(path: Path) -> Dataset:
    """Read an .npz file with the keys x_train, y_train, x_test and y_test.

    Raises:
        DigitsError: no such file, damaged, or not labelled 28×28 images.
    """
    names = [field.name for field in fields(Dataset)]
    if not path.exists():
        raise DigitsError(f"{path}: no such file; `dvc repro fetch` makes it")
    try:
        arrays = _read(path, names)
    except NotAnArchiveError as error:
        raise DigitsError(f"{error}; `dvc repro -f fetch` makes a new one") from error
    return check(Dataset(**arrays), str(path))


def check(dataset: Dataset, source: str) -> Dataset:
    """Return the dataset if it is labelled digits.

    Raises:
        DigitsError: a wrong shape, type, length or label; names it.
    """
    for part in ("train", "test"):
        x, y = (getattr(dataset, f"{axis}_{part}") for axis in "xy")
        _check_labelled(x, y, f"{source}: x_{part}", f"{source}: y_{part}")
        if y.dtype != np.uint8:
            raise DigitsError(f"{source}: y_{part}: expected uint8, got {y.dtype}")
    return dataset


def has_training_images(path: Path) -> bool:
    """Tell whether an .npz file has training images too, as mnist.npz has."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "x_train.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def load_labelled(path: Path) -> tuple[Images, Labels]:
    """Read the images and labels of an .npz file, of the keys x_test and y_test, or x and y.

    Raises:
        DigitsError: no such file, damaged, or not labelled 28×28 images; names the key.
    """
    arrays = _read(path)
    keys = next((pair for pair in LABELLED if set(pair) <= set(arrays)), None)
    if keys is None:
        names = ", ".join(arrays) or "none"
        raise DigitsError(f"{path}: expected the keys x and y, or x_test and y_test; got {names}")
    x, y = (arrays[key] for key in keys)
    _check_labelled(x, y, *(f"{path}: {key}" for key in keys))
    return x, y.astype(np.uint8)


def _read(path: Path, names: Collection[str] | None = None) -> Mapping[str, NDArray[np.uint8]]:
    """Return the arrays of an .npz file, all or those named."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names or archive.files}
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # NumPy raises anything at all for a damaged file.
        reason = " ".join(str(error).split())
        raise NotAnArchiveError(f"{path}: not a whole .npz file ({reason})") from error


def _check_labelled(x: NDArray[np.generic], y: NDArray[np.generic], x_at: str, y_at: str) -> None:
    if x.dtype != np.uint8 or x.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or len(x) == 0:
        raise DigitsError(f"{x_at}: expected (n, 28, 28) uint8, got {x.shape} {x.dtype}")
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (len(x),):
        raise DigitsError(f"{y_at}: expected ({len(x)},) integers, got {y.shape} {y.dtype}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= CLASSES:
        raise DigitsError(f"{y_at}: expected labels from 0 to 9, got {low} to {high}")


def pixels(x: Images) -> NDArray[np.float32]:
    """Return what the networks take: (n, 28, 28, 1) float32 from 0 to 1."""
    return (x[..., np.newaxis] / np.float32(255)).astype(np.float32, copy=False)


def hold_out(
    y: Labels, size: int, seed: int, fold: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose images for validation: each digit in proportion to its share, to within one.

    Args:
        fold: which of the disjoint sets that one seed gives; there are len(y) // size.

    Returns:
        The indices to train on and those to validate on, both ascending; `size` of the latter.

    Raises:
        DigitsError: size is not less than the number of images, or there is no such fold.
    """
    if size >= len(y):
        raise DigitsError(
            f"params.yaml: data.validation: expected less than the {len(y)} training images, "
            f"got {size}"
        )
    if size and fold >= len(y) // size:
        raise DigitsError(
            f"folds: expected at most {len(y) // size} disjoint sets of {size} training images, "
            f"got {fold + 1}"
        )
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_digit = shuffled[np.argsort(y[shuffled], kind="stable")]
    # Evenly spaced places in an order sorted by digit give every digit its share.
    places = (np.arange(size) * len(y) + len(y) // 2) // max(size, 1)
    held_out = np.zeros(len(y), dtype=bool)
    held_out[by_digit[(places + fold) % len(y)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
