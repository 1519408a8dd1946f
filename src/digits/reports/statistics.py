"""Is a reported number one that a run of ours could have given? Plain statistics.

Source of the prediction interval: G. J. Hahn (1969), "Factors for calculating two-sided prediction
intervals for samples from a normal distribution", JASA 64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Of one number over the runs of a version.

    Attributes:
        n: number of runs.
        mean, deviation, least, greatest: of the n numbers; the deviation is that of a sample.
    """

    n: int
    mean: float
    deviation: float
    least: float
    greatest: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Where one more run lies with that probability, if the numbers are normal."""
        half = stats.t.ppf((1 + level) / 2, self.n - 1) * self._error()
        return self.mean - half, self.mean + half

    def percentile(self, value: float) -> float:
        """The probability, 0 to 1, that one more run gives less than a value."""
        return float(stats.t.cdf((value - self.mean) / self._error(), self.n - 1))

    def chance(self, value: float) -> float:
        """The probability, 0 to 1, that one more run lies as far from the mean, or farther."""
        below = self.percentile(value)
        return 2 * min(below, 1 - below)

    def _error(self) -> float:
        """The standard error of one more run: its own spread and that of the mean."""
        return self.deviation * sqrt(1 + 1 / self.n)


def spread(values: Sequence[float]) -> Spread:
    """Summarise two or more numbers.

    Raises:
        ValueError: fewer, or all the same: they say nothing of how far another may be.
    """
    if len(set(values)) < 2:
        raise ValueError(f"expected two or more different numbers, got {values}")
    return Spread(len(values), mean(values), stdev(values), min(values), max(values))


def family_level(number: int, level: float = LEVEL) -> float:
    """The level of each of several independent intervals that all hold with the level given.

    Source: Z. Šidák (1967), "Rectangular confidence regions for the means of multivariate normal
    distributions", JASA 62. Of three intervals of 95 %, one misses by chance in 14 % of cases.
    """
    return float(level ** (1 / number))


def family_chance(chance: float, number: int) -> float:
    """The probability that at least one of several independent runs is as odd as this one."""
    return float(1 - (1 - chance) ** number)


def is_within(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]
