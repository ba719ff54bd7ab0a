"""The plan: how a split is cut into shards, and which of a shard's rows go through the backbone together. Pure."""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.cache.shard import PAGE_BYTES

LEAST_SHARD_ROWS = 4096
MOST_SHARDS = 16
"""Few enough that all of them, mapped side by side, read like one file."""


def default_shard_rows(rows: int) -> int:
    """Rows a shard, a power of two: whole pages whatever the hidden size, so that shards join without gaps."""
    shard_rows = LEAST_SHARD_ROWS
    while rows > MOST_SHARDS * shard_rows:
        shard_rows *= 2
    return shard_rows


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


def plan_batches(lengths: Sequence[int] | np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Group rows of nearly equal length, the longest first.

    Args:
        lengths: `[n]` tokens to compute for each row.
        token_budget: tokens a batch, padding included; a row longer than that is a batch by itself.

    Returns:
        arrays of row numbers; each row stands in exactly one. The result depends on nothing but the arguments.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches = []
    first = 0
    while first < len(order):
        rows = max(1, int(token_budget // lengths[order[first]]))
        batches.append(order[first : first + rows])
        first += rows
    return batches
