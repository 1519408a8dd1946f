"""The policy by which a model becomes the champion."""

from dataclasses import replace

import pytest

from digits.core.schema import Registry
from digits.tracking.promotion import RegisteredModel, select_champion


def model(number: int, accuracy: float, data: str = "mnist") -> RegisteredModel:
    metrics = {"test_accuracy": accuracy, "test_loss": 1 - accuracy}
    return RegisteredModel(number, f"v{number}", data, metrics)


def policy(metric: str = "test_accuracy", minimum_improvement: float = 0.0005) -> Registry:
    return Registry(name="mnist-digits", metric=metric, minimum_improvement=minimum_improvement)


def test_the_first_champion_is_the_best() -> None:
    best, reason = select_champion([model(1, 0.97), model(2, 0.99), model(3, 0.98)], None, policy())
    assert best == model(2, 0.99)
    assert reason == "v2 (registered version 2, test_accuracy 0.99) is the first"


def test_of_equals_the_first_registered_is_best() -> None:
    assert select_champion([model(2, 0.98), model(1, 0.98)], None, policy())[0] == model(1, 0.98)


@pytest.mark.parametrize(
    ("accuracy", "minimum_improvement", "replaced"),
    [
        (0.9906, 0.0005, True),
        (0.9905, 0.0005, True),
        (0.9904, 0.0005, False),
        (0.9901, 0.0, True),
        (0.9900, 0.0, False),
        (0.9800, 0.0, False),
    ],
)
def test_a_model_that_is_better_by_enough_replaces_the_champion(
    accuracy: float, minimum_improvement: float, replaced: bool
) -> None:
    current, other = model(1, 0.99), model(2, accuracy)
    best, reason = select_champion(
        [other], current, policy(minimum_improvement=minimum_improvement)
    )
    assert best == (other if replaced else current)
    assert ("is better than" in reason) == replaced


def test_of_a_loss_the_lower_is_better() -> None:
    current, other = model(1, 0.98), model(2, 0.99)
    assert select_champion([other], current, policy("test_loss"))[0] == other
    assert select_champion([current], other, policy("test_loss"))[0] == other


def test_the_champion_stays_if_the_other_was_scored_on_other_data() -> None:
    current, other = model(1, 0.90), model(2, 0.99, data="fashion")
    best, reason = select_champion([other], current, policy())
    assert best == current
    assert "scored on other images" in reason
    assert "--force" in reason


@pytest.mark.parametrize(
    ("data", "test_images", "comparable"),
    [
        ("more", "same", True),
        ("same", "other", False),
        ("same", None, True),
        ("more", None, False),
    ],
)
def test_models_are_compared_if_their_test_images_are_the_same_or_all_are_if_none_is_known(
    data: str, test_images: str | None, comparable: bool
) -> None:
    """Earlier code registered models with the digest of all images alone."""
    new = replace(model(2, 0.99, "same"), test_images="same")
    old = replace(model(1, 0.90, data), test_images=test_images)
    assert select_champion([new], old, policy())[0] == (new if comparable else old)


@pytest.mark.parametrize("other", [model(2, 0.8), model(2, 0.8, data="fashion")])
def test_force_replaces_the_champion_in_any_case(other: RegisteredModel) -> None:
    best, reason = select_champion([other], model(1, 0.9), policy(), force=True)
    assert best == other
    assert "by --force" in reason


def test_the_champion_stays_if_it_is_the_best() -> None:
    current = model(2, 0.99)
    best, reason = select_champion([model(1, 0.98), current], current, policy())
    assert best == current
    assert reason == "v2 (registered version 2, test_accuracy 0.99) stays: no other is better"


def test_without_candidates_nothing_changes() -> None:
    assert select_champion([], None, policy())[0] is None
    assert select_champion([], model(1, 0.9), policy())[0] == model(1, 0.9)
