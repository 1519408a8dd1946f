"""Which model is the champion: the rule of params.yaml, without MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digits.core.schema import Registry

HIGHER_IS_BETTER = frozenset(["test_accuracy"])


@dataclass(frozen=True)
class Entry:
    """A registered model.

    Attributes:
        number: of the registered model's version, as MLflow counts.
        version: of params.yaml, that it was trained as.
        data: SHA-256 of the images and labels that it was trained and scored on.
        metrics: its scores, by name.
    """

    number: int
    version: str
    data: str
    metrics: Mapping[str, float]

    def told(self, metric: str) -> str:
        """In words."""
        return (
            f"{self.version} (registered version {self.number}, {metric} {self.metrics[metric]:g})"
        )


def select_champion(
    candidates: Sequence[Entry], present: Entry | None, rule: Registry, force: bool = False
) -> tuple[Entry | None, str]:
    """The champion and why, of those just scored and the one that there is.

    The best of the candidates replaces the present champion if it is better by the rule's least
    improvement on the same data; with `force` in any case.
    """
    name = rule.metric
    sign = 1 if name in HIGHER_IS_BETTER else -1

    def worth(entry: Entry) -> float:
        return sign * entry.metrics[name]

    if not candidates:
        return present, "no model to choose from"
    best = max(candidates, key=lambda entry: (worth(entry), -entry.number))
    if present is None:
        return best, f"{best.told(name)} is the first"
    if best.number == present.number:
        return present, f"{present.told(name)} stays: no other is better"
    if force:
        return best, f"{best.told(name)} by --force, was {present.told(name)}"
    if best.data != present.data:
        return present, (
            f"{present.told(name)} stays: it was scored on other data than {best.told(name)}; "
            "`digits register --force` replaces it all the same"
        )
    # Scores have six decimals; what is less is of the way computers hold them.
    if worth(best) - worth(present) > max(rule.minimum_improvement - 1e-9, 1e-9):
        return best, f"{best.told(name)} is better than {present.told(name)}"
    return present, (
        f"{present.told(name)} stays: {best.told(name)} is not better by "
        f"{rule.minimum_improvement:g}"
    )
