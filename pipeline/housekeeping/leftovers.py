"""What is not whole: found in the cache and beside runs and models, and removed where nobody is writing it."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.cache.files import DAMAGED
from pipeline.cache.inventory import Entry, list_entries, lstat_or_none
from pipeline.cache.remove import nobody_writes, remove_set
from pipeline.errors import CacheError, RunError
from pipeline.housekeeping.feature_sets import Ask, users_of
from pipeline.housekeeping.tables import readable_size
from pipeline.partials import is_abandoned, remove
from pipeline.results.ledger import runs_by_feature_set

Kind = Literal["unfinished set", "partial", "set aside"]


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


def find_leftovers(cache_dir: Path, runs_dir: Path, models_dir: Path) -> list[Leftover]:
    """What is not whole in the cache, and partial folders and files beside runs and models."""
    try:
        users, unknown = runs_by_feature_set(runs_dir), ""
    except RunError as error:
        users, unknown = {}, error.what
    found = []
    for entry in list_entries(cache_dir):
        if not entry.is_called_as_a_set or entry.link is not None:
            continue
        found += _in_a_set(entry.folder)
        if entry.state == "unfinished":
            why = _written_by_another(entry.folder) or unknown
            if not why and users_of(entry, users):
                why = (
                    "runs refer to it: the same pipeline extract goes on from it, pipeline cache rm --force removes it"
                )
            found.append(Leftover(entry.folder, "unfinished set", entry.rows, entry.size_bytes, why, entry))
    for folder in (cache_dir, runs_dir, models_dir):
        found += _partials(folder)
    return found


def _in_a_set(folder: Path) -> list[Leftover]:
    """The partial files of a feature set, nobody's where its locks are free, and what was set aside there."""
    partials, aside = sorted(folder.glob(".*.partial")), sorted(folder.glob(f"*{DAMAGED}"))
    why = _written_by_another(folder) if partials else ""
    return [
        *(Leftover(path, "partial", 0, _size_bytes(path), why, within=folder) for path in partials),
        *(Leftover(path, "set aside", 0, _size_bytes(path), "", within=folder) for path in aside),
    ]


def _written_by_another(folder: Path) -> str:
    try:
        with nobody_writes(folder):
            return ""
    except CacheError as error:
        return f"{error.what}: {error.found}"


def collect_leftovers(leftovers: Iterable[Leftover], *, dry_run: bool, ask: Ask) -> list[dict[str, Any]]:
    """Remove what is not whole and not being written; unfinished feature sets only where the answer is yes.

    Returns:
        one record each: path, kind, rows, size_bytes, `status` (removed, kept, or would be removed) and why it is kept.
    """
    leftovers = list(leftovers)
    sets = [left for left in leftovers if left.entry is not None and not left.kept]
    agreed = False
    if sets and not dry_run:
        lines = [f"{left.path}: {left.rows:,} rows done, {readable_size(left.size_bytes)}" for left in sets]
        agreed = ask("\n".join([*lines, "Remove these unfinished feature sets, and the work in them?"]))
    records = []
    for left in leftovers:
        if left.kept:
            records.append(left.to_dict("kept"))
        elif dry_run:
            records.append(left.to_dict("would be removed"))
        elif left.entry is not None and not agreed:
            records.append({**left.to_dict("kept"), "why": "not agreed to; --yes removes it"})
        else:
            records.append(_remove(left))
    return records


def _remove(left: Leftover) -> dict[str, Any]:
    try:
        if left.entry is not None:
            remove_set(left.entry)
        else:
            with nobody_writes(left.within) if left.within else contextlib.nullcontext():
                remove(left.path)
    except (CacheError, OSError) as error:
        return {**left.to_dict("kept"), "why": str(error).splitlines()[0]}
    return left.to_dict("removed")


def _partials(folder: Path) -> list[Leftover]:
    """The partial files and folders right in `folder`, where no feature set is."""
    alive = "a process that is alive, on another machine or unknown may be writing it"
    return [
        Leftover(path, "partial", 0, _size_bytes(path), "" if is_abandoned(path) else alive)
        for path in sorted(folder.glob(".*.partial"))
    ]


def _size_bytes(path: Path) -> int:
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(root) / name for root, _, names in os.walk(path) for name in names]
    return sum(status.st_size for file in files if (status := lstat_or_none(file)) is not None)
