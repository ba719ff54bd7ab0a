"""What this machine knows to be sound without reading it: files that it wrote or verified, and nobody changed since.

Beside a feature set stands `.sound.jsonl`, a line for each file whose every byte was looked at: which content it was
(device, inode, size, times of change) and its fast digest. Any write or replacement changes the time of change, which
nobody can set back, so the line no longer speaks of what is there; nor does it of a copy on another disk or machine. On
a file system that keeps a write to itself (tmpfs, where the write goes through a memory map) nothing is noted. Without
the file, or where it is damaged, everything is looked at again: it only saves time.
"""

import contextlib
import json
import mmap
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.cache.files import append_line
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.reading import FileKey

SOUND = ".sound.jsonl"
PATIENCE_SECONDS = 3.0
"""How long to wait for a file system's clock to move on: the coarsest count in twos."""

Sound = frozenset[tuple[tuple[int, ...], str]]
"""Pairs of a file's content, as `FileKey.content` tells it, and its XXH3."""


def settled_key(path: Path, *, touch: Path) -> FileKey | None:
    """The key of a file that was written just now, once any later write to it must show.

    Args:
        touch: a file of the same file system, written after `path`; its times are set to now until its clock, which is
            coarse, tells the two apart. No clock but the file system's own is asked.

    Returns:
        the key, or None where the clock does not move on.
    """
    key = FileKey.of_path(path)
    with touch.open("rb") as file:
        return key if _is_past(max(key.ctime_ns, key.mtime_ns), file.fileno()) else None


def _is_past(moment_ns: int, descriptor: int) -> bool:
    """Wait until the file system's clock, as an open file that is touched tells it, is past a moment."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while os.fstat(descriptor).st_ctime_ns <= moment_ns:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.002)
        os.utime(descriptor)
    return True


_SHOWS_WRITES: dict[int, bool] = {}
"""By device, what `_shows_writes` found."""


def _shows_writes(folder: Path) -> bool:
    """Whether a file's time of change tells of a write through a memory map that was read first; tried out once."""
    device = folder.stat().st_dev
    if device not in _SHOWS_WRITES:
        with tempfile.TemporaryFile(dir=folder) as file, tempfile.TemporaryFile(dir=folder) as clock:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            before_ns = os.fstat(file.fileno()).st_ctime_ns
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as pages:
                was = pages[0]
                moved = _is_past(before_ns, clock.fileno())
                pages[0] = was + 1
                pages.flush()
            _SHOWS_WRITES[device] = moved and os.fstat(file.fileno()).st_ctime_ns > before_ns
    return _SHOWS_WRITES[device]


def note_sound(folder: Path, key: FileKey, xxh3: str) -> None:
    """Note a file of a feature set all of whose bytes were looked at; where it cannot be written, nothing is.

    Args:
        key: taken before the file was read, and settled then.
    """
    with contextlib.suppress(OSError):
        if (key.content, xxh3) not in read_sound(folder) and _shows_writes(folder):
            append_line(folder / SOUND, json.dumps({"file": key.content, "xxh3": xxh3}))


def read_sound(folder: Path) -> Sound:
    """What is noted of a feature set's files; nothing where there is no such note or it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        lines = read_bounded(folder / SOUND).splitlines()
        return frozenset(pair for line in lines if (pair := _pair(line)) is not None)
    return frozenset()


def _pair(line: bytes) -> tuple[tuple[int, ...], str] | None:
    try:
        record: Any = parse_json(line)
        return tuple(record["file"]), str(record["xxh3"])
    except (ValueError, KeyError, TypeError):
        return None
