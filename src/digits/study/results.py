"""The results of a study: a file for each trial, whose name is the trial's."""

from pathlib import Path
from typing import Any

from digits.core import files
from digits.reports.metrics import TIMING, TRIALS
from digits.study.spec import Plan, Trial

Result = dict[str, Any]
BESIDE = ("seconds", "machine")  # what differs when a trial is repeated


class Results:
    """Those in a folder: in `trials` what a trial gave, in `timing` how long it took, and where.

    Results of other parameters, another code or other data are as if they were not there.
    """

    def __init__(self, folder: Path, plan: Plan, data: str) -> None:
        self._folder, self._plan, self._data = folder, plan, data
        self._there: dict[str, Result] = {}
        for path in sorted((folder / TRIALS).glob("*.json")):
            self._take(files.read_json(path))

    def _take(self, result: Result) -> bool:
        known = Trial(result["name"], result["version"], result["seed"], result["changes"])
        is_ours: bool = result["digest"] == self._plan.digest(known, self._data)
        if is_ours:
            self._there[known.name] = result
        return is_ours

    def __contains__(self, name: object) -> bool:
        return name in self._there

    def add(self, result: Result) -> None:
        """Write a result, unless it is there or not of this study."""
        name, kept = result["name"], {k: v for k, v in result.items() if k not in BESIDE}
        if name not in self and self._take(kept):
            beside = {key: result[key] for key in BESIDE}
            files.write_json(self._folder / TIMING / f"{name}.json", beside)
            files.write_json(self._folder / TRIALS / f"{name}.json", kept)

    def in_order(self) -> list[Result]:
        """Those that the study asks for."""
        if self._plan.study.search:
            return list(self._there.values())[: self._plan.study.search.trials]
        return [self._there[t.name] for t in self._plan.trials() if t.name in self._there]

    def missing(self) -> int:
        return self._plan.size() - len(self.in_order())
