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
        raise _refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


FULL = (errno.ENOSPC, errno.EDQUOT)


def _refused(path: Path, error: OSError) -> CacheError:
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


DAMAGED = ".damaged"


def set_aside(path: Path, *, forget: bool = False) -> None:
    """Take a damaged file out of use by renaming it, so that nobody trusts it and a person can still look at it.

    Args:
        forget: remove what was set aside from this place before, now that a good file stands there.
    """
    aside = path.with_name(path.name + DAMAGED)
    if forget:
        remove(aside)
    else:
        path.replace(aside)


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
