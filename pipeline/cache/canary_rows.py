"""Which rows of a feature set are canaries, and how far they may be from the same rows computed again."""

import hashlib

import numpy as np

from pipeline.cache.identity import Identity
from pipeline.digests import sha256_of_record

CANARIES = 24
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative difference by the less exact of compute and storage dtype."""
OF_A_VIEW = ("layer", "layer_norm", "pooling", "storage_dtype")


def tolerance_for(identity: Identity) -> float:
    """The largest relative difference that these numbers allow."""
    return max(TOLERANCE[str(identity.quantization["compute_dtype"])], TOLERANCE[identity.storage_dtype])


def draw_canaries(identity: Identity, rows: int) -> np.ndarray:
    """The rows of a split that are computed again: drawn by the identity, alike for all views of one pass.

    Returns:
        at most `CANARIES` row numbers, sorted.
    """
    return np.sort(draw_rows(identity, np.arange(rows), CANARIES))


def draw_rows(identity: Identity, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of `rows` at most, in the order of a hash of the identity, views aside, and the row's number."""
    of_pass = {name: value for name, value in identity.to_dict().items() if name not in OF_A_VIEW}
    seed = bytes.fromhex(sha256_of_record(of_pass))
    keys = [hashlib.sha256(seed + int(row).to_bytes(8, "little")).digest() for row in rows]
    return rows[sorted(range(len(keys)), key=keys.__getitem__)[:count]]
