"""MNIST in memory: read, checked, split, identified."""

import hashlib
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE, DigitsError
from digits.core import files


@dataclass(frozen=True)
class Dataset:
    """Labelled images, under the names of Keras's own mnist.npz.

    Attributes:
        x_train, x_test: (n, 28, 28) uint8, ink 255 on paper 0.
        y_train, y_test: (n,) uint8, 0 to 9.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]

    def digest(self) -> str:
        """SHA-256 of all pixels and labels, hexadecimal."""
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
        DigitsError: no such file, damaged, or not labelled 28×28 digits.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            dataset = Dataset(**{field.name: archive[field.name] for field in fields(Dataset)})
    except FileNotFoundError:
        raise DigitsError(f"{path}: no such file; `dvc repro fetch` makes it") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DigitsError(
            f"{path}: not a whole .npz of MNIST ({reason}); `dvc repro -f fetch` makes a new one"
        ) from error
    return check(dataset, str(path))


def check(dataset: Dataset, source: str) -> Dataset:
    """Return the dataset if it is labelled digits.

    Raises:
        DigitsError: a wrong shape, type, length or label; names it.
    """
    for part in ("train", "test"):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        if x.dtype != np.uint8 or x.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or len(x) == 0:
            expected = "expected (n, 28, 28) uint8"
            raise DigitsError(f"{source}: x_{part}: {expected}, got {x.shape} {x.dtype}")
        if y.dtype != np.uint8 or y.shape != (len(x),) or y.max() >= CLASSES:
            expected = f"expected ({len(x)},) uint8 from 0 to 9"
            raise DigitsError(f"{source}: y_{part}: {expected}, got {y.shape} {y.dtype}")
    return dataset


def pixels(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the networks take: (n, 28, 28, 1) float32 from 0 to 1."""
    return (x[..., np.newaxis] / np.float32(255)).astype(np.float32, copy=False)


def hold_out(
    y: NDArray[np.uint8], size: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose images for validation: each digit in proportion to its share, to within one.

    Returns:
        The indices to train on and those to validate on, both ascending; `size` of the latter.

    Raises:
        DigitsError: size is not less than the number of images.
    """
    if size >= len(y):
        raise DigitsError(
            f"params.yaml: data.validation: expected less than the {len(y)} training images, "
            f"got {size}"
        )
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_digit = shuffled[np.argsort(y[shuffled], kind="stable")]
    # Evenly spaced places in an order sorted by digit give every digit its share.
    places = (np.arange(size) * len(y) + len(y) // 2) // max(size, 1)
    chosen = np.zeros(len(y), dtype=bool)
    chosen[by_digit[places]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
