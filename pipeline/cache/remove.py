"""Taking a feature set out of a cache: what is being removed never looks whole."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.cache.files import fsync_folder
from pipeline.cache.inventory import Entry
from pipeline.cache.lock import LOCK_FILE, FeatureSetLock
from pipeline.cache.manifest import MANIFEST
from pipeline.errors import CacheError
from pipeline.partials import is_abandoned, remove


@contextmanager
def nobody_writes(folder: Path) -> Iterator[None]:
    """Within, no other process writes the feature set in `folder`: its lock is held, and nothing partial is alive.

    Raises:
        CacheError: somebody is writing, or may be.
    """
    with FeatureSetLock(folder).all_held() as is_free:
        if not is_free:
            raise CacheError(
                "a process is writing this feature set",
                where=folder,
                found="one that holds its lock",
                remedy="wait for it or stop it",
            )
        if living := sorted(path.name for path in folder.glob(".*.partial") if not is_abandoned(path)):
            raise CacheError(
                "a process may be writing this feature set",
                where=folder,
                found=f"{living[0]}, of a process that is alive or on another machine",
                remedy="wait for it or stop it; if it is dead, remove that file by hand",
            )
        yield


def remove_set(entry: Entry) -> None:
    """Remove a feature set, its manifest first: killed at any instant, this leaves nothing that looks whole.

    The task's and split's folders go too where that leaves them empty. Links are neither followed nor removed.

    Raises:
        CacheError: it is a link, or not called as a feature set is; somebody may be writing it; the disk refuses.
    """
    folder = entry.folder
    if not entry.is_called_as_a_set or entry.link is not None:
        raise CacheError(
            "this is no feature set's folder, and is not removed",
            where=folder,
            expected="a folder of the cache itself, called …-L<layer>-<pooling>-<12 hex digits>",
            found=entry.problem or entry.name,
            remedy="remove it by hand if it is not wanted",
        )
    try:
        with nobody_writes(folder):
            (folder / MANIFEST).unlink(missing_ok=True)
            fsync_folder(folder)
            for path in folder.iterdir():
                if path.name != LOCK_FILE:  # it goes last, with the folder, when the lock is given back
                    remove(path)
    except OSError as error:
        raise CacheError(
            "a feature set cannot be removed",
            where=error.filename or folder,
            found=error.strerror or str(error),
            remedy="mend the folder's permissions and run the same command again",
        ) from error
    with contextlib.suppress(OSError):  # others are in there still
        folder.parent.rmdir()
        folder.parent.parent.rmdir()
