"""What is not whole: found in the cache and beside runs and models, and removed where nobody is writing it."""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.cache.files import DAMAGED
from pipeline.cache.inventory import Entry, list_entries, size_bytes
from pipeline.cache.local_copy import STORES
from pipeline.cache.remove import nobody_writes, remove_set
from pipeline.errors import CacheError, RunError
from pipeline.housekeeping.feature_sets import Ask, users_of
from pipeline.housekeeping.tables import readable_size
from pipeline.partials import is_abandoned, remove
from pipeline.results.ledger import TRAININGS, runs_by_feature_set

Kind = Literal["unfinished set", "stopped training", "partial", "set aside", "local copy"]


@dataclass(frozen=True)
class Leftover:
    """Something that is not whole.

    Args:
        path: the file or folder.
        kind: what it is.
        rows: rows computed, of an unfinished feature set.
        size_bytes: of all its files.
        kept: why it must stay, or nothing.
        entry: of an unfinished feature set.
        within: the feature set that it is in, under whose locks it goes; None where it is in none.
    """

    path: Path
    kind: Kind
    rows: int
    size_bytes: int
    kept: str
    entry: Entry | None = None
    within: Path | None = None

    @property
    def is_asked_about(self) -> bool:
        """Whether somebody might miss it: its command would go on from it, or its store may be gone."""
        return self.kind in ("unfinished set", "stopped training", "local copy")

    def __str__(self) -> str:
        what = {
            "unfinished set": f"{self.rows:,} rows done",
            "stopped training": "a stopped training",
            "local copy": "here of a set that was whole at its store",
        }.get(self.kind, self.kind)
        return f"{self.path}: {what}, {readable_size(self.size_bytes)}"

    def to_dict(self, status: str) -> dict[str, Any]:
        """The leftover as a JSON object, with what became of it."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "rows": self.rows,
            "size_bytes": self.size_bytes,
            "status": status,
            "why": self.kept,
        }


def find_leftovers(cache_dir: Path, runs_dir: Path, models_dir: Path, *, local_copies: bool = False) -> list[Leftover]:
    """What is not whole in the cache, and partial folders and files beside runs and models.

    Args:
        local_copies: also what is here of sets that were whole at their store when it was last read.
    """
    try:
        users, unknown = runs_by_feature_set(runs_dir), ""
    except RunError as error:
        users, unknown = {}, error.what
    found = []
    for entry in list_entries(cache_dir):
        if not entry.is_called_as_a_set or entry.link is not None:
            continue
        found += _in_a_set(entry)
        if entry.state == "unfinished" or entry.set_aside:
            why = _written_by_another(entry.folder) or unknown
            if not why and users_of(entry, users):
                why = (
                    "runs refer to it: the same pipeline extract goes on from it, pipeline cache rm --force removes it"
                )
            found.append(Leftover(entry.folder, "unfinished set", entry.rows, entry.size_bytes, why, entry))
    for store in sorted((cache_dir / STORES).glob("*")):
        for entry in list_entries(store):
            if entry.is_called_as_a_set and entry.link is None:
                found += _in_a_copy(entry, local_copies)
    for folder in (cache_dir, runs_dir, models_dir):
        found += _partials(folder)
    return found + _trainings(runs_dir)


def _in_a_copy(entry: Entry, local_copies: bool) -> list[Leftover]:
    """What of a store's feature set is here: parts of a stopped fetch, and all of it where that is asked for."""
    kind: Kind = "local copy" if entry.manifest is not None else "unfinished set"
    if kind == "local copy" and not local_copies:
        return _in_a_set(entry)
    why = _written_by_another(entry.folder)
    return [*_in_a_set(entry), Leftover(entry.folder, kind, entry.rows, entry.size_bytes, why, entry)]


def _in_a_set(entry: Entry) -> list[Leftover]:
    """The partial files of a feature set, nobody's where its locks are free, and what was set aside there.

    What was set aside and is not written again says that the set is damaged: it stays, or goes with the set.
    """
    folder, missing = entry.folder, {name + DAMAGED for name in entry.set_aside}
    partials = sorted(folder.glob(".*.partial"))
    aside = [path for path in sorted(folder.glob(f"*{DAMAGED}")) if path.name not in missing]
    why = _written_by_another(folder) if partials else ""
    return [
        *(Leftover(path, "partial", 0, size_bytes(path), why, within=folder) for path in partials),
        *(Leftover(path, "set aside", 0, size_bytes(path), "", within=folder) for path in aside),
    ]


def _written_by_another(folder: Path) -> str:
    try:
        with nobody_writes(folder):
            return ""
    except CacheError as error:
        return f"{error.what}: {error.found}"


def collect_leftovers(leftovers: Iterable[Leftover], *, dry_run: bool, ask: Ask) -> list[dict[str, Any]]:
    """Remove what is not whole and not being written; unfinished work and local copies only where the answer is yes.

    Returns:
        one record each: path, kind, rows, size_bytes, `status` (removed, kept, or would be removed) and why it is kept.
    """
    leftovers = list(leftovers)
    unfinished = [left for left in leftovers if left.is_asked_about and not left.kept]
    agreed = False
    if unfinished and not dry_run:
        agreed = ask("\n".join([*map(str, unfinished), "Remove these, and the work in them?"]))
    records = []
    for left in leftovers:
        if left.kept:
            records.append(left.to_dict("kept"))
        elif dry_run:
            records.append(left.to_dict("would be removed"))
        elif left.is_asked_about and not agreed:
            records.append({**left.to_dict("kept"), "why": "not agreed to; --yes removes it"})
        else:
            records.append(_remove(left))
    return records


def _remove(left: Leftover) -> dict[str, Any]:
    try:
        if left.entry is not None:
            remove_set(left.entry)
        elif left.kind == "stopped training":
            with _nobody_trains(left.path):
                remove(left.path)
            with contextlib.suppress(OSError):
                left.path.parent.rmdir()
        else:
            with nobody_writes(left.within) if left.within else contextlib.nullcontext():
                remove(left.path)
    except (CacheError, OSError) as error:
        return {**left.to_dict("kept"), "why": str(error).splitlines()[0]}
    return left.to_dict("removed")


def _trainings(runs_dir: Path) -> list[Leftover]:
    """The states of live trainings, whose commands were stopped, or ended with an error, and were not given again."""
    return [
        Leftover(path, "stopped training", 0, size_bytes(path), _in_training(path))
        for path in sorted((runs_dir / TRAININGS).glob("*"))
    ]


def _in_training(folder: Path) -> str:
    try:
        with _nobody_trains(folder):
            return ""
    except OSError as error:
        return str(error.strerror)


@contextlib.contextmanager
def _nobody_trains(folder: Path) -> Iterator[None]:
    """Hold a training's lock.

    Raises:
        OSError: a process holds it, or it cannot be had.
    """
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "a process is at this training") from error
        yield


def _partials(folder: Path) -> list[Leftover]:
    """The partial files and folders right in `folder`, where no feature set is."""
    alive = "a process that is alive, on another machine or unknown may be writing it"
    return [
        Leftover(path, "partial", 0, size_bytes(path), "" if is_abandoned(path) else alive)
        for path in sorted(folder.glob(".*.partial"))
    ]
