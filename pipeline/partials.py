"""Names of what is being written: they say whose it is, so that what the dead left can be told from living work."""

import contextlib
import os
import re
import shutil
import socket
import uuid
from functools import cache
from pathlib import Path

PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.partial")


def partial_path(path: Path) -> Path:
    """A unique name beside `path` to write under before renaming: it carries the writer's host and process."""
    return path.with_name(f".{path.name}.{this_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")


def is_abandoned(path: Path) -> bool:
    """Whether a partial file or folder is of a process of `this_host` that has ended; any other may be alive."""
    match = PARTIAL.fullmatch(path.name)
    return match is not None and match["host"] == this_host() and not _is_alive(int(match["pid"]))


def remove(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a folder with all that is in it.

    Raises:
        OSError: it cannot be removed; what is gone already is no error.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@cache
def this_host() -> str:
    """Where this process' id means this process: the host's name, its boot and its namespace of process ids.

    Containers may share a host's name, and a machine may take over another's; neither sees the other's processes.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # no /proc
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
        parts += [boot, str(Path("/proc/self/ns/pid").stat().st_ino)]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
