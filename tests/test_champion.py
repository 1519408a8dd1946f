"""The rule by which a model becomes the champion."""

import pytest

from digits.core.schema import Registry
from digits.tracking.promotion import Entry


def entry(number: int, accuracy: float, data: str = "mnist") -> Entry:
    return Entry(number, f"v{number}", data, {"test_accuracy": accuracy, "test_loss": 1 - accuracy})


def rule(metric: str = "test_accuracy", least: float = 0.0005) -> Registry:
    return Registry(name="mnist-digits", metric=metric, minimum_improvement=least)


def test_the_first_champion_is_the_best() -> None:
    best, reason = select_champion([entry(1, 0.97), entry(2, 0.99), entry(3, 0.98)], None, rule())
    assert best == entry(2, 0.99)
    assert reason == "v2 (registered version 2, test_accuracy 0.99) is the first"


def test_of_equals_the_first_registered_is_best() -> None:
    assert select_champion([entry(2, 0.98), entry(1, 0.98)], None, rule())[0] == entry(1, 0.98)


@pytest.mark.parametrize(
    ("accuracy", "least", "replaced"),
    [
        (0.9906, 0.0005, True),
        (0.9905, 0.0005, True),
        (0.9904, 0.0005, False),
        (0.9901, 0.0, True),
        (0.9900, 0.0, False),
        (0.9800, 0.0, False),
    ],
)
def test_a_better_one_replaces_it_if_it_is_better_by_enough(
    accuracy: float, least: float, replaced: bool
) -> None:
    present, other = entry(1, 0.99), entry(2, accuracy)
    best, reason = select_champion([other], present, rule(least=least))
    assert best == (other if replaced else present)
    assert ("is better than" in reason) == replaced


def test_of_a_loss_the_lower_is_better() -> None:
    present, other = entry(1, 0.98), entry(2, 0.99)
    assert select_champion([other], present, rule("test_loss"))[0] == other
    assert select_champion([present], other, rule("test_loss"))[0] == other


def test_it_stays_where_the_other_was_scored_on_other_data() -> None:
    present, other = entry(1, 0.90), entry(2, 0.99, data="fashion")
    best, reason = select_champion([other], present, rule())
    assert best == present
    assert "scored on other data" in reason
    assert "--force" in reason


@pytest.mark.parametrize("other", [entry(2, 0.8), entry(2, 0.8, data="fashion")])
def test_force_replaces_it_in_any_case(other: Entry) -> None:
    best, reason = select_champion([other], entry(1, 0.9), rule(), force=True)
    assert best == other
    assert "by --force" in reason


def test_it_stays_where_it_is_the_best() -> None:
    present = entry(2, 0.99)
    best, reason = select_champion([entry(1, 0.98), present], present, rule())
    assert best == present
    assert reason == "v2 (registered version 2, test_accuracy 0.99) stays: no other is better"


def test_without_candidates_nothing_changes() -> None:
    assert select_champion([], None, rule())[0] is None
    assert select_champion([], entry(1, 0.9), rule())[0] == entry(1, 0.9)
