"""Files that are whole or not there: written under a unique partial name, fsynced, renamed, the folder fsynced."""

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import CacheError, DiskFull
from pipeline.partials import is_abandoned, partial_path, remove


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a partial path to write to; on leaving, the written file appears at `path`, whole.

    If the body raises, nothing appears and the partial file is removed. A process that is killed leaves its partial
    file behind; `clear_partials` removes it later.

    Raises:
        DiskFull: it is.
        CacheError: the folder cannot be written to.
    """
    partial = partial_path(path)
    try:
        yield partial
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


FULL = (errno.ENOSPC, errno.EDQUOT)


def refused(path: Path, error: OSError) -> CacheError:
    """The error for a disk that did not take what was written."""
    reason = error.strerror or str(error)
    if error.errno in FULL or "No space left" in reason:
        return DiskFull(
            "the disk is full",
            where=path,
            found=f"{shutil.disk_usage(path.parent).free:,} bytes free",
            remedy="make room and run the same command again: what is whole is kept",
        )
    return CacheError(
        "a file of the cache cannot be written",
        where=path,
        found=reason,
        remedy="mend the folder's permissions and run the same command again: what is whole is kept",
    )


def fsync_folder(folder: Path) -> None:
    """Put on the disk which names the folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file that several processes add to; never through a link, nor to a file of two names.

    Raises:
        OSError: the disk refuses, or the file is not this folder's own.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        refuse_two_names(descriptor, path)
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def refuse_two_names(descriptor: int, path: Path) -> None:
    """Refuse an open file that has another name somewhere else, where writing to it would show.

    Raises:
        OSError: it has.
    """
    if os.fstat(descriptor).st_nlink > 1:
        raise OSError(errno.EMLINK, "it is a hard link to another file", str(path))


DAMAGED = ".damaged"


def set_aside(path: Path, *, forget: bool = False) -> None:
    """Take what is damaged out of use by renaming it, so that nobody trusts it and a person can still look at it.

    Args:
        forget: remove what was set aside from this place before, now that a good file stands there.
    """
    aside = path.with_name(path.name + DAMAGED)
    if forget:
        remove(aside)
        return
    if _is_folder(aside):
        remove(aside)  # nothing can be renamed to a folder's name
    path.replace(aside)


def set_aside_from(folder: Path) -> list[Path]:
    """Where something damaged was set aside in a folder, and nothing stands in its place yet; sorted."""
    places = (aside.with_name(aside.name.removesuffix(DAMAGED)) for aside in sorted(folder.glob(f"*{DAMAGED}")))
    return [path for path in places if not os.path.lexists(path)]


def make_way(path: Path) -> None:
    """Set a folder aside that stands where a file belongs: neither writing nor removing a file would replace it."""
    if _is_folder(path):
        set_aside(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def clear_partials_of(path: Path) -> None:
    """Remove every partial file of `path`: for whoever holds the lock without which nobody writes it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


def clear_partials(folder: Path) -> int:
    """Remove the partial files that dead processes of this host left in `folder`; give their number."""
    abandoned = [path for path in folder.glob(".*.partial") if is_abandoned(path)]
    for path in abandoned:
        path.unlink(missing_ok=True)
    return len(abandoned)
