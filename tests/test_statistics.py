"""Prediction intervals, and what is said of a reported number."""

import numpy as np
import pytest

from digits.reports import statistics, study, study_figures
from digits.reports.figures import png

REPORTED = {"v1": {"test_accuracy": 0.97, "test_loss": 0.1, "history": {"loss": [0.5, 0.2]}}}


def results(
    version: str = "v1", mean: float = 0.97, n: int = 20, loss: float = 0.5
) -> list[dict[str, object]]:
    noise = np.linspace(-0.001, 0.001, n)
    return [
        {
            "version": version,
            "seed": seed,
            "threads": 1,
            "test": {"accuracy": mean + shift, "loss": 0.1 - shift},
            "metrics": {"loss": [loss + shift, 0.2 - shift]},
        }
        for seed, shift in enumerate(noise)
    ]


def test_the_interval_of_one_more_run_is_that_of_the_tables() -> None:
    """For n = 10: t = 2.262, so the factor is 2.262 √1.1 = 2.373 (Hahn 1969)."""
    told = statistics.spread([float(i) for i in range(10)])
    low, high = told.interval(0.95)
    assert (high - low) / 2 == pytest.approx(2.373 * np.std(range(10), ddof=1), rel=1e-3)
    assert (low + high) / 2 == 4.5
    assert told.percentile(low) == pytest.approx(0.025)
    assert told.percentile(4.5) == pytest.approx(0.5)
    assert [told.chance(low), told.chance(high)] == pytest.approx([0.05, 0.05])
    assert told.chance(4.5) == pytest.approx(1)


def test_it_holds_one_more_run_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 6))
    held = 0
    for *known, another in draws:
        held += statistics.is_within(another, statistics.spread(known).interval(0.95))
    assert held / len(draws) == pytest.approx(0.95, abs=0.015)


def test_three_intervals_are_widened_so_that_all_hold_together() -> None:
    by_chance = 1 - 0.95**3
    assert by_chance == pytest.approx(0.143, abs=0.001)
    assert statistics.family_level(3) ** 3 == pytest.approx(0.95)
    assert statistics.family_chance(0.05, 3) == pytest.approx(by_chance)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0]])
def test_no_interval_without_a_spread(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more different"):
        statistics.spread(values)


def test_a_reported_number_within_is_consistent() -> None:
    table = study.table(results(), REPORTED, ["a machine"])
    (row,) = [line for line in table.splitlines() if line.startswith("| v1 | 20 ")]
    assert "| 97.000 | 50.0 |" in row
    assert row.endswith("| yes |")
    assert "the reported test accuracy is consistent with our runs for v1. " in table
    assert "every one lies within" in table
    assert "a machine" in table


def test_one_outside_is_not() -> None:
    table = study.table(results(mean=0.975), REPORTED, ["a machine"])
    (row,) = [line for line in table.splitlines() if line.startswith("| v1 | 20 ")]
    assert row.endswith("| **no** |")
    assert "consistent with our runs for none, and not for v1: one run in " in table


def test_a_loss_outside_is_told_with_its_epochs() -> None:
    table = study.table(results(loss=0.6), REPORTED, ["a machine"])
    assert "v1 (1 of 2 epochs) lies outside" in table
    assert "| 0.6000 ± 0.0006 | 0.5000 | 0.0 |" in table
    assert "| 1 of 2 |" in table


def test_a_version_that_2018_did_not_have_has_its_spread_alone() -> None:
    told = results() + results("v4", 0.99, n=3)
    table = study.table(told, REPORTED, ["a machine"])
    (row,) = [line for line in table.splitlines() if line.startswith("| v4 | 3 ")]
    assert row.endswith("| – | – | – | – |")
    assert "Of 1 intervals" in table
    section = study.section(told, REPORTED, "there")
    assert "there/accuracies.png" in section
    assert "v4, n = 3: training loss" in section


def test_a_version_with_a_single_run_is_left_out() -> None:
    assert set(study.by_version(results() + results("v2", n=1))) == {"v1"}


def test_runs_that_do_not_differ_say_nothing() -> None:
    same = [result | {"test": {"accuracy": 1.0, "loss": 0.1}} for result in results(n=3)]
    assert study.by_version(same) == {}
    assert study.table(same, REPORTED, ["a machine"]).startswith("No version has two runs")


def test_figures_show_all_runs_and_the_same_bytes() -> None:
    accuracies = {"v1": [0.97, 0.97, 0.98], "v4": [0.99, 0.991]}
    curves = {"v1": [[0.5, 0.2], [0.4, 0.3]], "v4": [[0.5, 0.2, 0.1], [0.4, 0.3, 0.2]]}
    drawn = study_figures.accuracies(accuracies, {"v1": 0.975})
    points = [line for axes in drawn.axes for line in axes.lines if line.get_marker() == "o"]
    assert [np.size(line.get_xdata()) for line in points][:2] == [3, 2]
    assert png(drawn) == png(study_figures.accuracies(accuracies, {"v1": 0.975}))
    losses = study_figures.losses(curves, {"v1": [0.5, 0.25]})
    assert png(losses) == png(study_figures.losses(curves, {"v1": [0.5, 0.25]}))
