"""Samples of a measurement."""

from collections.abc import Sequence
from statistics import median


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and greatest of n measurements, and n."""
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}
