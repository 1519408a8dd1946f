"""The policy by which a registered model becomes the champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digits.core.schema import Registry

CHAMPION = "champion"  # the alias
HIGHER_IS_BETTER = frozenset(["test_accuracy"])
TOLERANCE = 1e-9  # Scores are rounded to six decimals; ignore smaller floating-point differences.


@dataclass(frozen=True)
class RegisteredModel:
    """A trained version in MLflow's registry.

    Attributes:
        number: of the registered version, as MLflow counts.
        version: v1 … v5, as in params.yaml.
        data: SHA-256 of all images and labels that it was trained with.
        metrics: its scores, by name.
        test_images: digest of those that it was scored on; None if earlier code registered it.
    """

    number: int
    version: str
    data: str
    metrics: Mapping[str, float]
    test_images: str | None = None

    def describe(self, metric: str) -> str:
        """Describe the model in words, with one of its scores."""
        score = f"{metric} {self.metrics[metric]:g}"
        return f"{self.version} (registered version {self.number}, {score})"

    def is_comparable(self, other: "RegisteredModel") -> bool:
        """Tell whether both were scored on the same test images, as far as that is known."""
        if self.test_images and other.test_images:
            return self.test_images == other.test_images
        return self.data == other.data


def best(models: Sequence[RegisteredModel], metric: str) -> RegisteredModel:
    """Return the best of some models; of equals, the one that was registered first."""
    return max(models, key=lambda model: (_value(model, metric), -model.number))


def _value(model: RegisteredModel, metric: str) -> float:
    """Return a score that is the higher the better."""
    return model.metrics[metric] * (1 if metric in HIGHER_IS_BETTER else -1)


def select_champion(
    candidates: Sequence[RegisteredModel],
    current: RegisteredModel | None,
    policy: Registry,
    force: bool = False,
) -> tuple[RegisteredModel | None, str]:
    """Return the champion, and why it is.

    The best of the candidates replaces the current champion if it was scored on the same test
    images and is better by at least the minimum improvement, or with `force`.
    """
    metric = policy.metric
    if not candidates:
        return current, "there is no candidate"
    candidate = best(candidates, metric)
    new = candidate.describe(metric)
    if current is None:
        return candidate, f"{new} is the first"
    old = current.describe(metric)
    if candidate.number == current.number:
        return current, f"{old} stays: no other is better"
    if force:
        return candidate, f"{new} by --force, was {old}"
    if not candidate.is_comparable(current):
        return current, (
            f"{old} stays: it was scored on other images than {new}; `digits register --force` "
            "replaces it all the same"
        )
    improvement = _value(candidate, metric) - _value(current, metric)
    if improvement > max(policy.minimum_improvement - TOLERANCE, TOLERANCE):
        return candidate, f"{new} is better than {old}"
    return current, f"{old} stays: {new} is not better by {policy.minimum_improvement:g}"
