"""What a result was computed with: the machine, the libraries and the process."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow", "dvc")


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


def experiment() -> dict[str, str]:
    """Return DVC's names of the running experiment and of the commit that it is based on."""
    variables = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in variables.items() if os.environ.get(name)}


def process_id(process: psutil.Process | None = None) -> str:
    """Return an id of this process, or another, that no other has.

    Its parts are host, boot and PID namespace, the process's number and its start. Containers of
    one host may share all but the namespace, in which the numbers are others.
    """
    process = process or psutil.Process()
    return f"{_host()} {_boot()} {_namespace()} {process.pid} {process.create_time():.1f}"


def has_died(process_id: str) -> bool:
    """Tell whether a process has ended; False where that cannot be decided from here."""
    parts = process_id.split()
    if len(parts) != 5 or parts[0] != _host():
        return False
    _, boot, namespace, number, start = parts
    if boot != _boot():
        return True  # The machine was started again.
    if namespace != _namespace():
        return False
    try:
        process = psutil.Process(int(number))
        # Killed, a process stays a zombie until its parent asks for its status.
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return is_zombie or f"{process.create_time():.1f}" != start
    except psutil.Error as error:
        return isinstance(error, psutil.NoSuchProcess)


def mlflow_run() -> psutil.Process | None:
    """Return the `mlflow run` in which this process runs; None if there is none."""
    return next(filter(_is_mlflow_run, psutil.Process().parents()), None)


def runs_mlflow_since(start: float) -> bool:
    """Tell whether any `mlflow run` here was there at a time, in seconds since 1970."""
    return any(
        _is_mlflow_run(process) and process.create_time() < start
        for process in psutil.process_iter()
    )


def _is_mlflow_run(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "run" in words and any(Path(word).name == "mlflow" for word in words)


def _host() -> str:
    """Return this machine's name and, where it has one, the start of its id."""
    return f"{platform.node()}/{_first_line('/etc/machine-id')[:8]}"


def _boot() -> str:
    """Return an id that is another after each start of the machine."""
    return _first_line("/proc/sys/kernel/random/boot_id") or "unknown"


def _namespace() -> str:
    """Return the namespace of process numbers that this process is in."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # There is no /proc, and there are no namespaces.
        return "none"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
