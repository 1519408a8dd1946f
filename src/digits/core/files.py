"""Files: written whole or not at all; what cannot be read is reported in one line."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from digits import DigitsError


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Have `save` write a file beside `path`, then put it in place in one step.

    Whatever stops `save`, `path` keeps its former content. The file keeps its suffix while it is
    being written, and `.partial` in front of it, which .gitignore and .dvcignore know.

    Raises:
        DigitsError: the file could not be written; names it and the system's reason.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        regular(path)  # A device would be replaced by a file.
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        save(partial)
        os.replace(partial, path)
    except OSError as error:
        raise DigitsError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove what a process that was killed had begun to write."""
    for partial in path.parent.glob(f".partial-*-{path.name}*"):  # SQLite has a second file.
        number = partial.name.split("-")[1]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `write`."""
    write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes with `write`."""
    write(path, lambda partial: partial.write_bytes(content))


def regular(path: Path) -> Path:
    """Return a path unless it leads to what is no file: a device may be read without end.

    Raises:
        DigitsError: it is a folder, a device, a pipe or a socket.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device, a pipe or a socket"
        raise DigitsError(f"{path}: expected a file, got {kind}")
    return path


def read_bytes(path: Path) -> bytes | None:
    """Return a file's content; None if there is no such file.

    Raises:
        DigitsError: the file cannot be read.
    """
    try:
        return regular(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror}") from error


def write_columns(path: Path, columns: Mapping[str, Sequence[float | int | str]]) -> None:
    """Write a CSV file with a header line."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def read_columns(path: Path) -> dict[str, list[float]]:
    """Read a CSV file of numbers.

    Raises:
        DigitsError: no such file, or not a table of numbers.
    """
    try:
        text = regular(path).read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("it ends within a line")
        header, *rows = text.split()
        values = [[float(cell) for cell in row.split(",")] for row in rows]
        return {
            n: list(c) for n, c in zip(header.split(","), zip(*values, strict=True), strict=True)
        }
    except (OSError, ValueError) as error:
        raise DigitsError(
            f"{path}: not a CSV file of numbers ({error}); run `dvc repro -f`"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: one key a line, numbers of a list side by side."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    innermost_lists = r"\[\s+([^][{}]*?)\s+\]"
    text = re.sub(innermost_lists, lambda match: "[" + " ".join(match[1].split()) + "]", text)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DigitsError: no such file, or not JSON.
    """
    try:
        return json.loads(regular(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DigitsError(f"{path}: not a JSON file ({error}); run `dvc repro -f`") from error


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an .npy file."""
    write(path, lambda partial: np.save(partial, array))


def read_array(path: Path) -> NDArray[Any]:
    """Read an .npy file.

    Raises:
        DigitsError: no such file, or not an array.
    """
    try:
        array: NDArray[Any] = np.load(regular(path), allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError) as error:
        raise DigitsError(f"{path}: not an array ({error}); run `dvc repro -f`") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
