"""Where MLflow says a run's images come from, and how anyone gets them from there."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from commands import invoke, train_command
from conftest import environment, make_project, run

from digits import DigitsError
from digits.core import dataset
from digits.core.dataset import Dataset
from digits.tracking import dvc_source
from digits_mlflow import DvcSource

DATA = "data/mnist.npz"


def git(folder: Path, *arguments: str) -> str:
    user = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(
        ["git", *user, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project whose images are fetched, committed and pushed, with a remote of git and of DVC."""
    folder = make_project(tmp_path_factory.mktemp("source") / "project", idx_folder, checksums)
    for command in (
        ["dvc", "remote", "add", "--default", "storage", str(folder.with_name("storage"))],
        ["dvc", "repro", "fetch"],
        ["dvc", "push"],
    ):
        done = run(folder, *command)
        assert done.returncode == 0, done.stderr
    git(folder, "commit", "--quiet", "--all", "--message", "remote")
    git(folder, "add", "dvc.lock")
    git(folder, "commit", "--quiet", "--message", "images")
    git(folder, "clone", "--quiet", "--bare", ".", "../origin.git")
    git(folder, "remote", "add", "origin", str(folder.with_name("origin.git")))
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, as the current folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(project)
    yield project
    mlflow.set_tracking_uri(None)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def found(images: Dataset, file: Path | None = Path(DATA)) -> DvcSource:
    source = dvc_source.find(images, file, Path.cwd())
    assert source is not None
    return source


def test_a_training_records_a_source_that_gives_the_file_in_a_fresh_process(here: Path) -> None:
    trained = invoke(here, *train_command("v1"))
    assert trained.exit_code == 0, trained.output
    script = (
        "import mlflow, sys\n"
        "assert 'digits' not in sys.modules, 'a logged model brings its own'\n"
        "(run,) = mlflow.search_runs(search_all_experiments=True, output_format='list')\n"
        "for part in run.inputs.dataset_inputs:\n"
        "    print(mlflow.data.get_source(part).load())"
    )
    uri = f"sqlite:///{here}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(MLFLOW_TRACKING_URI=uri),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(here / DATA)] * 2


def test_the_source_is_path_md5_repository_and_revision(here: Path, tiny: Dataset) -> None:
    expected = {
        "path": DATA,
        "md5": md5(here / DATA),
        "repository": str(here.with_name("origin.git")),
        "revision": git(here, "rev-parse", "HEAD"),
    }
    assert found(tiny).to_dict() == expected
    assert found(tiny, file=None).to_dict() == expected, "of images that were fetched into memory"


@pytest.mark.parametrize(
    ("address", "recorded"),
    [
        ("https://me:secret@example.org/digits.git", "https://example.org/digits.git"),
        ("https://secret@example.org:8443/digits.git", "https://example.org:8443/digits.git"),
        ("ssh://git:secret@example.org/digits.git", "ssh://git@example.org/digits.git"),
        ("git@example.org:team/digits.git", "git@example.org:team/digits.git"),
    ],
)
def test_the_repository_is_recorded_without_a_password(
    address: str, recorded: str, here: Path, tiny: Dataset
) -> None:
    before = git(here, "remote", "get-url", "origin")
    git(here, "remote", "set-url", "origin", address)
    try:
        assert found(tiny).repository == recorded
    finally:
        git(here, "remote", "set-url", "origin", before)


def test_images_that_dvc_does_not_know_have_no_such_source(
    here: Path, tiny: Dataset, tmp_path: Path
) -> None:
    fewer = Dataset(tiny.x_train, tiny.y_train, tiny.x_test[:10], tiny.y_test[:10])
    dataset.save(fewer, tmp_path / "fewer.npz")
    assert dvc_source.find(fewer, None, here) is None
    assert dvc_source.find(fewer, tmp_path / "fewer.npz", here) is None


def test_the_file_is_that_in_place_or_else_in_dvcs_cache_or_in_its_remote(
    here: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = found(tiny)
    monkeypatch.chdir(here / "src")
    assert source.load() == here / DATA
    shutil.move(here / DATA, here / "data/elsewhere.npz")
    try:
        (here / DATA).write_bytes(b"another file")
        cached = source.load()
        assert cached.is_relative_to(here / ".dvc/cache")
        assert md5(cached) == source.md5
        shutil.rmtree(here / ".dvc/cache")
        assert source.load() == cached, "from the remote"
        assert md5(cached) == source.md5
    finally:
        shutil.move(here / "data/elsewhere.npz", here / DATA)


def test_outside_of_the_project_the_file_comes_from_its_repository(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = found(tiny)
    monkeypatch.chdir(tmp_path)
    assert md5(source.load()) == source.md5


def test_a_project_in_a_folder_of_a_repository_has_its_source_there(
    here: Path, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a remote of git, the repository is the local one."""
    folder = tmp_path / "repository" / "digits"
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns(".git", "mlflow*", "mlruns"))
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message", "start")
    monkeypatch.chdir(folder)
    source = found(tiny)
    assert (source.path, source.repository) == (f"digits/{DATA}", str(folder.parent))
    assert source.load() == folder / DATA
    os.unlink(folder / DATA)
    monkeypatch.chdir(tmp_path)
    assert md5(source.load()) == source.md5


def test_a_file_that_is_nowhere_is_one_line_with_what_to_do(
    tiny: Dataset, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = found(tiny)
    gone = DvcSource(known.path, "0" * 32, known.repository, known.revision)
    for folder in (here, tmp_path):
        monkeypatch.chdir(folder)
        with pytest.raises(DigitsError, match=rf"{DATA} with MD5 0+: .*`dvc pull`") as error:
            gone.load()
        assert "\n" not in str(error.value)
