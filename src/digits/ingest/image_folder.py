"""Read a folder of images, one subfolder a class, as a dataset."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from digits import DigitsError
from digits.core.dataset import MOST_CLASSES, Dataset, Images, Labels, by, image_shape

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
# What becomes of each of Pillow's modes; P with transparency becomes RGBA.
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
# Constant, so that trainings with different seeds are tested on the same images.
SPLIT_SEED = 0
LAYOUT = "expected a folder with a subfolder of images for each class, or train/ and test/ of such"


def read(folder: Path) -> Dataset:
    """Read a folder with one subfolder of images for each class, or train/ and test/ of such.

    Without train/ and test/, a fifth of each class is held out for the test; which ones follows
    from the names alone. Images may lie deeper below the folder of their class; hidden files are
    passed over. An image is rotated as its EXIF data say; of an animation, the first is read.

    Returns:
        Images (n, height, width) if grey, else (n, height, width, 3 or 4), in the order of their
        names; labels (n,), each a place in the class names, which are sorted.

    Raises:
        DigitsError: another layout, or a file that is damaged, is not 8-bit grey or colour, or
            differs from those before it in size or mode; names it.
    """
    try:
        names = {path.name for path in _subfolders(folder)}
        if {"train", "test"} <= names:
            if others := sorted(names - {"train", "test"}):
                raise DigitsError(
                    f"{folder / others[0]}: a folder beside train/ and test/; {LAYOUT}"
                )
            class_names = _class_names(folder / "train")
            paths, y_train = _labelled(folder / "train", class_names)
            test_paths, y_test = _labelled(folder / "test", class_names)
            paths, y = paths + test_paths, np.concatenate((y_train, y_test))
            train, test = np.split(np.arange(len(y)), [len(y_train)])
        else:
            class_names = _class_names(folder)
            paths, y = _labelled(folder, class_names)
            if (count := np.bincount(y)).min() < 2:
                raise DigitsError(
                    f"{folder / class_names[count.argmin()]}: one image; expected two or more: one "
                    "to train on, one to test on"
                )
            train, test = _split(y)
        # With the training images in front, both parts are views of one array: no second copy.
        x = _read_images(paths, np.argsort(np.concatenate((train, test))))
    except OSError as error:
        raise DigitsError(f"{error.filename}: {error.strerror}; {LAYOUT}") from error
    except MemoryError as error:
        raise DigitsError(f"{folder}: too large for memory; use fewer or smaller images") from error
    return Dataset(x[: len(train)], y[train], x[len(train) :], y[test], class_names)


def _split(y: Labels) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places to train on and those to test on: of each class a fifth, at least one."""
    is_test = np.zeros(len(y), dtype=bool)
    random = np.random.default_rng(SPLIT_SEED)
    for label in range(y.max() + 1):
        places = random.permutation(np.flatnonzero(y == label))
        is_test[places[: max(1, round(len(places) / 5))]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _visible(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(paths, key=lambda path: path.name)


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in _subfolders(folder))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DigitsError(f"{folder}: {LAYOUT}, 2 to {MOST_CLASSES} classes; got {len(names)}")
    for name in names:
        if not name.isprintable():  # No table could show it, and no JSON in UTF-8 could hold it.
            raise DigitsError(f"{folder}: {name!a}: a class name that cannot be printed; rename it")
    return names


def _labelled(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], Labels]:
    """Return the paths of all images in a folder of class folders, and their labels."""
    paths: list[Path] = []
    y: list[int] = []
    for subfolder in _subfolders(folder):
        if subfolder.name not in class_names:
            raise DigitsError(f"{subfolder}: no such class in train/; expected one of those there")
        images = _image_paths(subfolder)
        if not images:
            raise DigitsError(f"{subfolder}: no image; expected {', '.join(SUFFIXES)} files")
        paths += images
        y += [class_names.index(subfolder.name)] * len(images)
    if not paths:
        raise DigitsError(f"{folder}: no subfolder; expected one of images for each class")
    return paths, np.array(y, dtype=np.uint8)


def _image_paths(folder: Path) -> list[Path]:
    paths: list[Path] = []
    for path in _visible(folder):
        if path.is_dir():
            paths += _image_paths(path)
        elif path.suffix.lower() in SUFFIXES:
            paths.append(path)
    return paths


def _read_images(paths: Sequence[Path], places: NDArray[np.intp]) -> Images:
    """Return the images (n, height, width[, channels]), each at its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which do not matter here.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        x = np.empty((len(paths), *_decode(paths[0]).shape), dtype=np.uint8)
        for path, place in zip(paths, places, strict=True):
            image = _decode(path)
            if image.shape != x.shape[1:]:
                this, others = by(image_shape(image[np.newaxis])), by(image_shape(x))
                raise DigitsError(
                    f"{path}: {this} (height, width, channels), but {others} before it; convert "
                    "all images to one size and mode"
                )
            x[place] = image
    return x


def _decode(path: Path) -> Images:
    """Return the image in a file, (height, width) if grey, else (height, width, 3 or 4)."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode = image.mode
            if mode in MODES:
                target = "RGBA" if mode == "P" and image.has_transparency_data else MODES[mode]
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(image.convert(target))
    except UnidentifiedImageError:
        raise DigitsError(f"{path}: not an image; expected a {', '.join(FORMATS)} file") from None
    except Exception as error:  # Pillow may raise any exception on a damaged file.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DigitsError(f"{path}: cannot be read: {reason or type(error).__name__}") from error
    raise DigitsError(f"{path}: mode {mode}; expected 8-bit grey or colour (L, RGB or RGBA)")
