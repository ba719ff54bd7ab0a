"""A sum over a corpus, estimated from clusters of its rows, and how far off that may be. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number that was counted or estimated.

    Args:
        value: the number.
        error: the truth lies within `value` plus or minus this with 95 % confidence; 0 where it was counted.
    """

    value: float
    error: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        """The sum of two that were estimated apart from each other."""
        return Estimate(self.value + other.value, math.hypot(self.error, other.error))

    def along(self, other: "Estimate") -> "Estimate":
        """The sum of two that were estimated from the same rows: if one is off, so is the other."""
        return Estimate(self.value + other.value, self.error + other.error)

    def times(self, factor: float) -> "Estimate":
        """So many times as much; the factor is known."""
        return Estimate(self.value * factor, self.error * abs(factor))

    def times_estimate(self, factor: "Estimate") -> "Estimate":
        """The product of two that were estimated apart from each other, to first order."""
        return Estimate(self.value * factor.value, math.hypot(self.error * factor.value, self.value * factor.error))


NOTHING = Estimate(0.0)


def draw_clusters(of: int, count: int, seed: int) -> np.ndarray:
    """`[count]` int64, ascending: one cluster of `of`, at random, out of each of `count` equally long stretches."""
    borders = np.arange(count + 1) * of // count
    return np.random.default_rng(seed).integers(borders[:-1], borders[1:])


def estimate_ratio(y: Sequence[float], x: Sequence[float], of: int) -> Estimate:
    """How much y a corpus has for each x, by clusters that `draw_clusters` drew.

    The ratio estimator, its variance by the squared differences of neighbouring clusters (Wolter, Introduction to
    Variance Estimation, 2007, chapter 8): a corpus whose rows change from one end to the other makes the estimate
    better, and the interval not much wider.

    Args:
        y, x: `[m]` of the drawn clusters, in their order; m is at least 2, or all.
        of: how many clusters there are.
    """
    above, below = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    ratio, drawn = float(above.sum() / below.sum()), len(above)
    if drawn >= of:
        return Estimate(ratio)
    from scipy.special import stdtrit

    residuals = above - ratio * below
    variance = float((np.diff(residuals) ** 2).sum()) / (2 * (drawn - 1))
    error = math.sqrt(variance / drawn * (1 - drawn / of)) / float(below.mean())
    freedom = 2 * (drawn - 1) ** 2 / (3 * drawn - 4)  # of mean squared differences of normal numbers
    return Estimate(ratio, float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error)
