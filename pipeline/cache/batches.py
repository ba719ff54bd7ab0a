"""An epoch over rows that need not fit into memory: blocks of neighbours, shuffled among and within each other."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from pipeline.errors import ConfigError

WINDOW_BLOCKS = 4
"""Blocks whose rows are shuffled together, and so the most that an epoch holds in memory at once."""


def row_numbers(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Row numbers as an array `[n]` int64.

    Raises:
        ConfigError: they are something else, such as a mask, which would be read as the rows 0 and 1.
    """
    places = np.asarray(rows)
    if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
        raise ConfigError(
            "these are no row numbers",
            where="rows",
            expected="whole numbers, in one dimension",
            found=f"{places.dtype}, of shape {list(places.shape)}",
            remedy="np.flatnonzero(mask) gives the rows of a mask",
        )
    return places.astype(np.int64, copy=False)


def plan_windows(rows: int, block_rows: int, *, shuffle: bool, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Cut an epoch into windows, each to be read as a whole.

    Shuffled, the blocks of `block_rows` neighbouring rows come in a random order, and the rows of every
    `WINDOW_BLOCKS` of them are shuffled together: reading stays in stretches, and any two rows can meet in a batch.

    Args:
        rows: how many there are.
        seed, epoch: with the other arguments they decide the order; another epoch is another order.

    Yields:
        arrays of row numbers; together, every row once.
    """
    starts = np.arange(0, rows, block_rows)
    random = np.random.default_rng([seed, epoch])
    if shuffle:
        random.shuffle(starts)
    for first in range(0, len(starts), WINDOW_BLOCKS):
        blocks = [np.arange(start, min(start + block_rows, rows)) for start in starts[first : first + WINDOW_BLOCKS]]
        window = np.concatenate(blocks)
        if shuffle:
            random.shuffle(window)
        yield window


Values = TypeVar("Values", np.ndarray, list[np.ndarray])


def read_batches(
    windows: Iterator[np.ndarray], read: Callable[[np.ndarray], Values], batch_size: int, *, drop_last: bool
) -> Iterator[tuple[np.ndarray, Values]]:
    """Read window by window and cut into batches; one may take the end of a window and the beginning of the next.

    Args:
        windows: arrays of row numbers.
        read: gives the values of rows that are in ascending order, as storage likes to be read.
        drop_last: leave out the last batch where it is not full.

    Yields:
        the rows of a batch and their values, in the windows' order.
    """
    rows, values = np.zeros(0, dtype=np.int64), None
    for window in windows:
        order = np.argsort(window)
        rows = np.concatenate([rows, window])
        values = _joined(values, _reordered(read(window[order]), np.argsort(order)))
        full = len(rows) // batch_size * batch_size
        for first in range(0, full, batch_size):
            yield rows[first : first + batch_size], values[first : first + batch_size]
        rows, values = rows[full:], values[full:]
    if values is not None and len(rows) and not drop_last:
        yield rows, values


def _reordered(values: Values, order: np.ndarray) -> Values:
    if isinstance(values, np.ndarray):
        return np.asarray(values[order])
    return [values[place] for place in order]


def _joined(first: Values | None, then: Values) -> Values:
    if first is None or not len(first):
        return then
    if isinstance(then, np.ndarray):
        return np.concatenate([first, then])
    return list(first) + then
