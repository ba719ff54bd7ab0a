"""Whether stored numbers are all finite and those that were sealed: the exact answer in one pass over memory."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import xxhash

from pipeline.threads import usable_cores

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
    return all(map(_test_for(dtype), _blocks(flat)))


def examine(before: bytes, bits: np.ndarray, after: bytes, dtype: str) -> tuple[bool, str]:
    """Whether every number is finite, and the XXH3 of the file that they stand in, out of one pass over them.

    Args:
        before, after: what stands around the numbers in the file.
        bits: as in `all_finite`.
    """
    digest = xxhash.xxh3_128(before)
    test = _test_for(dtype)
    finite = True
    for block in _blocks(bits.reshape(-1)):
        digest.update(block.data)
        finite = finite and test(block)
    digest.update(after)
    return finite, digest.hexdigest()


def examine_all(examinations: Sequence[Callable[[], tuple[bool, str]]]) -> list[tuple[bool, str]]:
    """Do several examinations, in threads where there are cores for them; answers in order."""
    workers = min(MOST_THREADS, usable_cores(), len(examinations))
    if workers < 2:
        return [examination() for examination in examinations]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda examination: examination(), examinations))


def _test_for(dtype: str) -> Callable[[np.ndarray], bool]:
    return _float32_is_finite if dtype == "float32" else partial(_bits_are_finite, _EXPONENT[dtype])


def _blocks(flat: np.ndarray) -> Iterator[np.ndarray]:
    step = _BLOCK_BYTES // flat.itemsize
    return (flat[first : first + step] for first in range(0, len(flat), step))


def _float32_is_finite(block: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.add.reduce(block))) or bool(np.isfinite(block).all())


def _bits_are_finite(exponent: int, block: np.ndarray) -> bool:
    return bool(block.view("<i2").max() < exponent and block.view("<u2").max() < exponent + 0x8000)
