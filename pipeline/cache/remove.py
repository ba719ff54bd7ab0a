"""Taking a feature set out of a cache: what is being removed never looks whole."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.cache.files import fsync_folder
from pipeline.cache.inventory import Entry
from pipeline.cache.lock import LOCK_FILE, FeatureSetLock
from pipeline.cache.manifest import MANIFEST
from pipeline.cache.sound import forget_sound
from pipeline.errors import CacheError
from pipeline.partials import remove


@contextmanager
def nobody_writes(folder: Path) -> Iterator[None]:
    """Within, no other process writes the feature set in `folder`: all its locks are held.

    Raises:
        CacheError: somebody is writing, or the folder cannot be locked.
    """
    with FeatureSetLock(folder).all_held() as is_free:
        if not is_free:
            raise CacheError(
                "a process is writing this feature set",
                where=folder,
                found="one that holds its lock",
                remedy="wait for it or stop it",
            )
        yield


def remove_set(entry: Entry) -> None:
    """Remove a feature set, its manifest first: killed at any instant, this leaves nothing that looks whole.

    The task's and split's folders go too where that leaves them empty. Links are neither followed nor removed.

    Raises:
        CacheError: it is a link, or not called as a feature set is; somebody is writing it; the disk refuses.
    """
    remove_sets([entry])


def remove_sets(entries: Sequence[Entry]) -> None:
    """Remove feature sets, or none of them where one is written or is no set; errors and order as in `remove_set`.

    Where the disk refuses one, those before it are gone, as the error says.
    """
    for entry in entries:
        _refuse_what_is_no_set(entry)
    gone: list[str] = []
    try:
        with contextlib.ExitStack() as locks:
            for entry in entries:
                locks.enter_context(nobody_writes(entry.folder))
            for entry in entries:
                _empty(entry.folder)
                gone.append(entry.name)
    except OSError as error:
        raise CacheError(
            "a feature set cannot be removed",
            where=error.filename or entries[0].folder,
            found=(error.strerror or str(error)) + (f"; removed before: {', '.join(gone)}" if gone else ""),
            remedy="mend the folder's permissions and run the same command again",
        ) from error
    for entry in entries:
        forget_sound(entry.folder)
        with contextlib.suppress(OSError):  # others are in there still
            entry.folder.parent.rmdir()
            entry.folder.parent.parent.rmdir()


def _refuse_what_is_no_set(entry: Entry) -> None:
    if not entry.is_called_as_a_set or entry.link is not None:
        raise CacheError(
            "this is no feature set's folder, and is not removed",
            where=entry.folder,
            expected="a folder of the cache itself, called …-L<layer>-<pooling>-<12 hex digits>",
            found=entry.problem or entry.name,
            remedy="remove it by hand if it is not wanted",
        )


def _empty(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    fsync_folder(folder)
    for path in folder.iterdir():
        if path.name != LOCK_FILE:  # it goes last, with the folder, when the lock is given back
            remove(path)
