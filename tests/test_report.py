"""The written results are made from the metrics folder alone."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from digits import DigitsError, report


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A copy of the committed metrics, with a fourth version that 2018 did not have."""
    folder = tmp_path / "metrics"
    shutil.copytree(ROOT / "metrics", folder)
    for name in ("scores/v1.json", "history/v1.csv", "timing/v1.json", "machine/v1.json"):
        shutil.copy(folder / name, folder / name.replace("v1", "v5"))
    return folder


def test_the_table_has_one_row_per_version(metrics: Path) -> None:
    scores = json.loads((metrics / "scores" / "v1.json").read_text())
    scores["test"] |= {"accuracy": 0.5, "errors": 5000}
    (metrics / "scores" / "v1.json").write_text(json.dumps(scores))
    rows = report.table(report.read(metrics)).splitlines()
    assert rows[2].startswith("| v1 | 101,770 | 97.62 % | **50.00 %** | 238 | **5000** | 22.6 s |")
    assert rows[5].startswith("| v5 | 101,770 | – |")


def test_the_page_compares_point_by_point(metrics: Path) -> None:
    page = report.page(report.read(metrics))
    assert "| parameters | 101,770 | 101,770 | ±0 |" in page
    for version in ("v1", "v2", "v3", "v5"):
        assert f"## {version}" in page
        assert f"figures/{version}-misclassified.png" in page


def test_only_what_stands_between_the_marks_of_the_readme_is_replaced(metrics: Path) -> None:
    results = report.read(metrics)
    readme = report.in_readme(f"a\n{report.START}old\n{report.END}z\n", results)
    assert readme == f"a\n{report.START}{report.table(results)}{report.END}z\n"
    with pytest.raises(DigitsError, match="expected the lines <!-- results -->"):
        report.in_readme("no marks", results)


def test_a_missing_metrics_file_is_named(metrics: Path) -> None:
    (metrics / "timing" / "v2.json").unlink()
    with pytest.raises(DigitsError, match=r"timing/v2\.json: not a JSON file"):
        report.read(metrics)
