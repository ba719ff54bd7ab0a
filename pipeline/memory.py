"""How much memory there is to take."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_part: int | None = None


@contextmanager
def part_of_memory(processes: int) -> Iterator[None]:
    """Within, this process has no more than its part of the memory that is free now.

    Args:
        processes: that share the memory, this one among them.
    """
    global _part
    before, _part = _part, free_bytes() // processes
    try:
        yield
    finally:
        _part = before


def free_bytes() -> int:
    """Memory that is free to take, page cache included; within `part_of_memory` at most that part."""
    free = _free_of_machine()
    return free if _part is None else min(free, _part)


def _free_of_machine() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
