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
MAIN = "main"  # the project's own environment
REQUIREMENTS = ROOT / "requirements/main.txt"


@dataclass(frozen=True)
class Contender:
    """One entry of contenders.yaml, which explains the attributes."""

    name: str
    title: str
    package: str = ""
    released: str = ""
    file: str = ""
    environment: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    versions: Sequence[str] = ()
    note: str = ""
    verdict: str = ""
    imported: str = ""
    absent: str = ""

    @property
    def path(self) -> Path:
        """The file with the networks as one writes them there."""
        return HERE / "contenders" / self.file

    @property
    def folder(self) -> Path:
        """The folder of the environment, which need not be there."""
        return Path(sys.prefix) if self.environment == MAIN else ENVIRONMENTS / self.environment

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def is_installed(self) -> bool:
        return self.environment == MAIN or _stamp(self).exists()


def contenders(names: Sequence[str] = ()) -> list[Contender]:
    """Return the contenders of contenders.yaml: those of these names, or all.

    Raises:
        DigitsError: there is none of such a name.
    """
    entries = YAML(typ="safe").load((HERE / "contenders.yaml").read_text())
    for name in names:
        if name not in entries:
            raise DigitsError(f"{name}: no such contender; there are {', '.join(entries)}")
    return [
        Contender(name, **{{"import": "imported"}.get(key, key): entry[key] for key in entry})
        for name, entry in entries.items()
        if name in (names or entries)
    ]


def install(contender: Contender) -> str:
    """Make a contender's environment if it is not there, and return why it has none, or "".

    An environment that was made of other requirements is made anew.
    """
    if contender.absent or contender.environment == MAIN:
        return contender.absent
    stamp, digest = _stamp(contender), _digest(contender)
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(contender.folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(contender.folder))
        pip = (str(contender.python), "-m", "pip", "--disable-pip-version-check", "--quiet")
        if reason := _run(*pip, "install", "--requirement", str(_requirements(contender))):
            shutil.rmtree(contender.folder)
            return reason
        files.write_text(stamp, digest)
    return _run(str(contender.python), "-c", f"import {contender.imported or 'numpy'}")


def installed(contender: Contender) -> tuple[str, float]:
    """Return the version of a contender's package, and its environment's unpacked size in MB.

    Of the project's own environment, what is in requirements/main.txt counts.
    """
    path = [str(folder) for folder in contender.folder.glob("lib/python*/site-packages")]
    distributions = {_normal(found.name): found for found in metadata.distributions(path=path)}
    needed = set(distributions) - {"pip", "setuptools"}
    if contender.environment == MAIN:
        needed &= {
            _normal(name) for name in re.findall(r"^[\w.-]+(?===)", REQUIREMENTS.read_text(), re.M)
        }
    size = sum(
        Path(str(file.locate())).stat().st_size
        for name in needed
        for file in distributions[name].files or []
        if Path(str(file.locate())).is_file()
    )
    return distributions[_normal(contender.package)].version, round(size / 1e6)


def _stamp(contender: Contender) -> Path:
    return contender.folder / "requirements.sha256"


def _digest(contender: Contender) -> str:
    return hashlib.sha256(_requirements(contender).read_bytes()).hexdigest()


def _requirements(contender: Contender) -> Path:
    return HERE / "requirements" / f"{contender.environment}.txt"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*command: str) -> str:
    """Run a command; return "" or, without paths, the last error that it names if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    errors = re.findall(r"^(?:\w+(?:Error|Exception)|ERROR|Exception)\b.*", done.stderr, re.M)
    reason = errors[-1] if errors else "it failed without a message"
    return re.split(r":? /", reason)[0] if done.returncode else ""
