"""Parts of several files as one array, without copying: mapped one after another into one range of addresses."""

import ctypes
import io
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

# The same bits on every system that has them: mmap(2) of Linux and of the BSDs, macOS among them.
_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED = 1, 2, 16


Opener = Callable[[], AbstractContextManager[io.FileIO]]


@dataclass(frozen=True)
class Extent:
    """A stretch of a file.

    Args:
        open: opens the file; it is closed again as soon as the stretch is mapped.
        place: where the stretch begins, in bytes.
        size_bytes: how long it is.
    """

    open: Opener
    place: int
    size_bytes: int


class _SystemMap(Protocol):
    def __call__(self, address: int, size: int, protection: int, flags: int, descriptor: int, place: int, /) -> int: ...


def _find_system_map() -> _SystemMap | None:
    """The C library's mmap, or None where there is none to be called: then several files are copied together."""
    if os.name != "posix" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).mmap
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_ssize_t  # -1 is a failure; an address of a 64-bit process is never negative
    function.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    return function


HUGE_PAGE_BYTES = 2**21
SYSTEM_MAP = _find_system_map()


def can_join(extents: Sequence[Extent]) -> bool:
    """Whether these stretches can stand side by side in memory: all begin on a page, all but the last end on one."""
    return SYSTEM_MAP is not None and all(
        extent.place % mmap.PAGESIZE == 0
        and (extent.size_bytes % mmap.PAGESIZE == 0 or number == len(extents) - 1)
        and extent.size_bytes > 0
        for number, extent in enumerate(extents)
    )


def map_extents(
    extents: Sequence[Extent], dtype: np.dtype[Any], shape: tuple[int, ...], *, private: bool = False
) -> np.ndarray:
    """Map stretches of files as one array of `shape`; nothing is read and, where `can_join`, nothing is copied.

    The array keeps the mapping alive and its end unmaps it. Where the stretches cannot be
    joined, the array is a copy of them.

    Args:
        extents: in the array's order.
        private: make the array writable, each write staying in this process's memory and never reaching a file;
            otherwise it is read-only.

    Raises:
        ValueError: a stretch lies beyond its file's end, which reading the map would answer by killing the process,
            or the stretches are not of the array's size.
        OSError: the system refuses the map.
    """
    total = math.prod(shape) * dtype.itemsize
    if sum(extent.size_bytes for extent in extents) != total:
        raise ValueError(f"stretches of {sum(e.size_bytes for e in extents)} bytes are no array of {total}")
    if not total:
        return _finish(np.empty(shape, dtype), private)
    if can_join(extents):
        return _joined(extents, dtype, total, private).reshape(shape)
    if len(extents) == 1:
        return _mapped_alone(extents[0], dtype, private).reshape(shape)
    return _finish(np.concatenate([_mapped_alone(extent, dtype, False) for extent in extents]).reshape(shape), private)


def _finish(copy: np.ndarray, private: bool) -> np.ndarray:
    copy.flags.writeable = private
    return copy


def _joined(extents: Sequence[Extent], dtype: np.dtype[Any], total: int, private: bool) -> np.ndarray:
    # Python owns the range and unmaps all of it, whatever was mapped over it, when the last view of it is gone.
    protection = _PROT_READ | (_PROT_WRITE if private else 0)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    pages = mmap.mmap(-1, total + HUGE_PAGE_BYTES, flags=flags, prot=protection)
    start = np.frombuffer(pages, np.uint8).ctypes.data
    lead = (extents[0].place - start) % HUGE_PAGE_BYTES  # where memory and file agree in place, huge pages can serve
    whole = np.frombuffer(pages, dtype, total // dtype.itemsize, lead)
    address = start + lead
    assert SYSTEM_MAP is not None
    for extent in extents:
        over = (_MAP_PRIVATE | _NO_RESERVE if private else _MAP_SHARED) | _MAP_FIXED
        with _opened(extent) as descriptor:
            found = SYSTEM_MAP(address, extent.size_bytes, protection, over, descriptor, extent.place)
        if found != address:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        address += extent.size_bytes
    return whole


@contextmanager
def _opened(extent: Extent) -> Iterator[int]:
    with extent.open() as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if extent.place < 0 or extent.size_bytes < 0 or extent.place + extent.size_bytes > size_bytes:
            raise ValueError(f"{extent.size_bytes} bytes at {extent.place} of a file of {size_bytes}")
        yield file.fileno()


# A copy-on-write map of more bytes than there is memory is no promise to write them all (MAP_NORESERVE of Linux).
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


def _mapped_alone(extent: Extent, dtype: np.dtype[Any], private: bool) -> np.ndarray:
    lead = extent.place % mmap.ALLOCATIONGRANULARITY
    access = mmap.ACCESS_COPY if private else mmap.ACCESS_READ
    with _opened(extent) as descriptor:
        pages = mmap.mmap(descriptor, lead + extent.size_bytes, access=access, offset=extent.place - lead)
    return np.frombuffer(pages, dtype, extent.size_bytes // dtype.itemsize, lead)
