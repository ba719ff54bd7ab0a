"""What was measured of files, remembered for as long as these do not change."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.digests import sha256_of_record
from pipeline.partials import partial_path

SETTLED_SECONDS = 2.0
"""A file that changed later than this before it was measured is not remembered: it may yet change in the same tick."""

Facts = Mapping[str, Any]
"""What JSON can hold."""


class FileMemory:
    """Remembers what was measured of files, so that it is measured once.

    An entry holds for as long as its file has the same path, size, times of change (of the content, and of the file's
    record, which nobody can set back) and inode. The memory only saves time: where it is damaged, belongs to another
    user or cannot be written, files are measured again.

    Args:
        path: the JSON file that it is kept in.
        is_sound: whether facts are of the kind that is remembered here.
        learns: whether what is measured is written there too.
    """

    def __init__(self, path: Path, is_sound: Callable[[Facts], bool], *, learns: bool = True) -> None:
        self.path, self._is_sound, self._learns = path, is_sound, learns

    def facts(self, files: Iterable[Path], measure: Callable[[Path], Facts]) -> dict[Path, Facts]:
        """The facts of each file; of those that are not known they are measured, and remembered."""
        known, found = self._read(), dict[Path, Facts]()
        for path in files:
            place, state = str(path.resolve()), state_of(path)
            entry = known.get(place)
            if entry is None or entry["state"] != state:
                entry = {"state": state, **measure(path)}
                if self._learns and _is_settled(state):
                    known = {**self._read(), place: entry}  # another process may have learnt something meanwhile
                    self._write(known)
            found[path] = {name: value for name, value in entry.items() if name != "state"}
        return found

    def _read(self) -> dict[str, Any]:
        try:
            if self.path.is_symlink() or self.path.stat().st_uid != os.getuid():
                return {}
            record = json.loads(self.path.read_text("utf-8"))
            files = record["files"]
            if record["check"] != sha256_of_record(files):  # a flipped bit
                return {}
            if all(self._is_sound(entry) and isinstance(entry["state"], list) for entry in files.values()):
                return dict(files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return {}

    def _write(self, known: dict[str, Any]) -> None:
        there = {place: entry for place, entry in known.items() if Path(place).exists()}
        record = {"files": there, "check": sha256_of_record(there)}
        partial = partial_path(self.path)
        with contextlib.suppress(OSError):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(record, indent=1, sort_keys=True), "utf-8")
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)


def state_of(path: Path) -> list[int]:
    """What tells whether a file may have changed: device, inode, bytes, times of change in nanoseconds."""
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_settled(state: list[int]) -> bool:
    return time.time_ns() - max(state[3:]) > SETTLED_SECONDS * 1e9
