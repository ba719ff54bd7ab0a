"""Opening a file of the cache to read it: a regular file of the folder itself, never a link, a pipe or a device."""

import io
import os
import stat
import time
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from pipeline.errors import DamagedFeatureSet

_FLAGS = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"))


class FileKey(NamedTuple):
    """What tells one content of one file from another without reading it: any write or replacement changes it.

    Args:
        is_settled: whether its last change was long enough ago that a later one must show. The clocks of file systems
            are coarse: two writes in one tick look like one.
    """

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    is_settled: bool

    @property
    def content(self) -> tuple[int, ...]:
        """What the key says of the content, whenever it was asked."""
        return self[:5]

    @classmethod
    def of(cls, descriptor: int) -> "FileKey":
        """The key of an open file."""
        return cls._of(os.fstat(descriptor))

    @classmethod
    def of_path(cls, path: Path) -> "FileKey":
        """The key of a regular file, without opening it.

        Raises:
            OSError: it is not there, or is a link, a folder, a pipe or a device.
        """
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a link" if stat.S_ISLNK(found.st_mode) else "a folder, a pipe or a device"
            raise OSError(f"it is {kind}, and no file of the cache's own")
        return cls._of(found)

    @classmethod
    def _of(cls, found: os.stat_result) -> "FileKey":
        changed_ns = max(found.st_mtime_ns, found.st_ctime_ns)
        is_settled = time.time_ns() - changed_ns > SETTLED_NS
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, is_settled)


SETTLED_NS = 2_000_000_000
Fact = TypeVar("Fact")


class Remembered(Generic[Fact]):
    """What this process found out about files, for as long as nobody changes them."""

    def __init__(self) -> None:
        self._facts: dict[Hashable, Fact] = {}

    def get(self, *about: Hashable) -> Fact | None:
        """The fact that was kept about the same content, or None."""
        return self._facts.get(about)

    def keep(self, fact: Fact, *about: Hashable, keys: Iterable[FileKey]) -> None:
        """Keep a fact, unless a file was changed so lately that the next change might not show.

        Args:
            about: what the fact is about; it holds the files' keys.
            keys: of all the files that it was found in, taken before they were read.
        """
        if all(key.is_settled for key in keys):
            self._facts[about] = fact

    def forget(self) -> None:
        """Start anew, as a new process does."""
        self._facts.clear()


def open_to_read(path: Path) -> io.FileIO:
    """Open a regular file, unbuffered; it neither follows a link nor waits for the other end of a pipe.

    Raises:
        OSError: it is not there, may not be read, or is a link, a folder, a pipe or a device.
    """
    FileKey.of_path(path)  # before it is opened: opening a device can already do something
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no file of the cache's own")
    return io.FileIO(descriptor, "r", closefd=True)


def refuse_links(folder: Path) -> None:
    """Refuse a feature set's folder that is a link, or lies under a task or split that is one.

    The cache's own folder may be a link: where a cache lies is its owner's choice.

    Raises:
        DamagedFeatureSet: it names the link.
    """
    for path in (folder, folder.parent, folder.parent.parent):
        if path.is_symlink():
            raise DamagedFeatureSet("a feature set is a link", where=path, expected="a folder of the cache itself")
