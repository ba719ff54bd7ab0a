"""How much of the machine this process may use: cores and memory, as the kernel's control groups limit them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_LIMIT = 2**60
"""The first version of control groups writes a number beyond any memory where there is no limit."""


@dataclass(frozen=True)
class Limits:
    """What the control groups of this process leave to it.

    Args:
        cores: at most so many at a time, or None without a limit.
        memory_bytes: at most so much, or None without a limit.
        free_bytes: what is left of that, or None without a limit.
    """

    cores: float | None
    memory_bytes: int | None
    free_bytes: int | None


def read_limits(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> Limits:
    """The tightest limits of this process' control groups and of those that they lie in, of either version."""
    cores, sizes, left = [], [], []
    for folder in _folders(own, mounted):
        quota = _words(folder / "cpu.max")
        quota = quota or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            cores.append(int(quota[0]) / int(quota[1]))
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        if limit and limit[0] != "max" and int(limit[0]) < NO_LIMIT:
            sizes.append(int(limit[0]))
            left.append(int(limit[0]) - (int(used[0]) if used else 0) + _cached_bytes(folder))
    return Limits(min(cores, default=None), min(sizes, default=None), min(left, default=None))


def _folders(own: Path, mounted: Path) -> Iterator[Path]:
    """The control groups of this process, each with those that it lies in.

    In a container, a group's path is often the host's, and what is mounted is the group itself.
    """
    with contextlib.suppress(OSError):
        for line in own.read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            roots = [mounted / name for name in (controllers, *controllers.split(","))] if controllers else [mounted]
            for root in dict.fromkeys(root for root in roots if root.is_dir()):
                folder = root / path.lstrip("/")
                yield from (each for each in (folder, *folder.parents) if each.is_dir() and each.is_relative_to(root))


def _cached_bytes(folder: Path) -> int:
    """Of what a group uses, the files' pages that the kernel drops first."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text("ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except OSError:
        return []


def memory_bytes(table: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """The machine's memory, and what of it is available; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = dict(line.split(":", 1) for line in table.read_text("ascii").splitlines())
        return 1024 * int(lines["MemTotal"].split()[0]), 1024 * int(lines["MemAvailable"].split()[0])
    return None


def available_bytes() -> int | None:
    """Memory that this process can still take: what the machine has available, or less where a group limits it."""
    machine, limits = memory_bytes(), read_limits()
    return min((each for each in (machine and machine[1], limits.free_bytes) if each is not None), default=None)
