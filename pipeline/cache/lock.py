"""Locks of a feature set: whoever writes a shard holds it, and the kernel lets go of it when the writer dies.

POSIX byte-range locks on one file (fcntl(2), "advisory record locking"): NFS carries them between machines, and no
leftover of a dead process can hold anything. Slot 0 stands for the set itself, slot n + 1 for shard n; in its slot a
holder writes who it is, for those who wait. Readers need no lock: files appear whole, by rename.
"""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.cache.files import FULL, refuse_two_names, refused
from pipeline.cache.reading import refuse_links
from pipeline.errors import CacheError

LOCK_FILE = ".lock"
SLOT_BYTES = 128
SET = -1
"""Stands in a shard's place for the set itself: its manifest."""
POLL_SECONDS = 0.1
BUSY = (errno.EACCES, errno.EAGAIN)


class FeatureSetLock:
    """The locks of one feature set, held by this process as a whole: its threads exclude each other too.

    Args:
        folder: the feature set's folder; made when the first lock is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.path = Path(os.path.realpath(self.folder)) / LOCK_FILE  # one file has one name here, whatever leads to it

    def try_hold(self, shard: int = SET) -> bool:
        """Take a shard's lock (or the set's) if nobody has it, this process included.

        Raises:
            CacheError: the folder cannot be written to, or its file system has no locks.
            DamagedFeatureSet: a link stands in the set's place.
        """
        refuse_links(self.folder)
        with _mutex:
            held = _held.get(self.path)
            if held is not None and shard in held.slots:
                return False
            try:
                if held is None:
                    held = self._open_and_lock(shard)
                elif not _lock(held.descriptor, shard):
                    return False
            except OSError as error:
                if error.errno in FULL:
                    raise refused(self.path, error) from error
                raise CacheError(
                    "a feature set cannot be locked for writing",
                    where=self.path,
                    found=error.strerror,
                    remedy="mend the folder's permissions, or put the cache on a file system that has locks "
                    "(NFS: mount it without nolock)",
                ) from error
            if held is None:
                return False
            held.slots[shard] = threading.get_ident()
            who = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            with contextlib.suppress(OSError):  # a full disk takes no note, and needs none
                os.pwrite(held.descriptor, who.encode()[: SLOT_BYTES - 1].ljust(SLOT_BYTES, b"\n"), _start(shard))
            return True

    def release(self, shard: int = SET) -> None:
        """Give a lock back; the last one given back takes the lock file with it, if nobody else uses it."""
        with _mutex:
            held = _held[self.path]
            del held.slots[shard]
            if held.slots:
                fcntl.lockf(held.descriptor, fcntl.LOCK_UN, SLOT_BYTES, _start(shard))
                return
            del _held[self.path]
            try:
                with contextlib.suppress(OSError):
                    fcntl.lockf(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # every slot: nobody else is here
                    self.path.unlink(missing_ok=True)
                    self.folder.rmdir()  # if nothing was written
            finally:
                os.close(held.descriptor)

    def take_over(self, shard: int = SET) -> None:
        """Hold in this thread what another thread of this process holds."""
        with _mutex:
            _held[self.path].slots[shard] = threading.get_ident()

    def is_held(self, shard: int = SET) -> bool:
        """Whether this thread holds it."""
        with _mutex:
            return self.path in _held and _held[self.path].slots.get(shard) == threading.get_ident()

    @contextlib.contextmanager
    def held(self, shard: int = SET, *, timeout: float) -> Iterator[None]:
        """Hold a lock within; wait for it, `timeout` seconds at most. What this thread holds already is held.

        Raises:
            CacheError: another process has it for longer than that.
        """
        if self.is_held(shard):
            yield
            return
        began = time.monotonic()
        while not self.try_hold(shard):
            if time.monotonic() - began >= timeout:
                raise self.busy(shard, timeout)
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self.release(shard)

    @contextlib.contextmanager
    def all_held(self) -> Iterator[bool]:
        """Within, nobody else writes to this set; gives False, and holds nothing, if somebody does."""
        if not self.try_hold(SET):
            yield False
            return
        try:
            with _mutex:
                held = _held[self.path]
                free = set(held.slots) == {SET}
                if free:
                    try:
                        fcntl.lockf(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError as error:
                        if error.errno not in BUSY:
                            raise
                        free = False
            yield free
        finally:
            self.release(SET)

    @contextlib.contextmanager
    def alone(self, *, timeout: float) -> Iterator[None]:
        """Within, nobody else writes to this set; wait for those who do, `timeout` seconds at most.

        Raises:
            CacheError: somebody goes on for longer than that.
        """
        began = time.monotonic()
        while True:
            with self.all_held() as free:
                if free:
                    yield
                    return
            if time.monotonic() - began >= timeout:
                raise self.busy(SET, timeout)
            time.sleep(POLL_SECONDS)

    def busy(self, shard: int, seconds: float) -> CacheError:
        """The error for having waited in vain."""
        what = "the feature set" if shard == SET else f"shard {shard}"
        return CacheError(
            f"another process is writing {what}",
            where=self.folder,
            expected=f"that it lets go within {seconds:g} s",
            found=f"held by {self.holder(shard)}",
            remedy="wait for it or stop it, and run the same command again; --lock-timeout waits longer",
        )

    def holder(self, shard: int = SET) -> str:
        """Who said last that they hold it."""
        with _mutex:
            held = _held.get(self.path)
            try:
                # A second descriptor of the file would, when closed, let go of every lock that this process has on it.
                descriptor = held.descriptor if held else os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                return "nobody any more"
            try:
                said = os.pread(descriptor, SLOT_BYTES, _start(shard))
            finally:
                if not held:
                    os.close(descriptor)
        return said.strip(b"\0\n").decode("ascii", "replace") or "a process that left no name"

    def _open_and_lock(self, shard: int) -> "_Held | None":
        """Open the lock file and lock one slot; None if that is taken."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # its last holder removed the folder just now
                continue
            try:
                refuse_two_names(descriptor, self.path)
                if not _lock(descriptor, shard):
                    os.close(descriptor)
                    return None
                there = self.path.lstat()
            except FileNotFoundError:
                os.close(descriptor)
                continue
            except OSError:
                os.close(descriptor)
                raise
            mine = os.fstat(descriptor)
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                held = _held[self.path] = _Held(descriptor)
                return held
            os.close(descriptor)  # its last holder removed the file between the two steps


class _Held:
    """This process' open lock file: POSIX locks belong to the process, and go when any descriptor of it is closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.slots: dict[int, int] = {}  # and the thread that took it


_held: dict[Path, _Held] = {}
_mutex = threading.RLock()


def _after_fork() -> None:
    _held.clear()  # locks stay with the parent; its descriptors are closed on exec


os.register_at_fork(after_in_child=_after_fork)


def _start(shard: int) -> int:
    return (shard + 1) * SLOT_BYTES


def _lock(descriptor: int, shard: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOT_BYTES, _start(shard))
    except OSError as error:
        if error.errno in BUSY:
            return False
        raise
    return True
