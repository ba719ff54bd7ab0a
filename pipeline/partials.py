"""Names of what is being written: they say whose it is, so that what the dead left can be told from living work."""

import os
import re
import shutil
import socket
import uuid
from pathlib import Path

PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.partial")


def partial_path(path: Path) -> Path:
    """A unique name beside `path` to write under before renaming: it carries the writer's host and process."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")


def is_abandoned(path: Path) -> bool:
    """Whether a partial file or folder is of a process of this host that has ended; any other may be alive."""
    match = PARTIAL.fullmatch(path.name)
    return match is not None and match["host"] == _host() and not _is_alive(int(match["pid"]))


def remove(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a folder with all that is in it.

    Raises:
        OSError: it cannot be removed; what is gone already is no error.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
