"""What a result was computed on and with."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow", "dvc")


def libraries(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """The version of each library that is there; by default, those a result may depend on."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Processor, cores that this process may use, memory, system, Python and today's date."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(usable),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def code() -> dict[str, str]:
    """The git commit and branch of the current folder, and whether what is there differs from it.

    Only code and parameters count. Without git or a commit, `git.commit` is "none".
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"git.commit": "none"}
    branch = _git("branch", "--show-current") or "none: detached head"
    changed = _git(
        "status", "--porcelain", "--", "src", "params.yaml", "dvc.yaml", "ensemble", "MLproject"
    )
    return {"git.commit": commit, "git.branch": branch, "git.dirty": str(bool(changed)).lower()}


def experiment() -> dict[str, str]:
    """DVC's names of the experiment that this is part of and of the commit that it started from."""
    told = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in told.items() if os.environ.get(name)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
