"""A DVC remote: what one clone trains and pushes, another pulls and predicts with."""

import getpass
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from conftest import digits, environment, free_port, make_project, run
from PIL import Image
from study_project import wait_until

from digits.core.dataset import Dataset

pytestmark = pytest.mark.study
Options = dict[str, str]  # what `dvc remote modify` sets
KEY = {"AWS_ACCESS_KEY_ID": "digits", "AWS_SECRET_ACCESS_KEY": "of this test"}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project whose trained network is in its cache alone: the rest is in git."""
    folder = tmp_path_factory.mktemp("with a space") / "first"
    make_project(folder, idx_folder, checksums)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"versions": ["v1"]}))
    expect(folder, "dvc", "repro")
    commit(folder)
    return folder


def expect(folder: Path, *command: str, **variables: str) -> str:
    """What a command prints, which must succeed."""
    done = run(folder, *command, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path) -> None:
    expect(folder, "git", "add", ".")
    expect(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "more")


@contextmanager
def process(folder: Path, *command: str) -> Iterator[None]:
    """A process in the background, ended at the end."""
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        yield
    finally:
        started.kill()
        started.wait()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[tuple[str, Options]]:
    """A bucket in S3-compatible storage on loopback."""
    for name in ("dvc_s3", "moto"):
        pytest.importorskip(name, reason="`make test-study` installs it")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with process(tmp_path, sys.executable, "-m", "moto.server", "--port", str(port)):
        wait_until(lambda: answers(f"{endpoint}/bucket"))
        yield "s3://bucket/dvc", {"endpointurl": endpoint}


def answers(bucket: str) -> bool:
    """Make a bucket, if the server is there."""
    try:
        return requests.put(bucket, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[tuple[str, Options]]:
    """A folder of a machine that is reached by SSH: this one, as the present user."""
    pytest.importorskip("dvc_ssh", reason="`make test-study` installs it")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    is_root = os.geteuid() == 0
    if sshd is None or (is_root and "sshd" not in {user.pw_name for user in pwd.getpwall()}):
        pytest.skip("needs sshd: apt-get install openssh-server")
    if is_root:  # sshd changes its root to this folder, which a service would make.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        expect(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
    port = free_port()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "user.pub",
        "PasswordAuthentication": "no",
        "StrictModes": "no",  # All may write to the folder of temporary files.
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    lines = (f"{name} {value}\n" for name, value in settings.items())
    (tmp_path / "config").write_text("".join(lines))
    with process(tmp_path, sshd, "-D", "-e", "-f", str(tmp_path / "config")):
        wait_until(lambda: "listening" in (tmp_path / "log").read_text())
        remote = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/dvc"
        yield remote, {"keyfile": str(tmp_path / "user")}


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_a_clone_pulls_what_another_pushed_and_predicts_without_training(
    kind: str, project: Path, tiny: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote, options = request.getfixturevalue(kind)
    home = {"HOME": str(tmp_path)}  # where clients look for keys and settings
    expect(project, "dvc", "remote", "add", "--force", "--default", "team", remote)
    for name, value in options.items():
        expect(project, "dvc", "remote", "modify", "team", name, value)
    commit(project)
    assert "pushed" in expect(project, "dvc", "push", **KEY, **home)

    clone = tmp_path / "second"
    expect(tmp_path, "git", "clone", "--quiet", str(project), str(clone))
    assert not (clone / "data/models").exists()
    assert "fetched" in expect(clone, "dvc", "pull", **KEY, **home)
    Image.fromarray(255 - tiny.x_test[3]).save(clone / "three.png")
    predicted = digits(clone, "predict", "three.png", "--csv")
    assert predicted.stderr == "digits: data/models/v1.keras\n"
    assert predicted.stdout.splitlines()[1].startswith("three.png,")
    for name in ("data/models/v1.keras", "data/mnist.npz"):
        assert (clone / name).read_bytes() == (project / name).read_bytes()
    assert "up to date" in expect(clone, "dvc", "status"), "Nothing is left to train."
    assert not (clone / "mlflow.db").exists()
