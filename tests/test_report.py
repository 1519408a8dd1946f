"""The written results are made from the metrics folder alone."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from digits import DigitsError
from digits.reports import metrics, report


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
    table = report.table(metrics.read(metrics))
    assert "| v1 | 101,770 | 97.62 % | **50.00 %** | 238 | **5000** | 22.6 s |" in table
    assert "| vnew | 101,770 | – |" in table


def test_a_time_is_not_told_of_another_training(metrics: Path) -> None:
    assert "**–**" not in report.table(metrics.read(metrics))
    history = metrics / "history" / "v2.csv"
    history.write_text(history.read_text().replace("0.9", "0.8"))
    read = metrics.read(metrics)
    (row,) = [line for line in report.table(read).splitlines() if line.startswith("| v2 ")]
    assert row.endswith("| **–** |")
    assert "| training time | 309.9 s | – | – |" in report.page(read)
    assert report.training_time(read)


def test_the_page_compares_point_by_point(metrics: Path) -> None:
    page = report.page(metrics.read(metrics))
    assert "| parameters | 101,770 | 101,770 | ±0 |" in page
    for version in ("v1", "v2", "v3", "vnew"):
        assert f"## {version}" in page
        assert f"figures/{version}-misclassified.png" in page
    of_v1 = page.partition("## v1\n")[2].partition("## v2\n")[0]
    assert "of doubtful label: " in of_v1


@pytest.fixture
def ensemble(metrics: Path) -> Path:
    """The metrics with v1, of a seed more, and an ensemble of the two that misses three images."""
    folder = metrics / "ensemble"
    shutil.rmtree(folder, ignore_errors=True)
    scores = json.loads((metrics / "scores" / "v1.json").read_text())
    for name, errors in (("v1", 30), ("v1-7", 20), ("v1-ensemble", 3)):
        test = scores["test"] | {"errors": errors, "accuracy": 1 - errors / 10_000}
        told = scores | {"test": test, "misclassified": [5, 947, 9729]}
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        (folder / "scores" / f"{name}.json").write_text(json.dumps(told))
    for name in ("history/v1.csv", "timing/v1.json", "machine/v1.json"):
        (folder / name).parent.mkdir()
        shutil.copy(metrics / name, folder / name.replace("v1", "v1-7"))
    shutil.copy(folder / "scores/v1.json", metrics / "scores/v1.json")
    (metrics / "timing" / "v1.json").write_text('{"training_seconds": 10.0}')
    (folder / "timing" / "v1-7.json").write_text('{"training_seconds": 30.0}')
    return metrics


def test_an_ensemble_is_told_with_n_mean_spread_time_and_hardware(ensemble: Path) -> None:
    table = report.table(metrics.read(ensemble))
    assert (
        "| v1, one network | 2 | **25.0 ± 7.1 (20 – 30)** | 99.750 ± 0.071 "
        "(99.700 – 99.800) % | 20 ± 14 (10 – 30) s |" in table
    )
    assert "| v1-ensemble | 1 | **3** | 99.97 % | 40 s |" in table
    assert "Of its 3 errors 2 are among the 15 test images" in table
    page = report.page(metrics.read(ensemble))
    assert "## v1-ensemble" in page
    assert (
        "Test images that it misses: 5, 947, 9729. Of the 3 errors, of doubtful label: 947, 9729."
        in page
    )
    assert "ensemble/figures/v1-ensemble-misclassified.png" in page


def test_an_ensembles_time_is_not_told_of_another_training(ensemble: Path) -> None:
    history = ensemble / "ensemble" / "history" / "v1-7.csv"
    history.write_text(history.read_text().replace("0.9", "0.8"))
    table = report.table(metrics.read(ensemble))
    assert "(99.700 – 99.800) % | – |" in table
    assert "| v1-ensemble | 1 | **3** | 99.97 % | – |" in table


def test_an_ensemble_is_not_told_beside_another_training_of_its_version(ensemble: Path) -> None:
    scores = json.loads((ensemble / "scores" / "v1.json").read_text())
    scores["test"]["loss"] += 0.1
    (ensemble / "scores" / "v1.json").write_text(json.dumps(scores))
    assert "v1-ensemble" not in report.page(metrics.read(ensemble))


def test_only_what_stands_between_the_marks_of_the_readme_is_replaced() -> None:
    readme = "a\n<!-- results -->\nold\n<!-- /results -->\nz\n"
    changed = report.in_readme(readme, "results", "new\n")
    assert changed == "a\n<!-- results -->\nnew\n<!-- /results -->\nz\n"
    with pytest.raises(DigitsError, match="expected the lines <!-- speed --> and <!-- /speed -->"):
        report.in_readme(readme, "speed", "new\n")


def test_promises_say_how_often_they_were_tried_and_kept() -> None:
    machine = {"processor": "P", "cores": "2", "memory": "24 GiB", "system": "Linux x86_64"}
    versions = {"date": "2026-01-02", "python": "3.11.7", "mlflow": "3.17.2", "dvc": "3.67.1"}
    faults = {"a full disk": {"promise": "one line", "tried": 20, "survived": 19}}
    table = report.promises({"faults": faults, **machine, **versions})
    assert "| a full disk | one line | 20 | 19 |" in table.splitlines()
    assert "P, 2 cores, 24 GiB, Linux x86_64, Python 3.11.7, MLflow 3.17.2, DVC 3.67.1." in table


def test_a_missing_metrics_file_is_named(metrics: Path) -> None:
    (metrics / "timing" / "v2.json").unlink()
    with pytest.raises(DigitsError, match=r"timing/v2\.json: not a JSON file"):
        metrics.read(metrics)
