"""The code of a run: its commit, and what was not committed."""

import subprocess
from pathlib import Path

import pytest

from digits.tracking import provenance


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, as current folder."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet", "--initial-branch=main")
    Path("params.yaml").write_text("seed: 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "start")
    return tmp_path


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    Path("notes.txt").write_text("nothing that a run depends on")
    commit = git("rev-parse", "HEAD")
    assert provenance.code().tags == {
        "git.commit": commit,
        "git.branch": "main",
        "git.dirty": "false",
    }


def test_a_changed_parameter_makes_the_tree_dirty(repository: Path) -> None:
    Path("params.yaml").write_text("seed: 2\n")
    assert provenance.code().tags["git.dirty"] == "true"


def test_only_the_file_of_a_study_makes_the_tree_dirty(repository: Path) -> None:
    Path("studies").mkdir()
    Path("studies/dvc.lock").write_text("of what is running")
    assert provenance.code().tags["git.dirty"] == "false"
    Path("studies/reproduction.yaml").write_text("seeds: {v1: 20}\n")
    assert provenance.code().tags["git.dirty"] == "true"


def test_a_detached_head_has_no_branch(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("checkout", "--quiet", "--detach")
    assert provenance.code().tags["git.branch"] == "none: detached head"
    monkeypatch.setenv("DVC_EXP_NAME", "wide")  # DVC detaches the head while an experiment runs.
    assert provenance.code().tags["git.branch"] == "none: `dvc exp run`"


def test_a_repository_without_commits_and_no_repository_have_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.code().tags == {"git.commit": "none"}
    git("init", "--quiet")
    assert provenance.code().tags == {"git.commit": "none"}


def test_a_machine_without_git_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code().tags == {"git.commit": "none"}
