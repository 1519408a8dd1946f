"""Is a number that of one more run of ours, a difference chance, a probability what it says?

Source of the prediction interval: G. J. Hahn (1969), "Factors for calculating two-sided prediction
intervals for samples from a normal distribution", JASA 64.
"""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Summary:
    """A sample of one number, taken once in each of n runs.

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
        """Return the interval that holds one more run with probability `level`, if normal.

        Raises:
            ValueError: the runs do not differ, which leaves the spread of another run unknown.
        """
        half = stats.t.ppf((1 + level) / 2, self.n - 1) * self._standard_error()
        return self.mean - half, self.mean + half

    def includes(self, value: float, level: float = LEVEL) -> bool:
        """Return whether a value lies in the interval of one more run."""
        low, high = self.interval(level)
        return low <= value <= high

    def percentile(self, value: float) -> float:
        """Return the probability, 0 to 1, that one more run gives less than a value."""
        return float(stats.t.cdf((value - self.mean) / self._standard_error(), self.n - 1))

    def p_value(self, value: float) -> float:
        """Return the probability, 0 to 1, that one more run is as far from the mean or farther."""
        below = self.percentile(value)
        return 2 * min(below, 1 - below)

    def scaled(self, factor: float) -> "Summary":
        """Return the summary in another unit."""
        numbers = (self.mean, self.deviation, self.least, self.greatest)
        return Summary(self.n, *(factor * number for number in numbers))

    def _standard_error(self) -> float:
        """Return the standard error of one more run: its own spread and that of the mean."""
        if not self.deviation:
            raise ValueError(f"expected two or more different numbers, got {self}")
        return self.deviation * sqrt(1 + 1 / self.n)


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one or more numbers."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Summary(len(values), statistics.mean(values), deviation, min(values), max(values))


def familywise_level(number: int, level: float = LEVEL) -> float:
    """Return the level of each of `number` independent intervals that all hold with `level`.

    Source: Z. Šidák (1967), "Rectangular confidence regions for the means of multivariate normal
    distributions", JASA 62. Of three intervals of 95 %, one misses by chance in 14 % of cases.
    """
    return float(level ** (1 / number))


def familywise_p(p_value: float, number: int) -> float:
    """Return the probability that at least one of `number` independent runs is that unlikely."""
    return float(1 - (1 - p_value) ** number)


def mcnemar(one: Collection[int], other: Collection[int]) -> tuple[int, int, float]:
    """Compare two networks on the same images by the images that each misses.

    Source: Q. McNemar (1947), "Note on the sampling error of the difference between correlated
    proportions", Psychometrika 12; here in its exact form, the sign test.

    Returns:
        How many images only the one misses, how many only the other, and the two-sided p-value.
    """
    only_one, only_other = len(set(one) - set(other)), len(set(other) - set(one))
    n = only_one + only_other
    return only_one, only_other, stats.binomtest(only_one, n).pvalue if n else 1.0


def calibration(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Compare the confidence of n predictions with their accuracy, in bins of equal width.

    Source: C. Guo et al. (2017), "On calibration of modern neural networks", ICML.

    Args:
        confidence: (n,) the greatest probability of each image.
        correct: (n,) whether it is that of the label.

    Returns:
        By bin, the number of predictions and their accuracy, 0 if there are none; and the expected
        calibration error: the mean over all predictions of |accuracy − mean confidence| of the bin.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts, hits = np.bincount(index, minlength=bins), np.bincount(index, correct, bins)
    gaps = np.abs(hits - np.bincount(index, confidence, bins))
    return counts, hits / np.maximum(counts, 1), float(gaps.sum() / len(index))
