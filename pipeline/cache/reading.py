"""Opening a file of the cache to read it: a regular file of the folder itself, never a link, a pipe or a device."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DamagedFeatureSet

_FLAGS = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"))


@dataclass(frozen=True)
class FileKey:
    """What tells one content of one file from another without reading it: any write or replacement changes it."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "FileKey":
        """The key of an open file."""
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def is_settled(self, now_ns: int) -> bool:
        """Whether a later write must show: clocks of file systems are coarse, two writes in one tick look like one."""
        return now_ns - max(self.mtime_ns, self.ctime_ns) > SETTLED_NS


SETTLED_NS = 2_000_000_000


def regular_size(path: Path) -> int:
    """The size in bytes of a regular file, without opening it.

    Raises:
        OSError: it is not there, or is a link, a folder, a pipe or a device.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "a folder, a pipe or a device"
        raise OSError(f"it is {kind}, and no file of the cache's own")
    return found.st_size


def open_to_read(path: Path) -> io.FileIO:
    """Open a regular file, unbuffered; it neither follows a link nor waits for the other end of a pipe.

    Raises:
        OSError: it is not there, may not be read, or is a link, a folder, a pipe or a device.
    """
    regular_size(path)  # before it is opened: opening a device can already do something
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
