"""What a run records of the code, the experiment and the process that made it."""

import subprocess
import time

import psutil
import pytest

from digits.tracking import machine


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
    *place, number, start = own.split()

    def with_other(process: object, *where: str) -> str:
        return " ".join([*(where or place), str(process), start])

    assert machine.has_died(" ".join([*place, number, str(float(start) - 1)])), "reused number"
    unused = next(number for number in range(2**22, 2**21, -1) if not psutil.pid_exists(number))
    assert machine.has_died(with_other(unused))
    host, boot, namespace = place
    assert machine.has_died(with_other(number, host, "an-earlier-start", namespace))
    assert not machine.has_died(with_other(unused, "elsewhere/0", boot, namespace)), "who knows?"
    assert not machine.has_died(with_other(unused, host, boot, "pid:[1]")), "in a container"
    assert not machine.has_died(""), "a run of another tool"


def test_a_killed_process_that_its_parent_has_not_asked_for_has_died() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        child = psutil.Process(process.pid)
        own = machine.process_id(child)
        assert not machine.has_died(own)
        process.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert machine.has_died(own)


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(process: psutil.Process) -> float:
        raise psutil.AccessDenied

    own = machine.process_id()
    monkeypatch.setattr(psutil.Process, "create_time", deny)
    assert not machine.has_died(own)
