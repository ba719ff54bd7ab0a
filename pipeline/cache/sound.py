"""What this machine knows to be sound without reading it: files that it wrote or verified, and nobody changed since.

In the user's own cache of such things (`$XDG_CACHE_HOME` or `~/.cache`, then `feature-cache-pipeline/sound`) a feature
set has a note, a line for each file whose every byte was looked at: which content it was (device, inode, size, times of
change) and its fast digest. Any write through the system changes the time of change, which nobody can set back, so the
line no longer speaks of what is there; nor does it of a file copied elsewhere. Only file systems that are known to keep
these times honestly are believed. Without the note, or where it is damaged, everything is looked at again: it only
saves time.
"""

import contextlib
import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.cache.files import append_line, whole_file
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.reading import FileKey
from pipeline.errors import CacheError

FOLDER = Path("feature-cache-pipeline", "sound")
MOST_BYTES = 2**20
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
        the key, or None where the clock does not move on, or the file system is none that is believed.
    """
    key = FileKey.of_path(path)
    if not tells_of_writes(key):
        return None
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


HONEST = {"ext2", "ext3", "ext4", "xfs", "f2fs", "overlay"}
"""File systems of this machine's own disks whose time of change tells of every write: tmpfs hides those through a map
that was read first, network file systems answer from memory."""


def tells_of_writes(key: FileKey) -> bool:
    """Whether the file system that a file lies on is one that is known to tell of every write."""
    return _kind_of(key.device) in HONEST


@lru_cache
def _kind_of(device: int) -> str | None:
    """What kind of file system a device holds, as Linux says; None where nothing says so."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == wanted:
                return source.split()[0]
    return None


def note_sound(path: Path, key: FileKey, xxh3: str) -> None:
    """Note a file of a feature set all of whose bytes were looked at; where it cannot be written, nothing is.

    Args:
        key: taken before the file was read, and settled then, with nothing left to write back.
    """
    if not tells_of_writes(key):
        return
    note, line = note_on(path.parent), json.dumps({"name": path.name, "file": key.content, "xxh3": xxh3})
    with contextlib.suppress(OSError, CacheError):
        note.parent.mkdir(parents=True, exist_ok=True)
        lines = _lines(note)
        kept = [each for each in lines if (_record(each) or {}).get("name") != path.name]
        if len(kept) == len(lines):
            append_line(note, line)
        elif line.encode() not in lines:  # what was said of the file before is no longer true
            with whole_file(note) as partial:
                partial.write_bytes(b"".join(each + b"\n" for each in [*kept, line.encode()]))


def read_sound(folder: Path) -> Sound:
    """What is noted of a feature set's files; nothing where there is no such note or it cannot be read."""
    records = [_record(line) for line in _lines(note_on(folder))]
    return frozenset((tuple(record["file"]), record["xxh3"]) for record in records if record is not None)


def note_on(folder: Path) -> Path:
    """Where the note on a feature set is kept."""
    place = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:32]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / FOLDER / f"{place}.jsonl"


def forget_sound(folder: Path) -> None:
    """Remove the note on a feature set that is gone."""
    with contextlib.suppress(OSError):
        note_on(folder).unlink(missing_ok=True)


def _lines(note: Path) -> list[bytes]:
    try:
        return read_bounded(note, MOST_BYTES).splitlines() if note.stat().st_uid == os.getuid() else []
    except (OSError, ValueError):
        return []


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line says, if it is such a line."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    wanted: dict[str, Any] = {"name": str, "file": list, "xxh3": str}
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in wanted.items()):
        return None
    return record if all(type(number) is int for number in record["file"]) else None
