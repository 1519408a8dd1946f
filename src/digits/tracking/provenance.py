"""What a run records so that `digits reproduce` can repeat its training."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from digits.tracking import machine

RECORD, PATCH = "provenance/training.json", "provenance/uncommitted.patch"
PATCH_DIGEST = "git.patch_sha256"
MAX_PATCH = 2**20  # bytes
# What a training may follow from, relative to the project's folder.
SOURCES = (
    *("src", "params.yaml", "data/*.yaml", "dvc.yaml", "MLproject", "studies/*.yaml"),
    "requirements/main.txt",
)


@dataclass(frozen=True)
class Code:
    """The code that a process runs.

    Attributes:
        tags: commit and branch, whether the sources differ from it, and the SHA-256 of the patch.
        patch: how they differ, untracked files included; empty if they do not.
    """

    tags: Mapping[str, str]
    patch: bytes = b""


def code() -> Code:
    """Return the code of the project in the current folder.

    Without git or a commit, the tag `git.commit` is "none" and there is nothing else.
    """
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return Code({"git.commit": "none"})
    branch, patch = git("branch", "--show-current"), _uncommitted()
    detached = "none: `dvc exp run`" if machine.experiment() else "none: detached head"
    tags = {
        "git.commit": commit.decode().strip(),
        "git.branch": (branch or b"").decode().strip() or detached,
        "git.dirty": str(bool(patch)).lower(),
    }
    if patch:
        tags[PATCH_DIGEST] = hashlib.sha256(patch).hexdigest()
    if len(patch) > MAX_PATCH:
        tags["git.patch"] = f"cut: the first {MAX_PATCH:,} of {len(patch):,} bytes"
    return Code(tags, patch)


def git(*arguments: str, input: bytes = b"", index: Path | None = None) -> bytes | None:
    """Return what git prints; None if it fails or is not installed."""
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        done = subprocess.run(
            ["git", *arguments], input=input, capture_output=True, check=True, env=environment
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _uncommitted() -> bytes:
    """Return the patch from the commit to the sources as they are, without touching git's index."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        git("read-tree", "HEAD", index=index)
        differing = ("--modified", "--others", "--exclude-standard")
        changed = git("ls-files", "-z", *differing, "--", *SOURCES, index=index)
        git("update-index", "-z", "--add", "--remove", "--stdin", input=changed or b"", index=index)
        plain = ("--binary", "--no-color", "--no-ext-diff", "--no-renames", "--full-index")
        prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
        return git("diff", "--cached", *plain, *prefixes, "HEAD", index=index) or b""
