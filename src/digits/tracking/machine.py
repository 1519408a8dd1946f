"""What a result was computed with: the machine, the libraries, the code and the process."""

import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow", "dvc")
SOURCES = ("src", "params.yaml", "dvc.yaml", "studies/*.yaml", "MLproject")


def libraries(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the version of each library that is installed; by default, of those that matter."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def machine() -> dict[str, str]:
    """Return processor, usable cores, memory, system, Python's version and today's date (UTC)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def code() -> dict[str, str]:
    """Return the git commit and branch of the current folder, and whether sources differ from it.

    Without git or a commit, `git.commit` is "none" and there is nothing else.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"git.commit": "none"}
    return {
        "git.commit": commit,
        "git.branch": _git("branch", "--show-current") or "none: detached head",
        "git.dirty": str(bool(_git("status", "--porcelain", "--", *SOURCES))).lower(),
    }


def experiment() -> dict[str, str]:
    """Return DVC's names of the running experiment and of the commit that it is based on."""
    variables = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in variables.items() if os.environ.get(name)}


def process_id(process: psutil.Process | None = None) -> str:
    """Return an id of this process, or another, that no other has: host, number, time of start."""
    process = process or psutil.Process()
    return f"{platform.node()} {process.pid} {process.create_time():.1f}"


def has_died(process_id: str) -> bool:
    """Tell whether a process of this host has ended; False for one of another host."""
    host, _, number_and_start = process_id.partition(" ")
    if host != platform.node():
        return False
    number, start = number_and_start.split()
    try:
        return f"{psutil.Process(int(number)).create_time():.1f}" != start
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
