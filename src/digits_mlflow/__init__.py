"""MLflow's entry point `mlflow.dataset_source` of this project: where DVC has the images of a run.

MLflow imports this module whenever it is imported itself. So it is no part of `digits`: where
MLflow loads a model of ours, that package is to be the copy that was logged with the model.
"""

import hashlib
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource


class DvcSource(DatasetSource):  # type: ignore[misc]
    """A file that a DVC pipeline wrote.

    Attributes:
        path: of the file, relative to the repository's folder.
        md5: of its content, as in dvc.lock.
        repository: git's remote `origin`, without a password, or else the local folder.
        revision: the commit that was checked out; None without git.
    """

    def __init__(self, path: str, md5: str, repository: str, revision: str | None) -> None:
        self.path, self.md5, self.repository, self.revision = path, md5, repository, revision

    def load(self) -> Path:
        """Return the path of a local file with this content.

        It is the file in place or in DVC's cache, if this is run in a clone of the project, where
        DVC's remote is asked too. Else a new file in a temporary folder, from the repository.

        Raises:
            DigitsError: the file is in none of them.
        """
        from digits.tracking.errors import in_one_line

        here = Path.cwd()
        for path in (folder / self.path for folder in (here, *here.parents)):
            if self._is_at(path):
                return path
        file = f"{self.path} with MD5 {self.md5}"
        hint = "; in a clone of the project, `dvc pull` or `dvc repro fetch` may give it"
        with in_one_line(f"{file}: neither here nor in the repository", hint):
            return self._cached() or self._downloaded()

    def _cached(self) -> Path | None:
        """Return the path in the cache of the DVC project here, where its remote may fill it."""
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo
        from dvc_data.hashfile.hash_info import HashInfo

        with suppress(NotDvcRepoError), Repo() as project:
            path = Path(project.cache.local.oid_to_path(self.md5))
            if not self._is_at(path):
                # It would warn that a file is not there; our own error says more.
                logging.getLogger("dvc.data_cloud").setLevel(logging.ERROR)
                with suppress(Exception):  # There may be no remote, or no network.
                    project.cloud.pull([HashInfo("md5", self.md5)])
            return path if self._is_at(path) else None
        return None

    def _downloaded(self) -> Path:
        from dvc.api import DVCFileSystem

        repository = DVCFileSystem(self.repository, rev=self.revision, subrepos=True)
        folder = Path(tempfile.mkdtemp(prefix="digits-"))
        path = folder / Path(self.path).name
        try:
            repository.get_file(f"/{self.path}", str(path))
            if not self._is_at(path):
                raise ValueError(f"{self.repository} at {self.revision} has another file there")
        except BaseException:
            shutil.rmtree(folder)
            raise
        return path

    def _is_at(self, path: Path) -> bool:
        return path.is_file() and md5(path) == self.md5

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> "DvcSource":
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the file."""
        names = ("path", "md5", "repository", "revision")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "DvcSource":
        """Return the source that `to_dict` described."""
        return cls(**source_dict)


def md5(path: Path) -> str:
    """Return the MD5 of a file's content, hexadecimal, as DVC has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
