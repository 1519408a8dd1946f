"""The dataset: saved, loaded, checked, split."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digits import DigitsError
from digits.core import dataset
from digits.core.dataset import Dataset


def test_what_is_saved_is_what_is_loaded(tiny: Dataset, tmp_path: Path) -> None:
    dataset.save(tiny, tmp_path / "a.npz")
    loaded = dataset.load(tmp_path / "a.npz")
    assert loaded.digest() == tiny.digest()
    assert loaded.x_train.dtype == np.uint8


def test_the_same_dataset_is_the_same_bytes(tiny: Dataset, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        dataset.save(tiny, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_digest_changes_with_a_single_pixel(tiny: Dataset) -> None:
    x = tiny.x_test.copy()
    x[0, 0, 0] ^= 1
    assert replace(tiny, x_test=x).digest() != tiny.digest()


def test_pixels_are_divided_by_255(tiny: Dataset) -> None:
    pixels = dataset.pixels(tiny.x_test)
    assert pixels.shape == (20, 28, 28, 1)
    assert pixels.dtype == np.float32
    assert pixels.max() == 1.0


@pytest.mark.parametrize("damage", ["cut", "html", "flipped", "missing key", "absent"])
def test_a_damaged_file_is_named_and_refused(damage: str, tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    dataset.save(tiny, path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "html":
        path.write_text("<html>404</html>")
    elif damage == "flipped":
        content[5000] ^= 1
        path.write_bytes(content)
    elif damage == "missing key":
        np.savez(path, x_train=tiny.x_train)
    else:
        path.unlink()
    with pytest.raises(DigitsError, match=r"mnist\.npz: .*dvc repro") as error:
        dataset.load(path)
    assert "\n" not in str(error.value)


LABELS = np.arange(80, dtype=np.uint8) % 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_train": np.zeros((80, 27, 28), np.uint8)},
            "here: expected training and test images of one size, got 27×28×1 and 28×28×1",
        ),
        ({"x_train": np.zeros((80, 28), np.uint8)}, "x_train: expected (n, height, width) or"),
        ({"x_test": np.zeros((20, 28, 28), np.float32)}, "x_test: expected (n, height, width) or"),
        ({"x_test": np.zeros((20, 28, 28), np.uint16)}, "uint8, got (20, 28, 28) uint16"),
        ({"y_train": LABELS[:79]}, "y_train: expected (80,) integers, got (79,) uint8"),
        ({"y_train": LABELS.astype(np.float32)}, "y_train: expected (80,) integers, got (80,) fl"),
        ({"y_train": LABELS * 0}, "y_train: expected two classes or more, got one: label 0"),
        ({"y_train": LABELS // 5 * 5}, "number of classes - 1, got 5 as the greatest, but 1 never"),
        ({"y_train": LABELS.astype(int) * 50}, "labels from 0 to at most 255, got 0 to 450"),
        (
            {"y_test": np.full(20, 10, np.uint8)},
            "y_test: expected labels from 0 to 9, as in y_train, got 10",
        ),
        ({"class_names": ("a", "b")}, "class_names: expected 10, got 2"),
    ],
)
def test_what_is_not_labelled_images_is_refused(
    change: dict[str, Any], message: str, tiny: Dataset
) -> None:
    with pytest.raises(DigitsError, match=re.escape(message)) as error:
        dataset.check(replace(tiny, **change), "here")
    assert "\n" not in str(error.value)


def test_shape_classes_and_names_follow_from_the_data(tmp_path: Path) -> None:
    path = tmp_path / "colours.npz"
    x, y = np.zeros((6, 5, 7, 3), np.uint8), np.array([[0], [1], [2]] * 2)
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], class_names=list("abc"))
    colours = dataset.load(path)
    assert (colours.image_shape, colours.classes) == ((5, 7, 3), 3)
    assert colours.class_names == ("a", "b", "c")
    assert colours.y_train.dtype == np.uint8
    assert colours.y_train.tolist() == [0, 1, 2] * 2
    dataset.save(colours, tmp_path / "again.npz")
    assert dataset.load(tmp_path / "again.npz").class_names == ("a", "b", "c")
    assert dataset.pixels(colours.x_train).shape == (6, 5, 7, 3)
    grey = dataset.check(replace(colours, x_train=x[..., :1], x_test=x[:1, ..., :1]), "here")
    assert (grey.x_train.shape, grey.image_shape) == ((6, 5, 7), (5, 7, 1))


def test_images_of_different_sizes_are_refused_as_such(tmp_path: Path) -> None:
    mixed = np.empty(2, object)
    mixed[:] = [np.zeros((8, 8)), np.zeros((9, 9))]
    np.savez(tmp_path / "mixed.npz", allow_pickle=True, x_train=mixed)
    with pytest.raises(DigitsError, match=r"mixed\.npz: .* not all of one size"):
        dataset.load(tmp_path / "mixed.npz")


def test_held_out_images_are_stratified_seeded_and_disjoint() -> None:
    y = np.random.default_rng(0).integers(0, 10, 6000).astype(np.uint8)
    train, held_out = dataset.hold_out(y, 1000, seed=1)
    assert len(held_out) == 1000
    assert sorted([*train, *held_out]) == list(range(6000))
    shares = np.bincount(y[held_out]) - np.bincount(y) / 6
    assert np.abs(shares).max() <= 1
    np.testing.assert_array_equal(held_out, dataset.hold_out(y, 1000, seed=1)[1])
    assert set(held_out) != set(dataset.hold_out(y, 1000, seed=2)[1])
    folds = [dataset.hold_out(y, 1000, 1, fold)[1] for fold in range(6)]
    assert sorted(np.concatenate(folds)) == list(range(6000)), "folds share no image"
    with pytest.raises(DigitsError, match="folds: expected at most 6 disjoint sets"):
        dataset.hold_out(y, 1000, seed=1, fold=6)


def test_holding_out_none_keeps_all_and_all_is_refused() -> None:
    y = np.zeros(5, np.uint8)
    assert [len(part) for part in dataset.hold_out(y, 0, seed=1)] == [5, 0]
    with pytest.raises(DigitsError, match=r"data\.validation: expected less than the 5"):
        dataset.hold_out(y, 5, seed=1)


X, Y = np.zeros((3, 28, 28), np.uint8), np.array([1, 2, 3])


def test_labelled_images_have_the_keys_of_mnist_or_x_and_y(tmp_path: Path, tiny: Dataset) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, x=X, y=Y)
    x, y = dataset.load_labelled(path)
    assert x.shape == (3, 28, 28)
    assert y.dtype == np.uint8
    assert y.tolist() == [1, 2, 3]
    assert not dataset.has_training_images(path)
    dataset.save(tiny, path)
    assert dataset.has_training_images(path)
    assert (dataset.load_labelled(path)[1] == tiny.y_test).all()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"a": X}, "expected the keys x and y, or x_test and y_test; got a"),
        ({"x": X / 255, "y": Y}, r"x: expected .* uint8, got \(3, 28, 28\) float64"),
        ({"x": X[:, 0], "y": Y}, r"x: expected .* uint8, got \(3, 28\) uint8"),
        ({"x": X[:0], "y": Y[:0]}, "x: expected"),
        ({"x": X, "y": Y[:2]}, r"y: expected \(3,\) integers, got \(2,\)"),
        ({"x": X, "y": Y / 2}, r"y: expected \(3,\) integers, got \(3,\) float64"),
        ({"x": X, "y": Y - 2}, "y: expected labels from 0 to at most 255, got -1 to 1"),
    ],
)
def test_images_that_are_not_labelled_are_refused(
    tmp_path: Path, arrays: dict[str, object], reason: str
) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(DigitsError, match=f"some.npz: {reason}"):
        dataset.load_labelled(path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    with pytest.raises(DigitsError, match=r"some.npz: cannot be read"):
        dataset.load_labelled(path)
    path.write_text("x, y")
    assert not dataset.has_training_images(path)
    with pytest.raises(DigitsError, match=r"some.npz: not a whole .npz file"):
        dataset.load_labelled(path)


def test_what_an_archive_claims_to_hold_is_not_allocated(tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    shape = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
    members: dict[str, bytes] = {}
    for name, content in (("text", b"no array"), ("header", io.BytesIO())):
        if isinstance(content, io.BytesIO):
            np.lib.format.write_array_header_1_0(content, shape)
            content = content.getvalue()
        members[name] = content
    for content, reason in (
        (members["text"], "not a whole .npz file"),
        (members["header"], r"x.npy is shorter than its \(1000000000, 28, 28\) uint8"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(DigitsError, match=reason) as error:
            dataset.load_labelled(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_compression_is_one_line(method: int, tiny: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    dataset.save(tiny, path)
    with zipfile.ZipFile(path) as whole:
        arrays = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            archive.writestr(name, array)
    content = bytearray(path.read_bytes())
    content[2000:2040] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DigitsError, match=r"images.npz: (not a whole|cannot be read)") as error:
        dataset.load(path)
    assert "\n" not in str(error.value)
