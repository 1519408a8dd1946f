"""The policy by which a registered model becomes the champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digits.core.schema import Registry

HIGHER_IS_BETTER = frozenset(["test_accuracy"])
TOLERANCE = 1e-9  # Scores are rounded to six decimals; ignore smaller floating-point differences.


@dataclass(frozen=True)
class RegisteredModel:
    """A trained version in MLflow's registry.

    Attributes:
        number: of the registered version, as MLflow counts.
        version: v1 … v4, as in params.yaml.
        data: SHA-256 of the images and labels that it was trained and scored on.
        metrics: its scores, by name.
    """

    number: int
    version: str
    data: str
    metrics: Mapping[str, float]

    def describe(self, metric: str) -> str:
        """Describe the model in words, with one of its scores."""
        score = f"{metric} {self.metrics[metric]:g}"
        return f"{self.version} (registered version {self.number}, {score})"


def select_champion(
    candidates: Sequence[RegisteredModel],
    current: RegisteredModel | None,
    policy: Registry,
    force: bool = False,
) -> tuple[RegisteredModel | None, str]:
    """Return the champion, and why it is.

    The best of the candidates replaces the current champion if it was scored on the same data and
    is better by at least the minimum improvement, or with `force`.
    """
    metric = policy.metric
    sign = 1 if metric in HIGHER_IS_BETTER else -1

    def value(model: RegisteredModel) -> float:
        return sign * model.metrics[metric]

    if not candidates:
        return current, "there is no candidate"
    best = max(candidates, key=lambda model: (value(model), -model.number))
    new = best.describe(metric)
    if current is None:
        return best, f"{new} is the first"
    old = current.describe(metric)
    if best.number == current.number:
        return current, f"{old} stays: no other is better"
    if force:
        return best, f"{new} by --force, was {old}"
    if best.data != current.data:
        return current, (
            f"{old} stays: it was scored on other data than {new}; `digits register --force` "
            "replaces it all the same"
        )
    if value(best) - value(current) > max(policy.minimum_improvement - TOLERANCE, TOLERANCE):
        return best, f"{new} is better than {old}"
    return current, f"{old} stays: {new} is not better by {policy.minimum_improvement:g}"
