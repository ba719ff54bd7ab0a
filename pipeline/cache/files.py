"""Files that are whole or not there: written under a unique partial name, fsynced, renamed, the folder fsynced."""

import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import CacheError

PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.partial")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a partial path to write to; on leaving, the written file appears at `path`, whole.

    If the body raises, nothing appears and the partial file is removed. A process that is killed leaves its partial
    file behind; `clear_partials` removes it later.

    Raises:
        CacheError: the disk is full, or the folder cannot be written to.
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
        _fsync_folder(path.parent)
    except OSError as error:
        raise CacheError(
            "a file of the cache cannot be written",
            where=path,
            found=error.strerror or str(error),
            remedy="make room, or mend the folder's permissions, and run the same command again: what is whole is kept",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_partials(folder: Path) -> int:
    """Remove the partial files that dead processes of this host left in `folder`; give their number."""
    abandoned = [path for path in folder.glob(".*.partial") if is_abandoned(path)]
    for path in abandoned:
        path.unlink(missing_ok=True)
    return len(abandoned)


def partial_path(path: Path) -> Path:
    """A unique name beside `path` to write under before renaming: it carries the writer's host and process."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")


def is_abandoned(path: Path) -> bool:
    """Whether a partial file is of a process of this host that has ended; any other may be alive."""
    match = PARTIAL.fullmatch(path.name)
    return match is not None and match["host"] == _host() and not _is_alive(int(match["pid"]))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
