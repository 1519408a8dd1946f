"""Find out where DVC has the images of a training."""

import re
import tempfile
from pathlib import Path

import mlflow  # noqa: F401  Before its entry point, which it imports while it is imported.

from digits.core import config, dataset
from digits.core.dataset import Dataset
from digits.tracking.provenance import git
from digits_mlflow import DvcSource, md5

LOCK = Path("dvc.lock")


def find(images: Dataset, file: Path | None, root: Path) -> DvcSource | None:
    """Return the source of images if dvc.lock in the current folder names it.

    Args:
        file: that the images were read from; None if they were fetched into memory.
        root: the project's folder, even where DVC runs in a copy of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        if file is None:
            file = Path(folder) / "images.npz"
            dataset.save(images, file)
        digest = md5(file)
    path = next((path for path, recorded in _outputs() if recorded == digest), None)
    if path is None:
        return None
    at = ("-C", str(root))
    prefix = _line(*at, "rev-parse", "--show-prefix") or ""
    origin = _line(*at, "remote", "get-url", "origin")
    local = _line(*at, "rev-parse", "--show-toplevel") or str(root)
    repository = _without_password(origin) if origin else local
    return DvcSource(prefix + path, digest, repository, _line("rev-parse", "HEAD"))


def _outputs() -> list[tuple[str, str]]:
    """Return path and MD5 of what the stages in dvc.lock write."""
    lock = config.read(LOCK) if LOCK.exists() else {"stages": {}}
    try:
        outputs = [output for stage in lock["stages"].values() for output in stage.get("outs", [])]
        return [(output["path"], output["md5"]) for output in outputs]
    except (AttributeError, LookupError, TypeError):  # not as DVC writes it
        return []


def _without_password(address: str) -> str:
    """Return the address of a repository without its password, or what may be one."""
    # Of https:// the user's name may be a token. Of ssh:// it is needed.
    address = re.sub(r"^(https?://)[^/]*@", r"\1", address)
    return re.sub(r"^(\w+://[^/:@]*):[^/]*@", r"\1@", address)


def _line(*arguments: str) -> str | None:
    answer = git(*arguments)
    return answer.decode().strip() if answer else None
