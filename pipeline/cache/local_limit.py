"""How much of a store's hidden states stays here: what was used longest ago makes way for what comes."""

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.cache.manifest import MANIFEST

STATES_SUFFIX = ".h5"


class LocalLimit:
    """Keeps the hidden states in a folder within a limit.

    Only what is safe elsewhere ever goes: files of a feature set whose manifest is here, which it never is before the
    set is whole at the store, and those that somebody says to be. A file that a process has mapped stays readable
    when it has lost its name.

    Args:
        folder: the local copy of a store.
        size_bytes: the most that hidden states may take in it, half-fetched ones too; None sets no limit.
    """

    def __init__(self, folder: Path, size_bytes: int | None) -> None:
        self.folder, self.size_bytes = folder, size_bytes
        self._used: dict[Path, int] = {}

    def note_use(self, path: Path) -> None:
        """A file is being read: it goes after those that are not."""
        self._used[path] = time.time_ns()

    def make_room(self, coming_bytes: int, *, safe: Iterable[Path] = ()) -> None:
        """Remove files until so many more bytes keep the limit, or nothing is left that may go.

        Args:
            safe: files that may go too, because they are whole at the store.
        """
        if self.size_bytes is None:
            return
        there = list(self._files())
        excess = sum(size_bytes for _, size_bytes, _ in there) + coming_bytes - self.size_bytes
        known = set(safe)
        for path, size_bytes, _ in sorted(there, key=lambda each: max(each[2], self._used.get(each[0], 0))):
            if excess <= 0:
                return
            if path.suffix == STATES_SUFFIX and (path in known or (path.parent / MANIFEST).is_file()):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                excess -= size_bytes

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """All files of hidden states, whole and half: path, bytes, and when they were written, in nanoseconds."""
        for root, _, names in os.walk(self.folder):
            for name in names:
                if STATES_SUFFIX in name:
                    path = Path(root, name)
                    with contextlib.suppress(FileNotFoundError):  # another process made room
                        found = path.lstat()
                        if stat.S_ISREG(found.st_mode):
                            yield path, found.st_size, found.st_mtime_ns
