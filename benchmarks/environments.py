"""The contenders of `make frameworks`, and the environment that each is run in."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ruamel.yaml import YAML

from digits import DigitsError
from digits.core import files

ROOT = Path(__file__).parent.parent
HERE = ROOT / "benchmarks/frameworks"
WORKER = HERE / "worker.py"
ENVIRONMENTS = ROOT / ".venv/frameworks"
REQUIREMENTS = ROOT / "requirements/main.txt"
OURS = "ours"  # is run in the project's own environment


@dataclass(frozen=True)
class Contender:
    """One entry of contenders.yaml, which explains the attributes."""

    name: str
    title: str
    verdict: str = ""
    package: str = ""
    released: str = ""
    file: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    versions: Sequence[str] = ()
    module: str = "numpy"
    absent: str = ""

    @property
    def path(self) -> Path:
        """Return the file with the networks as one writes them there."""
        return HERE / "contenders" / self.file

    @property
    def environment(self) -> Path:
        """Return the folder of the environment, which need not be there."""
        return Path(sys.prefix) if self.name == OURS else ENVIRONMENTS / self.name

    @property
    def python(self) -> Path:
        """Return the interpreter of the environment."""
        return self.environment / "bin/python"

    @property
    def requirements(self) -> Path:
        """Return the file with the pinned packages of the environment."""
        return HERE / "requirements" / f"{self.name}.txt"

    @property
    def is_installed(self) -> bool:
        """Tell whether the environment is there, made of these requirements."""
        stamp = _stamp(self)
        return self.name == OURS or (stamp.exists() and stamp.read_text() == _digest(self))


def contenders(names: Sequence[str] = ()) -> list[Contender]:
    """Return the contenders of contenders.yaml: those of these names, or all.

    Raises:
        DigitsError: there is none of such a name.
    """
    entries = YAML(typ="safe").load((HERE / "contenders.yaml").read_text())
    for name in names:
        if name not in entries:
            raise DigitsError(f"{name}: no such contender; there are {', '.join(entries)}")
    return [Contender(name, **entries[name]) for name in entries if name in (names or entries)]


def install(contender: Contender) -> str:
    """Make a contender's environment if it is not there, and return why it has none, or "".

    An environment that was made of other requirements is made anew.
    """
    if contender.absent or contender.name == OURS:
        return contender.absent
    if not contender.is_installed:
        shutil.rmtree(contender.environment, ignore_errors=True)
        pip = (str(contender.python), "-m", "pip", "--disable-pip-version-check", "--quiet")
        for command in (
            (sys.executable, "-m", "venv", str(contender.environment)),
            (*pip, "install", "--requirement", str(contender.requirements)),
        ):
            if reason := _run(*command):
                shutil.rmtree(contender.environment, ignore_errors=True)
                return reason
        files.write_text(_stamp(contender), _digest(contender))
    reason = _run(str(contender.python), "-c", f"import {contender.module}")
    return reason or ("" if contender.file else "can be imported, but no one wrote its networks")


def installed(contender: Contender) -> tuple[str, int]:
    """Return the version of a contender's package, and its environment's unpacked size in MB.

    Of the project's own environment, what is in requirements/main.txt counts. Compiled Python files
    do not, since not all installers list them.
    """
    path = [str(folder) for folder in contender.environment.glob("lib/python*/site-packages")]
    distributions = {_normal(each.name): each for each in metadata.distributions(path=path)}
    needed = set(distributions) - {"pip", "setuptools"}
    if contender.name == OURS:
        pinned = re.findall(r"^[\w.-]+(?===)", REQUIREMENTS.read_text(), re.M)
        needed &= set(map(_normal, pinned))
    paths = (
        Path(str(file.locate()))
        for name in needed
        for file in distributions[name].files or []
        if file.suffix != ".pyc"
    )
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return distributions[_normal(contender.package)].version, round(size / 1e6)


def _stamp(contender: Contender) -> Path:
    return contender.environment / "requirements.sha256"


def _digest(contender: Contender) -> str:
    return hashlib.sha256(contender.requirements.read_bytes()).hexdigest()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*command: str) -> str:
    """Run a command; return "" or, without paths, the last error that it names if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return last_error(done.stderr) if done.returncode else ""


def last_error(text: str) -> str:
    """Return the last error of what a process printed, or else its last line, without paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"([\w.]*(Error|Exception)|ERROR)\b", line)]
    line = [*lines, *errors][-1] if lines else "no message"
    return re.split(r":? /", line)[0][:200]
