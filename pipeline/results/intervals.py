"""How sure a score is: intervals over other rows by the bootstrap, and over other seeds by Student's t."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from pipeline.errors import ConfigError, RunError
from pipeline.results.counts import (
    COUNTED,
    Statistic,
    check_metric,
    metric_of_counts,
    tables_of,
    weighted_metric,
)
from pipeline.results.resampling import RESAMPLES, Resampled, resample

LEVEL = 0.95
METHODS = ("bca", "percentile")
NOT_BCA = "percentile, as bca is not defined"
ROUNDING = 1e-12
"""Scores nearer to each other than this are equal."""
MOST_DIGITS = 12
"""Of a number that is shown: so that what is not 0 does not look like it."""


@dataclass(frozen=True)
class Interval:
    """A score and how sure it is.

    Args:
        estimate: the score.
        low, high: the interval's ends, or None where nothing can be said.
        level: how often such an interval holds the true value, from 0 to 1.
        method: how it was found.
    """

    estimate: float
    low: float | None
    high: float | None
    level: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __neg__(self) -> "Interval":
        """That of the negative score: the ends change sides."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, estimate=-self.estimate, low=low, high=high)

    def __format__(self, spec: str) -> str:
        """The score and both ends in one format: `f"{interval:+.3f}"` is such as `+0.412 [+0.361, +0.463]`.

        What would be rounded to 0 has as many digits more as show on which side of 0 it is; 0 itself has no minus.
        """
        if not spec:
            return str(self)
        bounds = "" if self.low is None or self.high is None else f" [{_end(self.low, spec)}, {_end(self.high, spec)}]"
        return f"{_end(self.estimate, spec)}{bounds}"

    def __str__(self) -> str:
        """Such as `0.412 [0.36, 0.46]`."""
        bounds = (
            "" if self.low is None or self.high is None else f" [{_end(self.low, '.2f')}, {_end(self.high, '.2f')}]"
        )
        return f"{self.estimate:.3f}{bounds}"


def _end(value: float, spec: str) -> str:
    text = format(value, spec)
    if not spec.endswith("f") or float(text):
        return text
    if abs(value) < ROUNDING:
        return format(0.0, spec)
    sign, _, digits = spec.removesuffix("f").partition(".")
    finer = (format(value, f"{sign}.{more}f") for more in range(int(digits or 6) + 1, MOST_DIGITS + 1))
    return next((each for each in finer if float(each)), text)


@dataclass(frozen=True)
class OverSeeds:
    """One score of several trainings that differ in their seed.

    Args:
        interval: of their mean.
        std: their standard deviation (n - 1), or None of one.
        seeds: how many.
    """

    interval: Interval
    std: float | None
    seeds: int


def bootstrap_interval(
    metric: str,
    y: np.ndarray,
    predicted: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    method: str = "bca",
    seed: int = 0,
) -> Interval:
    """A score with its bootstrap interval over rows.

    It says how the score of these very predictions varies with the rows that are scored; not with the training's seed,
    nor with its rows. Where no row is wrong, no resample is either: the interval has no width then, which is not
    certainty.

    Args:
        metric: one of `COUNTED` or `OF_PROBABILITIES`.
        y: `[n]` true classes.
        predicted: `[n]` predicted classes, or `[n, c]` probabilities for a metric of those.
        resamples: how many.
        level: of the interval, between 0 and 1.
        method: `bca` (bias-corrected and accelerated; Efron, 1987, "Better Bootstrap Confidence Intervals", JASA 82) or
            `percentile`. Where BCa is not defined, as where every resample scores the same, the percentile interval
            comes out, and its `method` says so.
        seed: of the resamples.

    Raises:
        ConfigError: there is no such metric or method.
        RunError: rows and predictions differ in number, or the metric is not defined for these rows.
    """
    check_rows(y, predicted)
    statistic, cells, width = statistic_of(metric, y, predicted)
    return interval_of(resample(statistic, cells, resamples=resamples, seed=seed, width=width), level, method)


def check_rows(y: np.ndarray, *predicted: np.ndarray) -> None:
    """Refuse predictions that are not one a row.

    Raises:
        RunError: they are not, or there are no rows.
    """
    if not len(y) or any(len(each) != len(y) for each in predicted):
        raise RunError(
            "predictions do not go with the rows",
            expected=f"as many as rows, {len(y)}" if len(y) else "at least one row",
            found=", ".join(str(len(each)) for each in predicted),
        )


def statistic_of(
    metric: str, y: np.ndarray, predicted: np.ndarray, other: np.ndarray | None = None
) -> tuple[Statistic, np.ndarray, int]:
    """A metric as a statistic of cells of rows, or how much more it is for `other` than for `predicted`.

    Args:
        metric, y, predicted: as in `bootstrap_interval`.
        other: what else was predicted for the same rows.

    Returns:
        The statistic, `[k]` rows a cell, and the numbers that it holds a resample.
    """
    check_metric(metric)
    both = [predicted] if other is None else [predicted, other]
    if any((each.ndim == 1) != (metric in COUNTED) for each in both):
        raise ConfigError(
            "the metric is of something else",
            where="metric",
            expected="predicted classes [n]" if metric in COUNTED else "probabilities [n, c]",
            found=f"{metric} of {', '.join(str(each.shape) for each in both)}",
        )
    if metric in COUNTED:
        classes = max(2, 1 + int(max(each.max() for each in (y, *both))))
        found, cells = np.unique(np.stack([y, *both], axis=1), axis=0, return_counts=True)
        parts = [_counted(metric, found[:, 0] * classes + found[:, 1 + place], classes) for place in range(len(both))]
        width = classes * classes
    else:
        parts = [weighted_metric(metric, y, each) for each in both]
        cells, width = np.ones(len(y), dtype=np.int64), 0
    return (parts[0] if other is None else lambda counts: parts[1](counts) - parts[0](counts)), cells, width


def _counted(metric: str, places: np.ndarray, classes: int) -> Statistic:
    return lambda counts: metric_of_counts(metric, tables_of(counts, places, classes))


def interval_of(resampled: Resampled, level: float = LEVEL, method: str = "bca") -> Interval:
    """The interval that resamples give; arguments and errors as in `bootstrap_interval`."""
    if method not in METHODS or not 0 < level < 1:
        raise ConfigError(
            "there is no such interval",
            where="method, level",
            expected=f"{' | '.join(METHODS)}, between 0 and 1",
            found=f"{method}, {level}",
        )
    if not np.isfinite(resampled.estimate) or not len(resampled.values):
        raise RunError(
            "the metric is not defined for these rows", expected="rows of several classes", remedy="take another metric"
        )
    shares = np.asarray([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        corrected = _corrected(resampled, shares)
        shares, method = (shares, NOT_BCA) if corrected is None else (corrected, method)
    low, high = np.quantile(resampled.values, shares)
    return Interval(resampled.estimate, float(low), float(high), level, method)


def compared(values: np.ndarray, with_value: float) -> tuple[int, int]:
    """How many values are less and how many are more than another; what differs by rounding alone is equal."""
    return int((values < with_value - ROUNDING).sum()), int((values > with_value + ROUNDING).sum())


def _corrected(resampled: Resampled, shares: np.ndarray) -> np.ndarray | None:
    """BCa's two shares of the resamples, or None where they are not defined."""
    estimate, values, cells = resampled.estimate, resampled.values, resampled.cells
    less, more = compared(values, estimate)
    below = (less + (len(values) - more)) / (2 * len(values))  # half of those that are equal
    if not 0 < below < 1 or less + more == 0 or not np.isfinite(resampled.left_out).all():
        return None
    bias = ndtri(below)
    influence = np.average(resampled.left_out, weights=cells) - resampled.left_out
    spread = (cells * influence**2).sum()
    if spread <= ROUNDING**2:  # no single row moves it
        return None
    acceleration = (cells * influence**3).sum() / (6 * spread**1.5)
    moved = bias + ndtri(shares)
    if (1 - acceleration * moved <= 0).any():
        return None
    return np.asarray(ndtr(bias + moved / (1 - acceleration * moved)))


def seeds_interval(values: Sequence[float], level: float = LEVEL) -> OverSeeds:
    """The mean of a score over trainings with several seeds, with Student's t interval.

    Of one value there is no interval and no standard deviation.

    Raises:
        RunError: there is no value.
    """
    if not len(values):
        raise RunError("there is no score to take the mean of", expected="one or more")
    numbers = np.asarray(values, dtype=np.float64)
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return OverSeeds(Interval(mean, None, None, level, "one seed"), None, 1)
    std = float(numbers.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / np.sqrt(n)
    return OverSeeds(Interval(mean, float(mean - half), float(mean + half), level, "student t"), std, n)
