"""Two sets of predictions for the same rows: is one better, or were the rows kind to it?"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.results.intervals import LEVEL, Interval, check_rows, compared, interval_of, statistic_of
from pipeline.results.resampling import RESAMPLES, resample


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test.

    Args:
        b: rows that the first predicts right and the second wrong.
        c: rows that the first predicts wrong and the second right.
        p: two-sided, of so uneven a division of the `b + c` rows if each were as likely to fall either way.
    """

    b: int
    c: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class PairedDifference:
    """How much more the second scores than the first.

    Args:
        difference: the second's score less the first's.
        p: two-sided, as `paired_bootstrap` defines it.
    """

    difference: Interval
    p: float

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def mcnemar_exact(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> McNemar:
    """Test whether two sets of predictions are right equally often.

    McNemar (1947), Psychometrika 12, with the binomial distribution itself in place of chi-squared. Where the two are
    right on the same rows, p is 1.

    Args:
        y: `[n]` true classes.
        a, b: `[n]` predicted classes, of the same rows.

    Raises:
        RunError: they differ in number.
    """
    from scipy.stats import binomtest  # takes longer to import than all else here

    check_rows(y, a, b)
    first, second = a == y, b == y
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    uneven = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, uneven).pvalue) if uneven else 1.0)


def paired_bootstrap(
    metric: str,
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    method: str = "bca",
    seed: int = 0,
) -> PairedDifference:
    """The score of `b` less that of `a`, with its interval over rows and a p-value.

    Rows are resampled with both their predictions, so that what makes a row hard for both does not count. The p-value
    is twice the smaller of the shares of resamples in which the difference is at most 0, and at least 0; the sample
    itself is counted among the resamples on both sides, so that p is never 0, and it is at most 1. It is below
    `1 - level` where the percentile interval leaves 0 out; BCa moves that interval's ends a little. With `a` and `b`
    exchanged, the same comes out with the other sign.

    Args:
        metric, resamples, level, method, seed: as in `bootstrap_interval`.
        y: `[n]` true classes.
        a, b: `[n]` predicted classes of the same rows, or `[n, c]` probabilities for a metric of those. F1 is that of
            class 1 if neither has more than two classes.

    Raises:
        ConfigError: there is no such metric or method.
        RunError: they differ in number, or the metric is not defined for these rows.
    """
    check_rows(y, a, b)
    if a.tolist() > b.tolist():  # the same draws whichever of the two is held against the other
        turned = paired_bootstrap(metric, y, b, a, resamples=resamples, level=level, method=method, seed=seed)
        return PairedDifference(-turned.difference, turned.p)
    statistic, cells, width = statistic_of(metric, y, a, b)
    resampled = resample(statistic, cells, resamples=resamples, seed=seed, width=width)
    difference = interval_of(resampled, level, method)
    less, more = compared(resampled.values, 0.0)
    number = len(resampled.values)
    p = min(1.0, 2 * (1 + number - max(less, more)) / (1 + number))
    return PairedDifference(difference, p)
