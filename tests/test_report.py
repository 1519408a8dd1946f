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
        shutil.copy(folder / name, folder / name.replace("v1", "vnew"))
    return folder


def test_the_table_has_one_row_per_version(metrics: Path) -> None:
    scores = json.loads((metrics / "scores" / "v1.json").read_text())
    scores["test"] |= {"accuracy": 0.5, "errors": 5000}
    (metrics / "scores" / "v1.json").write_text(json.dumps(scores))
    table = report.table(report.read(metrics))
    assert "| v1 | 101,770 | 97.62 % | **50.00 %** | 238 | **5000** | 22.6 s |" in table
    assert "| vnew | 101,770 | – |" in table


def test_a_time_is_not_told_of_another_training(metrics: Path) -> None:
    assert "**–**" not in report.table(report.read(metrics))
    history = metrics / "history" / "v2.csv"
    history.write_text(history.read_text().replace("0.9", "0.8"))
    results = report.read(metrics)
    (row,) = [line for line in report.table(results).splitlines() if line.startswith("| v2 ")]
    assert row.endswith("| **–** |")
    assert "| training time | 309.9 s | – | – |" in report.page(results)
    assert report.training_time(results)


def test_the_page_compares_point_by_point(metrics: Path) -> None:
    page = report.page(report.read(metrics))
    assert "| parameters | 101,770 | 101,770 | ±0 |" in page
    for version in ("v1", "v2", "v3", "vnew"):
        assert f"## {version}" in page
        assert f"figures/{version}-misclassified.png" in page


def test_only_what_stands_between_the_marks_of_the_readme_is_replaced() -> None:
    readme = "a\n<!-- results -->\nold\n<!-- /results -->\nz\n"
    changed = report.in_readme(readme, "results", "new\n")
    assert changed == "a\n<!-- results -->\nnew\n<!-- /results -->\nz\n"
    with pytest.raises(DigitsError, match="expected the lines <!-- speed --> and <!-- /speed -->"):
        report.in_readme(readme, "speed", "new\n")


def test_a_missing_metrics_file_is_named(metrics: Path) -> None:
    (metrics / "timing" / "v2.json").unlink()
    with pytest.raises(DigitsError, match=r"timing/v2\.json: not a JSON file"):
        report.read(metrics)
