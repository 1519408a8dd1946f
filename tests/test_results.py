"""The committed results: they are those of this code, and what they should be."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from conftest import ROOT, digits, run

from digits.core import config
from digits.reports import metrics

METRICS = ROOT / "metrics"
TIMES = sorted(METRICS.glob("studies/*/timing/*.json"))
SCORES, MACHINES = (
    sorted(METRICS.glob(f"**/{folder}/*.json")) or [Path("none")]
    for folder in ("scores", "machine")
)
REPORTED = json.loads((METRICS / "report-2018.json").read_text())["versions"]
# Test accuracy that a correct implementation reaches, seed to seed.
BOUNDS = {"v1": (0.974, 0.982), "v2": (0.980, 0.988), "v3": (0.988, 0.9935), "v4": (0.9955, 0.9985)}


def scores(version: str) -> Any:
    return json.loads((METRICS / "scores" / f"{version}.json").read_text())


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


def test_the_ensemble_and_its_members_are_those_of_the_parameters() -> None:
    params = config.load(ROOT / "params.yaml")
    version, seeds = params.ensemble.version, params.ensemble.seeds
    members = {version, *(f"{version}-{seed}" for seed in seeds)}
    folder = METRICS / "ensemble"
    assert {path.stem for path in (folder / "scores").glob("*")} == {
        *members,
        f"{version}-ensemble",
    }
    assert {path.stem for path in (folder / "history").glob("*")} == members - {version}


def test_the_page_on_v4_says_what_the_metrics_say() -> None:
    """Its prose is written by hand."""
    page = " ".join((ROOT / "docs/v4.md").read_text().split())
    ensemble = metrics.read(METRICS).ensemble
    assert ensemble is not None
    errors = [scored["test"]["errors"] for scored in ensemble.members.values()]
    seconds = [told for told in ensemble.seconds.values() if told is not None]
    assert f"{mean(errors):.1f} ± {stdev(errors):.1f} test errors" in page
    assert f"(n = {len(errors)} seeds) after {mean(seconds):.0f} ± {stdev(seconds):.0f} s" in page
    assert f"With {ensemble.scores['test']['errors']} errors" in page
    missed = Counter(i for scored in ensemble.members.values() for i in scored["misclassified"])
    times = Counter(missed.values())
    assert f"of the {len(missed)} images that any of the five misses" in page
    assert f"{times[5]} are missed by all and {times[3] + times[4]} by three or four" in page


def test_the_page_says_of_v2_what_the_study_found() -> None:
    """Its prose is written by hand."""
    study = metrics.read(METRICS).study
    assert study is not None
    (v2,) = [version for version in study.versions(study.results, REPORTED) if version.name == "v2"]
    assert REPORTED["v2"]["test_accuracy"] < v2.accuracy.least
    assert v2.inside(0.95) == len(v2.losses)
    assert v2.test_loss.chance(REPORTED["v2"]["test_loss"]) > 0.05


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


def test_report_and_readme_say_what_the_metrics_say() -> None:
    done = digits(ROOT, "report", "--check", "metrics", "README.md")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [*MACHINES, *TIMES], ids=lambda path: path.stem)
def test_results_were_made_with_the_pinned_libraries(path: Path) -> None:
    pinned = dict(
        re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements/main.txt").read_text(), re.M)
    )
    told = json.loads(path.read_text())
    machine = told.get("machine", told)
    assert {"keras", "numpy"} < set(machine)
    assert {"tensorflow", "tensorflow-cpu"} & set(machine)
    for name in set(machine) & set(pinned):
        assert machine[name] == pinned[name]


def test_every_figure_of_the_report_is_there() -> None:
    page = (METRICS / "report.md").read_text()
    figures = re.findall(r"\]\((.*?\.png)\)", page)
    assert len(figures) >= 3 + 4 * len(REPORTED)
    for figure in figures:
        assert (METRICS / figure).is_file()


def test_no_pinned_requirement_names_an_index() -> None:
    for path in (*(ROOT / "requirements").iterdir(), ROOT / "server/requirements.txt"):
        text = path.read_text()
        assert "--hash=sha256:" in text
        assert not re.search(r"index-url|find-links|https?://|file:", text)


def test_git_tracks_no_large_file() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name}
    assert {name for name, size in sizes.items() if size > 2**20} == set()
