"""The cut of a split into shards. Pure."""

import math

from pipeline.cache.shard import PAGE_BYTES

LEAST_SHARD_ROWS = 4096
MOST_SHARDS = 8
"""Few: rows of one shard share what they begin with, and shards mapped side by side read like one file."""


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
