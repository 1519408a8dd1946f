"""Prediction intervals, paired comparisons, and what a study's page concludes from them."""

from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from digits.core import config
from digits.reports import statistics, study_figures, study_report
from digits.reports.figures import png
from digits.study.results import EMPTY, Row
from digits.study.spec import Study, StudySpec

MNIST = config.load(ROOT / "params.yaml").data
REPORTED = {"v1": {"test_accuracy": 0.97, "test_loss": 0.1, "history": {"loss": [0.5, 0.2]}}}
MACHINE = {"processor": "P", "cores": "2", "memory": "24 GiB"}


def trials(version: str = "v1", mean: float = 0.97, n: int = 20, loss: float = 0.5) -> list[Row]:
    noise = np.linspace(-0.001, 0.001, n).tolist()
    return [
        {
            **EMPTY,
            "name": f"{version}-{seed}",
            "version": version,
            "seed": seed,
            "threads": 1,
            "test": {"accuracy": mean + shift, "loss": 0.1 - shift, "errors": seed},
            "metrics": {"loss": [loss + shift, 0.2 - shift]},
            "machine": MACHINE,
        }
        for seed, shift in enumerate(noise)
    ]


def page(rows: list[Row], reference: Any = REPORTED) -> str:
    study = Study.model_validate({"seeds": {"v1": 20}})
    return study_report.render(StudySpec("reproduction", study, {}), rows, reference, MNIST)


def table_row(page: str, start: str) -> str:
    (row,) = [line for line in page.splitlines() if line.startswith(start)]
    return row


def test_the_interval_of_one_more_run_is_that_of_the_tables() -> None:
    """For n = 10: t = 2.262, so the factor is 2.262 √1.1 = 2.373 (Hahn 1969)."""
    summary = statistics.summarise([float(i) for i in range(10)])
    low, high = summary.interval(0.95)
    assert (high - low) / 2 == pytest.approx(2.373 * np.std(range(10), ddof=1), rel=1e-3)
    assert (low + high) / 2 == 4.5
    assert summary.percentile(low) == pytest.approx(0.025)
    assert summary.percentile(4.5) == pytest.approx(0.5)
    assert [summary.p_value(low), summary.p_value(high)] == pytest.approx([0.05, 0.05])
    assert summary.p_value(4.5) == pytest.approx(1)


def test_the_interval_holds_one_more_run_as_often_as_its_level() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 6))
    held = sum(statistics.summarise(sample).includes(another) for *sample, another in draws)
    assert held / len(draws) == pytest.approx(0.95, abs=0.015)


def test_three_intervals_are_widened_so_that_all_hold_together() -> None:
    by_chance = 1 - 0.95**3
    assert by_chance == pytest.approx(0.143, abs=0.001)
    assert statistics.familywise_level(3) ** 3 == pytest.approx(0.95)
    assert statistics.familywise_p(0.05, 3) == pytest.approx(by_chance)


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0]])
def test_without_a_spread_there_is_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more different"):
        statistics.summarise(values).interval()


def test_networks_are_compared_by_the_images_that_only_one_misses() -> None:
    """By hand: of 5 images 1 to 4 or more unequally, 2 (1 + 5) / 2⁵ = 0.375."""
    assert statistics.mcnemar([1, 2], [2, 3, 4, 5, 6]) == (1, 4, 0.375)
    assert statistics.mcnemar([1, 2], [1, 3]) == (1, 1, 1)
    assert statistics.mcnemar([1], [1]) == (0, 0, 1)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    """By hand: bins of 0 to ½ and ½ to 1 have gaps of |1 − 0.3| and |⅔ − 0.8|, and 1 and 3 of 4."""
    confidence, correct = np.array([0.3, 0.7, 0.8, 0.9]), np.array([True, True, False, True])
    counts, accuracy, error = statistics.calibration(confidence, correct, bins=2)
    assert counts.tolist() == [1, 3]
    assert accuracy == pytest.approx([1, 2 / 3])
    assert error == pytest.approx((1 * 0.7 + 3 * (0.8 - 2 / 3)) / 4)


def test_confidences_of_0_and_1_are_in_the_outer_bins() -> None:
    counts, accuracy, error = statistics.calibration(np.array([0.0, 1.0]), np.array([False, True]))
    assert (counts[0], counts[-1], error) == (1, 1, 0)
    assert accuracy.sum() == 1


def test_a_reported_number_within_the_interval_is_consistent() -> None:
    text = page(trials())
    row = table_row(text, "| v1 | 20 ")
    assert "| 97.000 | 50.0 |" in row
    assert row.endswith("| yes |")
    assert "the reported test accuracy is consistent with our runs for v1. " in text
    assert "every one lies within." in text
    assert "Threads of each run: 1, on P, 2 cores, 24 GiB;" in text


def test_a_reported_number_outside_is_not() -> None:
    text = page(trials(mean=0.975))
    assert table_row(text, "| v1 | 20 ").endswith("| **no** |")
    assert "consistent with our runs for none, and not for v1: one run in " in text


def test_the_verdict_names_the_epochs_whose_loss_lies_outside() -> None:
    text = page(trials(loss=0.6))
    assert "v1 (1 of 2 epochs) lies outside." in text
    assert "| 0.6000 ± 0.0006 | 0.5000 | 0.0 |" in text
    assert "| 1 of 2 |" in text


def test_several_versions_may_lie_outside() -> None:
    reported = dict.fromkeys(("v1", "v2", "v3"), REPORTED["v1"])
    rows = [row for name in reported for row in trials(name, 0.975, loss=0.6)]
    text = page(rows, reported)
    assert "with our runs for none, and not for v1: one run in" in text
    assert "versions one would, and not for v3: one run in" in text
    of = "(1 of 2 epochs)"
    assert f"of cases, v1 {of}, v2 {of} and v3 {of} lie outside." in text


def test_a_version_that_2018_did_not_have_has_its_spread_alone() -> None:
    text = page(trials() + trials("v4", 0.99, n=3))
    assert table_row(text, "| v4 | 3 ").endswith("| – | – | – | – |")
    assert "Of 1 intervals" in text
    assert "| v4, n = 3: training loss, epoch |" in text
    assert "| 2018 |" not in page(trials("v4"))
    assert "None of these versions is in the 2018 report." in page(trials("v4"))


def test_without_a_report_of_2018_there_is_the_spread_alone() -> None:
    text = page(trials(), {})
    assert table_row(text, "| v1 | 20 ").count("|") == 6
    for word in ("2018", "reported", "Verdict", "percentile"):
        assert word not in text


def test_a_curve_of_other_length_is_not_compared() -> None:
    reported = {"v1": REPORTED["v1"] | {"history": {"loss": [0.5, 0.2, 0.1]}}}
    text = page(trials(), reported)
    assert "consistent with our runs for v1." in text
    assert "reported epochs" not in text


def test_a_version_with_a_single_run_is_left_out() -> None:
    rows = trials() + trials("v2", n=1)
    assert [version.name for version in study_report.summaries(rows, REPORTED)] == ["v1"]


def test_runs_that_do_not_differ_leave_the_spread_unknown() -> None:
    same = [row | {"test": {"accuracy": 1.0, "loss": 0.1}} for row in trials(n=3)]
    assert study_report.summaries(same, REPORTED) == []
    assert "No version has two runs" in page(same)


def test_trials_that_stopped_early_are_compared_as_far_as_all_ran() -> None:
    rows = trials(n=3)
    rows[1]["metrics"]["loss"].append(0.1)
    (version,) = study_report.summaries(rows, {})
    assert len(version.losses) == 2


def test_figures_show_all_runs_and_the_same_bytes() -> None:
    rows = trials(n=3) + trials("v4", 0.99, n=2)
    versions = study_report.summaries(rows, REPORTED)
    drawn = study_figures.accuracies(versions)
    points = [line for axes in drawn.axes for line in axes.lines if line.get_marker() == "o"]
    assert [np.size(line.get_xdata()) for line in points][:2] == [3, 2]
    assert png(drawn) == png(study_figures.accuracies(versions))
    assert png(study_figures.losses(versions)) == png(study_figures.losses(versions))


def test_few_runs_are_points_and_many_are_a_band() -> None:
    for n, points, bands in ((4, 4, 0), (5, 0, 1)):
        (axes,) = study_figures.losses(study_report.summaries(trials(n=n), REPORTED)).axes
        assert [line.get_marker() for line in axes.lines].count("o") == points
        assert len(axes.collections) == bands
        (reported,) = [line for line in axes.lines if line.get_marker() == "s"]
        assert np.asarray(reported.get_ydata()) == pytest.approx([0, 0], abs=1e-6)
