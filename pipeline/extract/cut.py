"""The cut of a split into shards. Pure."""

import math

import numpy as np

from pipeline.backbone.batch import common_prefix_length
from pipeline.backbone.plan import distinct_prefixes, order_by_ids
from pipeline.backbone.tokens import TokenRows
from pipeline.cache.manifest import Order
from pipeline.cache.shard import PAGE_BYTES

LEAST_SHARD_ROWS = 4096
MOST_SHARDS = 32
"""Few: shards mapped side by side read like one file."""
MOST_SHARD_ROWS = 32768
"""A shard is held in memory until it is written: beyond a million rows there are more shards, not larger ones."""
WORTH_ORDERING = 0.05
"""Rows ordered by their tokens are a copy when they are read: it must save this share of the tokens to compute."""


def default_shard_rows(rows: int) -> int:
    """Rows a shard, a power of two: whole pages whatever the hidden size, so that shards join without gaps."""
    shard_rows = LEAST_SHARD_ROWS
    while rows > MOST_SHARDS * shard_rows and shard_rows < MOST_SHARD_ROWS:
        shard_rows *= 2
    return shard_rows


def ordered_rows(tokens: TokenRows) -> np.ndarray:
    """`[n]` int64, the rows of a split ordered by their tokens."""
    return order_by_ids(_behind_what_all_share(tokens))


def choose_order(tokens: TokenRows, shard_rows: int) -> Order:
    """Whether rows are ordered by their tokens before they are cut: where so much more is shared within the shards."""
    if len(tokens) <= shard_rows:
        return "split"
    rows = _behind_what_all_share(tokens)
    as_in_split = _distinct(rows, np.arange(len(rows)), shard_rows)
    by_tokens = _distinct(rows, order_by_ids(rows), shard_rows)
    return "tokens" if by_tokens < (1 - WORTH_ORDERING) * as_in_split else "split"


def _behind_what_all_share(tokens: TokenRows) -> list[np.ndarray]:
    rows = [tokens[row] for row in range(len(tokens))]
    shared = common_prefix_length(rows, int(tokens.start.min()))
    return [row[shared:] for row in rows]


def _distinct(rows: list[np.ndarray], ordered: np.ndarray, shard_rows: int) -> int:
    """The fewest tokens that can be computed for shards of so many rows."""
    shards = (ordered[first : first + shard_rows] for first in range(0, len(ordered), shard_rows))
    return sum(distinct_prefixes([rows[row] for row in shard]) for shard in shards)


def note_on_cut(rows: int, shard_rows: int, row_bytes: int) -> str:
    """What a person should know of a cut whose shards cannot be mapped side by side, or nothing where they can.

    Args:
        rows: of the split.
        row_bytes: of a row's hidden states, one pooled vector.
    """
    multiple = PAGE_BYTES // math.gcd(PAGE_BYTES, row_bytes)
    if shard_rows >= rows or shard_rows % multiple == 0:
        return ""
    return (
        f"shards of {shard_rows} rows end within a page of memory: X of this feature set will be a copy and no memory "
        f"map; a --shard-rows that is a multiple of {multiple} gives a map"
    )
