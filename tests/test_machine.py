"""What a run records of the code, the experiment and the process that made it."""

import subprocess
from pathlib import Path

import psutil
import pytest

from digits.tracking import machine


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
    assert machine.code() == {
        "git.commit": commit,
        "git.branch": "main",
        "git.dirty": "false",
    }


def test_a_changed_parameter_makes_the_tree_dirty(repository: Path) -> None:
    Path("params.yaml").write_text("seed: 2\n")
    assert machine.code()["git.dirty"] == "true"


def test_only_the_file_of_a_study_makes_the_tree_dirty(repository: Path) -> None:
    Path("studies").mkdir()
    Path("studies/dvc.lock").write_text("of what is running")
    assert machine.code()["git.dirty"] == "false"
    Path("studies/reproduction.yaml").write_text("seeds: {v1: 20}\n")
    assert machine.code()["git.dirty"] == "true"


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git("checkout", "--quiet", "--detach")
    assert machine.code()["git.branch"] == "none: detached head"


def test_a_repository_without_commits_and_no_repository_have_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.code() == {"git.commit": "none"}
    git("init", "--quiet")
    assert machine.code() == {"git.commit": "none"}


def test_a_machine_without_git_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.code() == {"git.commit": "none"}


def test_the_experiment_is_that_of_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wide-newt")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    assert machine.experiment() == {
        "dvc.experiment": "wide-newt",
        "dvc.baseline": "a" * 40,
    }
    monkeypatch.delenv("DVC_EXP_NAME")
    monkeypatch.delenv("DVC_EXP_BASELINE_REV")
    assert machine.experiment() == {}


def test_a_process_has_died_once_it_or_its_number_is_of_another() -> None:
    own = machine.process_id()
    assert not machine.has_died(own)
    host, number, start = own.rsplit(" ", 2)
    assert machine.has_died(f"{host} {number} {float(start) - 1}"), "the number was reused"
    unused = next(number for number in range(2**22, 2**21, -1) if not psutil.pid_exists(number))
    assert machine.has_died(f"{host} {unused} {start}")
    assert not machine.has_died(f"elsewhere {unused} {start}"), "of another machine nobody knows"
    assert not machine.has_died(""), "a run of another tool"


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(process: psutil.Process) -> float:
        raise psutil.AccessDenied

    own = machine.process_id()
    monkeypatch.setattr(psutil.Process, "create_time", deny)
    assert not machine.has_died(own)
