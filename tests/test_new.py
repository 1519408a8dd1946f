"""`digits new`: a project of one's own, whole or not at all, that passes its own tests."""

import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from commands import invoke
from conftest import ROOT, run

from digits.core import config
from digits.tracking import local_store

TEMPLATE = (ROOT / "template/params.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, idx_folder: Path) -> Path:
    """A new project for the tiny images."""
    folder = tmp_path_factory.mktemp("with a space")
    done = invoke(folder, "new", "own", "--dataset", str(idx_folder))
    assert done.exit_code == 0, done.output
    return folder / "own"


def files_of(folder: Path) -> list[str]:
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.startswith(".git/"))


def test_a_project_has_the_pipeline_and_nothing_of_the_results_studies_and_docs(
    project: Path,
) -> None:
    own = {"params.yaml", "Makefile", "README.md", "tests/test_stages.py"}
    shortened = {"dvc.yaml", "MLproject", "pyproject.toml"}
    names = set(files_of(project))
    assert own | shortened < names
    for name in names - own - shortened:
        assert (project / name).read_bytes() == (ROOT / name).read_bytes(), name
    assert {name.split("/")[0] for name in names - own - shortened} == {
        *("src", "requirements", "data", ".dvc", "python_env.yaml", "LICENSE"),
        *(".gitignore", ".dvcignore", ".editorconfig"),
    }
    assert "src/digits/tracking/templates/run.md.j2" in names


def test_a_project_has_nothing_of_2018_but_the_code_that_could_compare_with_it(
    project: Path,
) -> None:
    texts = {name: (project / name).read_text(encoding="utf-8") for name in files_of(project)}
    words = re.compile(r"\b2018\b|reference", re.I)
    assert [n for n, text in texts.items() if not n.startswith("src/") and words.search(text)] == []


@pytest.mark.parametrize(("name", "key"), [("dvc.yaml", "stages"), ("MLproject", "entry_points")])
def test_every_stage_and_entry_point_is_there(project: Path, name: str, key: str) -> None:
    here, there = (yaml.safe_load((folder / name).read_text())[key] for folder in (ROOT, project))
    assert list(here) == list(there)


def test_a_project_and_its_experiment_in_mlflow_have_the_name_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(tmp_path, "new", "my photos: 2").exit_code == 0
    file = tmp_path / "my photos: 2/MLproject"
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["name"] == "my-photos-2"
    monkeypatch.setattr(local_store, "PROJECT", file)
    assert local_store.project_name() == "my-photos-2"


def test_without_a_dataset_the_images_are_those_of_mnist(tmp_path: Path) -> None:
    assert invoke(tmp_path, "new", "own").exit_code == 0
    assert (tmp_path / "own/params.yaml").read_text(encoding="utf-8") == TEMPLATE
    assert config.load(tmp_path / "own/params.yaml").data.is_mnist
    here, there = (path / "data/mnist.yaml" for path in (ROOT, tmp_path / "own"))
    assert there.read_text(encoding="utf-8") == here.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dataset", "written"),
    [
        ("my photos", "../../my photos"),
        ("{cwd}/my photos", "{cwd}/my photos"),
        ("~/my photos", "{cwd}/my photos"),
    ],
)
def test_the_dataset_is_written_as_the_new_folder_sees_it(
    tmp_path: Path, dataset: str, written: str
) -> None:
    for name in ("my photos", "projects"):
        (tmp_path / name).mkdir()
    dataset, written = (text.format(cwd=tmp_path) for text in (dataset, written))
    done = invoke(tmp_path, "new", "projects/own", "--dataset", dataset, HOME=str(tmp_path))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "projects/own/params.yaml").read_text(encoding="utf-8")
    assert text == TEMPLATE.replace("dataset: data/mnist.yaml", f'dataset: "{written}"')
    assert config.load(tmp_path / "projects/own/params.yaml").data.dataset == written


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["full"], "full: not empty; name a new folder or an empty one"),
        (["full/file"], "full/file: a file; name a new folder or an empty one"),
        (["none/own"], "none/own: there is no folder {cwd}/none; make it first"),
        (["own", "--dataset", "none"], "--dataset: no such file or folder: none"),
        (["own", "--dataset", ""], "--dataset: no such file or folder: the path is empty"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], line: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = invoke(tmp_path, "new", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"digits: {line.format(cwd=tmp_path)}\n"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "full", tmp_path / "full/file"]


@pytest.mark.parametrize("folder", ["own", "empty"])
def test_a_failure_leaves_nothing(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()

    copyfile = shutil.copyfile

    def copy_until_the_disk_is_full(source: Path, target: Path) -> None:
        if source.name == "Makefile":
            raise OSError(28, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_until_the_disk_is_full)
    done = invoke(tmp_path, "new", folder)
    assert done.exit_code == 1
    assert done.stderr == (
        f"digits: {folder}: the project cannot be made: No space left on device\n"
    )
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_project_is_a_git_repository_unless_it_lies_in_one(tmp_path: Path) -> None:
    done = invoke(tmp_path, "new", "own")
    assert "a git repository, in which nothing is committed yet" in done.stdout
    assert "next:\n  cd own\n  make env" in done.stdout
    (tmp_path / "own/.gitignore").write_text("/ignored/\n")

    (tmp_path / "own/inner").mkdir()
    done = invoke(tmp_path / "own/inner", "new", ".")
    assert "made .; it belongs to the git repository around it" in done.stdout
    assert not (tmp_path / "own/inner/.git").exists()

    assert invoke(tmp_path / "own", "new", "ignored").exit_code == 0
    assert (tmp_path / "own/ignored/.git").exists(), "which DVC demands of its files"


def test_without_git_dvc_is_set_to_work_without_it(tmp_path: Path) -> None:
    done = invoke(tmp_path, "new", "own", PATH=str(tmp_path))
    assert "git is not installed, and .dvc/config.local has DVC work without it" in done.stdout
    shown = run(tmp_path / "own", "dvc", "config", "core.no_scm")
    assert shown.stdout.strip() == "true"


def test_in_a_project_that_it_made_the_command_says_where_to_go(project: Path) -> None:
    done = run(project, "python", "-m", "digits", "new", "next", PYTHONPATH="src")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "template: no such folder; run `digits new` of a clone of digits" in line


def test_make_test_passes_in_a_project(project: Path, tmp_path: Path) -> None:
    """In this environment, and with a copy of our mypy cache, which saves time."""
    with suppress(shutil.Error, FileNotFoundError):
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / "mypy")
    done = run(
        project,
        *("make", "--no-print-directory", "--assume-old=.venv/dev.done", "test"),
        **{"MAKEFLAGS": "", "PYTHONPATH": str(project / "src")},
        MYPY_CACHE_DIR=str(tmp_path / "mypy"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^=+ \d passed in ", done.stdout, re.M)
