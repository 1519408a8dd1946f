"""The committed results: they are those of this code, and what they should be."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run

from digits.core import config
from digits.reports import metrics
from digits.reports.statistics import Summary, summarise
from digits.reports.study_report import summaries
from digits.study import spec
from digits.study.results import Row, read_trials

METRICS = ROOT / "metrics"
STUDIES = sorted(path.parent.name for path in METRICS.glob("studies/*/trials.csv"))
ENSEMBLE = METRICS / "studies/ensemble/ensemble.json"
SCORES = [*sorted(METRICS.glob("scores/*.json")), ENSEMBLE]
REPORTED = json.loads((METRICS / "report-2018.json").read_text())["versions"]
# Test accuracy that a correct implementation reaches, seed to seed.
BOUNDS = {"v1": (0.974, 0.982), "v2": (0.980, 0.988), "v3": (0.988, 0.9935), "v4": (0.9955, 0.9985)}


def scores(version: str) -> Any:
    return json.loads((METRICS / "scores" / f"{version}.json").read_text())


def trials(study: str, version: str | None = None) -> list[Row]:
    rows = read_trials(METRICS / "studies" / study / "trials.csv")
    return [row for row in rows if row["version"] == (version or row["version"])]


def sample(study: str, version: str, name: str) -> Summary:
    return summarise([row["test"][name] for row in trials(study, version)])


def words(page: str) -> str:
    """A page's text on one line."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("version", BOUNDS)
def test_test_accuracy_is_within_bounds(version: str) -> None:
    low, high = BOUNDS[version]
    assert low <= scores(version)["test"]["accuracy"] <= high


@pytest.mark.parametrize("version", REPORTED)
def test_the_first_epoch_has_the_reported_loss(version: str) -> None:
    with (METRICS / "history" / f"{version}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(REPORTED[version]["history"]["loss"])
    assert float(rows[0]["loss"]) == pytest.approx(REPORTED[version]["history"]["loss"][0], rel=0.1)


@pytest.mark.parametrize("version", REPORTED)
def test_the_networks_are_of_the_reported_size(version: str) -> None:
    assert scores(version)["parameters"] == REPORTED[version]["parameters"]


@pytest.mark.parametrize("path", SCORES, ids=lambda path: path.stem)
def test_counts_are_consistent(path: Path) -> None:
    scored = json.loads(path.read_text())
    for part, images in (("train", 60_000), ("test", 10_000)):
        matrix = scored[part]["confusion_matrix"]
        assert sum(map(sum, matrix)) == images
        right = sum(matrix[digit][digit] for digit in range(10))
        assert scored[part]["errors"] == images - right
        assert scored[part]["accuracy"] == pytest.approx(right / images, abs=1e-6)
    assert len(scored["misclassified"]) == scored["test"]["errors"]


@pytest.mark.parametrize("study", STUDIES)
def test_a_committed_study_has_the_trials_of_its_file(study: str) -> None:
    expected = spec.load(ROOT / f"studies/{study}.yaml", ROOT / "params.yaml").trials()
    assert {row["name"] for row in trials(study)} == {trial.name for trial in expected}


def test_the_ensemble_is_of_networks_that_the_page_on_accuracy_has() -> None:
    ensemble = json.loads(ENSEMBLE.read_text())
    members = trials("ensemble")
    assert list(ensemble["members"]) == [row["name"] for row in members]
    same = {row["digest"]: row["test"] for row in trials("accuracy")}
    assert [same.get(row["digest"]) for row in members] == [row["test"] for row in members]


def test_the_readme_says_of_v2_what_the_study_showed() -> None:
    """Its prose is written by hand."""
    (v2,) = [v for v in summaries(trials("reproduction"), REPORTED) if v.name == "v2"]
    assert REPORTED["v2"]["test_accuracy"] < min(v2.accuracies)
    assert v2.epochs_outside() == 0
    assert v2.test_loss.p_value(REPORTED["v2"]["test_loss"]) > 0.05


def test_dvc_lock_belongs_to_the_code_and_the_parameters() -> None:
    """In a fresh clone what DVC keeps in its cache is absent, but nothing may be modified."""
    done = run(ROOT, sys.executable, "-m", "dvc", "status", "--json")
    changed: list[tuple[str, ...]] = []
    for stage, entries in json.loads(done.stdout).items():
        for entry in entries:
            if isinstance(entry, str):
                changed.append((stage, entry))
                continue
            for paths in entry.values():
                changed += [
                    (stage, path, how)
                    for path, how in paths.items()
                    if not (how in ("deleted", "not in cache") and path.startswith("data"))
                ]
    assert changed == [], "run `make`"


def test_every_training_has_its_time() -> None:
    data = config.load(ROOT / "params.yaml").data
    read = metrics.read(METRICS, metrics.read_times(METRICS), data)
    assert all(version.seconds for version in read.versions), "run `make report`"


MACHINES = {
    **metrics.read_times(METRICS),
    **{row["name"]: row["machine"] for study in STUDIES for row in trials(study)},
}


@pytest.mark.parametrize("name", [name for name, machine in MACHINES.items() if machine])
def test_results_were_made_with_the_pinned_libraries(name: str) -> None:
    text = (ROOT / "requirements/main.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", text, re.M))
    machine = MACHINES[name]
    assert machine["keras"] == pinned["keras"]
    assert {"tensorflow", "tensorflow-cpu"} & set(machine)
    for library in set(machine) & set(pinned):
        assert machine[library] == pinned[library]


def test_the_report_shows_four_figures_of_each_version() -> None:
    page = (METRICS / "report.md").read_text(encoding="utf-8")
    for version in BOUNDS:
        assert page.count(f"(figures/{version}-") == 4


def test_no_pinned_requirement_names_an_index() -> None:
    for path in (*(ROOT / "requirements").iterdir(), ROOT / "server/requirements.txt"):
        text = path.read_text()
        assert "--hash=sha256:" in text
        assert not re.search(r"index-url|find-links|https?://|file:", text)


def test_git_tracks_no_large_file() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [path for name in listed.stdout.split("\0") if (path := ROOT / name).is_file()]
    assert [path for path in paths if path.stat().st_size > 2**20] == []
