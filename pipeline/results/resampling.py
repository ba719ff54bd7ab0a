"""The bootstrap: what a statistic would have been on other rows of the same kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.results.counts import Statistic

RESAMPLES = 9_999
"""By default: with the sample itself 10,000, so that a share of them is a round number."""
BLOCK_VALUES = 2**21
"""Numbers that are held at once for a block of resamples."""


@dataclass(frozen=True)
class Resampled:
    """A statistic of a sample, of its resamples, and of the sample without each of its rows.

    Args:
        estimate: of the sample itself.
        values: `[b]` of the resamples; those that it is not defined for are left out.
        left_out: `[k]` of the sample without one row of a cell; NaN where it is not defined.
        cells: `[k]` how many rows each cell has.
    """

    estimate: float
    values: np.ndarray
    left_out: np.ndarray
    cells: np.ndarray


def resample(
    statistic: Statistic, cells: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, width: int = 0
) -> Resampled:
    """Draw as many rows as a sample has from it, with replacement, many times.

    Rows that a statistic cannot tell apart stand in one cell: how many of them are drawn is multinomial, which is the
    same as drawing them one by one and takes no longer for more rows.

    Args:
        statistic: of how often each cell is drawn.
        cells: `[k]` rows a cell, none empty; ones for rows one by one.
        resamples: how many.
        seed: of the draws.
        width: numbers a resample that the statistic holds, where these are more than cells.
    """
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_VALUES // max(len(cells), width))
    values = np.concatenate([statistic(draws) for draws in _draws(rng, cells, resamples, block)])
    left_out = np.full(len(cells), np.nan)
    if cells.sum() > 1:
        for first in range(0, len(cells), block):
            numbers = np.arange(first, min(first + block, len(cells)))
            counts = np.repeat(cells[None].astype(np.float64), len(numbers), axis=0)
            counts[np.arange(len(numbers)), numbers] -= 1
            left_out[numbers] = statistic(counts)
    estimate = float(statistic(cells[None].astype(np.float64))[0])
    return Resampled(estimate, values[np.isfinite(values)], left_out, cells)


def _draws(rng: np.random.Generator, cells: np.ndarray, resamples: int, block: int) -> Iterator[np.ndarray]:
    """Blocks `[m, k]` float64 of how often each cell is drawn."""
    rows, k = int(cells.sum()), len(cells)
    for first in range(0, resamples, block):
        m = min(block, resamples - first)
        if rows == k:  # one by one: the same numbers of draws, counted faster
            drawn = rng.integers(k, size=(m, k)) + k * np.arange(m)[:, None]
            yield np.bincount(drawn.ravel(), minlength=m * k).reshape(m, k).astype(np.float64)
        else:
            yield rng.multinomial(rows, cells / rows, size=m).astype(np.float64)
