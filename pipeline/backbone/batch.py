"""Rows that go through the backbone together: tokens that rows share stand once, as a tree; slots hold trees."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Batch:
    """`b` slots of `t` tokens. Each token knows which one stands before it, so that a row is a path to its last token.

    Args:
        ids: `[b, t]` int32; padding is 0.
        parent: `[b, t]` int32, the place in the slot of the token before, always a smaller one; -1 where there is none
            but what all rows share.
        rows: `[r]` int64, the numbers of the rows, as the plan was given them.
        places: int64, the places of each row's tokens in the flattened `[b * t]`, row after row.
        offsets: `[r + 1]` int64; row i's are `places[offsets[i]:offsets[i + 1]]`.
        tokens: how many of the `b * t` are no padding.
        trunk: `[p]` int32, what all rows begin with, where the pass that computes them computes that too; `ids` and all
            else are behind it.
    """

    ids: np.ndarray
    parent: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    offsets: np.ndarray
    tokens: int
    trunk: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    @property
    def filled(self) -> np.ndarray:
        """`[n]` int64, sorted, the places in the flattened `[b * t]` that are no padding."""
        return np.unique(self.places)

    @property
    def flat_ids(self) -> np.ndarray:
        """`[p + n]` int32, the trunk, and slot after slot without padding."""
        return np.concatenate((self.trunk, self.ids.ravel()[self.filled]))

    @property
    def depth(self) -> np.ndarray:
        """`[b, t]` int64, how many tokens stand before each one in its rows."""
        slots, width = self.ids.shape
        depth = np.zeros((slots, width), dtype=np.int64)
        each = np.arange(slots)
        for place in range(1, width):
            before = self.parent[:, place]
            depth[:, place] = np.where(before < 0, 0, depth[each, before] + 1)
        return depth

    @property
    def sees(self) -> np.ndarray:
        """`[b, t, t]` bool: whether token i may attend to token j, which is itself or stands before it in a row."""
        slots, width = self.ids.shape
        sees = np.zeros((slots, width, width), dtype=bool)
        each = np.arange(slots)
        for place in range(width):
            before = self.parent[:, place]
            np.copyto(sees[:, place], sees[each, before], where=(before >= 0)[:, None])
            sees[:, place, place] = True
        return sees

    @property
    def is_plain(self) -> bool:
        """Whether each slot holds one row, token after token: causality says then what may attend to what."""
        width = self.ids.shape[1]
        return len(self.rows) == len(self.ids) and bool((self.parent == np.arange(-1, width - 1)).all())


def plain_batch(rows: Sequence[np.ndarray], numbers: Sequence[int] | np.ndarray | None = None) -> Batch:
    """A slot for each row, right-padded to the longest: nothing is shared.

    Args:
        rows: `b` arrays of ids, none empty.
        numbers: what the rows are called; from 0 by default.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths.max())
    ids = np.zeros((len(rows), width), dtype=np.int32)
    for slot, row in zip(ids, rows, strict=True):
        slot[: len(row)] = row
    return Batch(
        ids=ids,
        parent=np.tile(np.arange(-1, width - 1, dtype=np.int32), (len(rows), 1)),
        rows=np.arange(len(rows)) if numbers is None else np.asarray(numbers, dtype=np.int64),
        places=np.concatenate([slot * width + np.arange(length) for slot, length in enumerate(lengths)]),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        tokens=int(lengths.sum()),
    )


def common_prefix_length(rows: Sequence[np.ndarray], most: int) -> int:
    """How many leading ids all `rows` share, `most` at most: the ids decide, never the prompt's text."""
    length = min(most, *(len(row) for row in rows))
    for row in rows[1:]:
        differ = np.flatnonzero(rows[0][:length] != row[:length])
        length = int(differ[0]) if len(differ) else length
    return length
