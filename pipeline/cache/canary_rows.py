"""Which rows of a feature set are canaries, and how far they may be from the same rows computed again."""

import hashlib
from functools import lru_cache

import numpy as np

from pipeline.cache.identity import Identity
from pipeline.digests import sha256_of_record

CANARIES = 24
MANY_ROWS = 2**20
"""Of a split with more rows than this one canary is drawn of every `STRETCH_ROWS`, so that every shard has its own."""
STRETCH_ROWS = 32768
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative difference by the less exact of compute and storage dtype."""
OF_A_VIEW = ("layer", "layer_norm", "pooling", "storage_dtype")


def tolerance_for(identity: Identity) -> float:
    """The largest relative difference that these numbers allow."""
    return max(TOLERANCE[str(identity.quantization["compute_dtype"])], TOLERANCE[identity.storage_dtype])


def draw_canaries(identity: Identity, rows: int) -> np.ndarray:
    """The rows of a split that are computed again: drawn by the identity, alike for all views of one pass.

    Returns:
        row numbers, sorted: at most `CANARIES`, of a split of more than `MANY_ROWS` one of each stretch.
    """
    return _drawn(_seed(identity), rows).copy()


@lru_cache(maxsize=8)  # every shard of a split asks
def _drawn(seed: bytes, rows: int) -> np.ndarray:
    if rows <= MANY_ROWS:
        return np.sort(_first_by_key(seed, np.arange(rows), CANARIES))
    drawn = [int.from_bytes(_key(seed, first)[:8], "little") for first in range(0, rows, STRETCH_ROWS)]
    firsts = np.arange(0, rows, STRETCH_ROWS)
    lengths = np.minimum(rows - firsts, STRETCH_ROWS)
    places = [number % int(length) for number, length in zip(drawn, lengths, strict=True)]
    return np.asarray(firsts + places, dtype=np.int64)


def draw_rows(identity: Identity, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of `rows` at most, in the order of a hash of the identity, views aside, and the row's number."""
    return _first_by_key(_seed(identity), rows, count)


def _first_by_key(seed: bytes, rows: np.ndarray, count: int) -> np.ndarray:
    keys = [_key(seed, int(row)) for row in rows]
    return rows[sorted(range(len(keys)), key=keys.__getitem__)[:count]]


def _seed(identity: Identity) -> bytes:
    of_pass = {name: value for name, value in identity.to_dict().items() if name not in OF_A_VIEW}
    return bytes.fromhex(sha256_of_record(of_pass))


def _key(seed: bytes, row: int) -> bytes:
    return hashlib.sha256(seed + row.to_bytes(8, "little")).digest()
