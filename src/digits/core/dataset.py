"""Labelled images in memory: read, checked, split, identified."""

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic_core import PydanticCustomError

from digits import DigitsError
from digits.core import files
from digits.core.config import shown
from digits.core.schema import Model, Params

# (n, height, width) if grey, else (n, height, width, channels); in MNIST ink is 255, paper 0.
Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]  # (n,), from 0 to the number of classes - 1
MOST_CLASSES = 256
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CLASS_NAMES = "class_names"
# The names under which an .npz file may hold images to score models on.
LABELLED = (("x_test", "y_test"), ("x", "y"))
FETCH_AGAIN = "; `dvc repro -f fetch` makes a new one"


@dataclass(frozen=True)
class Dataset:
    """Training and test images, under the names of Keras's own mnist.npz.

    Attributes:
        class_names: of the classes in the order of their labels; empty if they have none.
    """

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    class_names: Sequence[str] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The (height, width, channels) of an image."""
        return image_shape(self.x_train)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.y_train.max()) + 1

    def digest(self, part: Literal["", "train", "test"] = "") -> str:
        """Return the SHA-256 of the pixels and labels, hexadecimal: of all, or of one part."""
        digest = hashlib.sha256()
        for name in filter(lambda name: name.endswith(part), ARRAYS):
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()


def image_shape(x: Images) -> tuple[int, ...]:
    """Return the (height, width, channels) of images."""
    return (*x.shape[1:], 1)[:3]


def save(dataset: Dataset, path: Path) -> None:
    """Write an .npz file: uncompressed, so that its bytes do not depend on a zlib version."""
    arrays = {name: getattr(dataset, name) for name in ARRAYS}
    if dataset.class_names:
        arrays[CLASS_NAMES] = np.array(dataset.class_names)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)

    files.write(path, write)


def load(path: Path) -> Dataset:
    """Read an .npz file with the keys x_train, y_train, x_test, y_test and maybe class_names.

    Raises:
        DigitsError: no such file, damaged, or not labelled images; names the key.
    """
    if not path.exists():
        raise DigitsError(f"{path}: no such file; `dvc repro fetch` makes it")
    arrays = _read(path, FETCH_AGAIN)
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise DigitsError(
            f"{path}: expected the keys {', '.join(ARRAYS)}, but {', '.join(missing)} is missing"
            + FETCH_AGAIN
        )
    x_train, y_train, x_test, y_test = (arrays[name] for name in ARRAYS)
    names = tuple(map(str, arrays[CLASS_NAMES])) if CLASS_NAMES in arrays else ()
    return check(Dataset(x_train, y_train, x_test, y_test, names), str(path))


def check(dataset: Dataset, source: str) -> Dataset:
    """Return the dataset, with grey images as (n, height, width) and labels as (n,) uint8.

    Raises:
        DigitsError: a wrong shape, type, length or label; names it.
    """
    x_train, y_train = _labelled(dataset.x_train, dataset.y_train, source, "x_train", "y_train")
    x_test, y_test = _labelled(dataset.x_test, dataset.y_test, source, "x_test", "y_test")
    if x_test.shape[1:] != x_train.shape[1:]:
        sizes = " and ".join(by(image_shape(x)) for x in (x_train, x_test))
        raise DigitsError(f"{source}: expected training and test images of one size, got {sizes}")
    classes = int(y_train.max()) + 1
    if classes < 2:
        raise DigitsError(f"{source}: y_train: expected two classes or more, got one: label 0")
    if len(lacking := np.setdiff1d(np.arange(classes), y_train)):
        raise DigitsError(
            f"{source}: y_train: expected labels from 0 to the number of classes - 1, got "
            f"{classes - 1} as the greatest, but {lacking[0]} never"
        )
    if y_test.max() >= classes:
        raise DigitsError(
            f"{source}: y_test: expected labels from 0 to {classes - 1}, as in y_train, got "
            f"{y_test.max()}"
        )
    if dataset.class_names and len(dataset.class_names) != classes:
        raise DigitsError(
            f"{source}: {CLASS_NAMES}: expected {classes}, got {len(dataset.class_names)}"
        )
    return replace(dataset, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def fit_to_images(params: Params, version: str, dataset: Dataset) -> Model:
    """Return the parameters of a version for the images and classes of a dataset.

    Raises:
        DigitsError: there is no such version, or its layers do not fit; names the layer.
    """
    model, shape = params.model(version), dataset.image_shape
    try:
        return model.for_images(shape, dataset.classes)
    except PydanticCustomError as error:
        what, value, key = (error.context or {}).values()
        raise DigitsError(
            f"params.yaml: models.{version}.layers{key}: expected {what}, got {shown(value)} "
            f"(for images of {by(shape)} in {dataset.classes} classes)"
        ) from None


def without_fold(
    dataset: Dataset, size: int, seed: int, fold: int
) -> tuple[Dataset, NDArray[np.intp]]:
    """Return a dataset without the training images of one fold, and the indices of those.

    Args:
        size, seed, fold: as `hold_out` takes them; a size of 0 holds out none.
    """
    train, held_out = hold_out(dataset.y_train, size, seed, fold)
    if not size:
        return dataset, held_out
    x, y = dataset.x_train[train], dataset.y_train[train]
    return replace(dataset, x_train=x, y_train=y), held_out


def class_names(params: Params, dataset: Dataset) -> Sequence[str]:
    """Return the names of the classes: those of params.yaml, else the data's; empty if none.

    Raises:
        DigitsError: params.yaml has another number of them than the data have classes.
    """
    names = params.data.classes
    if names and len(names) != dataset.classes:
        raise DigitsError(
            f"params.yaml: data.classes: expected null or {dataset.classes} names, one for each "
            f"class of the images, got {len(names)}"
        )
    return names or dataset.class_names


def has_training_images(path: Path) -> bool:
    """Tell whether an .npz file has training images too, as mnist.npz has."""
    try:
        with zipfile.ZipFile(files.regular(path)) as archive:
            return "x_train.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def load_labelled(path: Path) -> tuple[Images, Labels]:
    """Read the images and labels of an .npz file, of the keys x_test and y_test, or x and y.

    Raises:
        DigitsError: no such file, damaged, or not labelled images; names the key.
    """
    arrays = _read(path)
    keys = next((pair for pair in LABELLED if set(pair) <= set(arrays)), None)
    if keys is None:
        names = ", ".join(arrays) or "none"
        raise DigitsError(f"{path}: expected the keys x and y, or x_test and y_test; got {names}")
    x, y = keys
    return _labelled(arrays[x], arrays[y], str(path), x, y)


def _read(path: Path, advice: str = "") -> Mapping[str, NDArray[Any]]:
    """Return the arrays of an .npz file; `advice` ends the error about one that is damaged."""
    try:
        with files.regular(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_sizes(archive.zip)
            return {name: archive[name] for name in archive.files}
    except DigitsError:
        raise
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # NumPy raises anything at all for a damaged file.
        reason = " ".join(str(error).split())
        if reason.startswith("Object arrays"):
            raise DigitsError(
                f"{path}: expected arrays of numbers, got Python objects, as NumPy makes of images "
                "that are not all of one size"
            ) from error
        raise DigitsError(f"{path}: not a whole .npz file ({reason}){advice}") from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Raise ValueError unless all members are arrays of the size that they state, and fit.

    NumPy would allocate whatever a header states, and a deflated file may stand for anything.
    """
    total = sum(member.file_size for member in archive.infolist())
    if total > psutil.virtual_memory().available:
        raise ValueError(f"it would take {total / 2**30:,.0f} GiB of memory")
    for member in archive.infolist():
        with archive.open(member) as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            shape, _, dtype = (read if major == 1 else np.lib.format.read_array_header_2_0)(file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} is shorter than its {shape} {dtype}")


def _labelled(
    x: NDArray[Any], y: NDArray[Any], source: str, x_name: str, y_name: str
) -> tuple[Images, Labels]:
    """Return images and labels that belong together, in the form of `check`."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape:
        raise DigitsError(
            f"{source}: {x_name}: expected (n, height, width) or (n, height, width, channels) "
            f"uint8, got {x.shape} {x.dtype}"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.shape not in ((len(x),), (len(x), 1)):
        raise DigitsError(
            f"{source}: {y_name}: expected ({len(x)},) integers, got {y.shape} {y.dtype}"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= MOST_CLASSES:
        raise DigitsError(
            f"{source}: {y_name}: expected labels from 0 to at most {MOST_CLASSES - 1}, got {low} "
            f"to {high}"
        )
    grey = x[..., 0] if x.shape[3:] == (1,) else x
    return grey, y.reshape(-1).astype(np.uint8, copy=False)


def by(sizes: Sequence[object]) -> str:
    """Return sizes as 28×28×1."""
    return "×".join(map(str, sizes))


def pixels(x: Images) -> NDArray[np.float32]:
    """Return what the networks take: (n, height, width, channels) float32 from 0 to 1."""
    channels = x if x.ndim == 4 else x[..., np.newaxis]
    return (channels / np.float32(255)).astype(np.float32, copy=False)


def hold_out(
    y: Labels, size: int, seed: int, fold: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose images for validation: each class in proportion to its share, to within one.

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
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    # Evenly spaced places in an order sorted by class give every class its share.
    places = (np.arange(size) * len(y) + len(y) // 2) // max(size, 1)
    held_out = np.zeros(len(y), dtype=bool)
    held_out[by_class[(places + fold) % len(y)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
