"""Whether stored numbers are all finite, at the speed of memory: the exact answer by the cheapest test."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

_BLOCK_BYTES = 2**19
MOST_THREADS = 4
_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}


def all_finite(bits: np.ndarray, dtype: str) -> bool:
    """Whether every number is finite.

    float32: the sum of a block is finite only if every number of it is; where it is not (a NaN, an infinity, or a sum
    that overflows), the block is looked at number by number. 16-bit types: a number is finite where its exponent's
    bits are not all ones, so the greatest of the bits, read with and without a sign, decides.

    Args:
        bits: any shape; raw bits (uint16) where `dtype` is bfloat16.
        dtype: float32, float16 or bfloat16.
    """
    flat = bits.reshape(-1)  # a view: what is stored is contiguous
    test = _float32_is_finite if dtype == "float32" else partial(_bits_are_finite, _EXPONENT[dtype])
    return all(test(block) for block in _blocks(flat))


def find_not_finite(parts: Sequence[np.ndarray], dtype: str) -> int | None:
    """The place of the first part that holds a number that is not finite, or None; several threads share the parts."""
    workers = min(MOST_THREADS, _cores(), len(parts))
    if workers < 2:
        return next((place for place, part in enumerate(parts) if not all_finite(part, dtype)), None)
    with ThreadPoolExecutor(workers) as pool:
        answers = list(pool.map(lambda part: all_finite(part, dtype), parts))
    return answers.index(False) if False in answers else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blocks(flat: np.ndarray) -> Iterator[np.ndarray]:
    step = _BLOCK_BYTES // flat.itemsize
    return (flat[first : first + step] for first in range(0, len(flat), step))


def _float32_is_finite(block: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.add.reduce(block))) or bool(np.isfinite(block).all())


def _bits_are_finite(exponent: int, block: np.ndarray) -> bool:
    return bool(block.view("<i2").max() < exponent and block.view("<u2").max() < exponent + 0x8000)
