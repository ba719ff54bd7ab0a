"""The feature sets of a cache and the runs that use them: listed, and removed."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cache.inventory import NAME, Entry, find_entry, list_entries
from pipeline.cache.remove import remove_sets
from pipeline.errors import CacheError, RunError
from pipeline.housekeeping.tables import readable_size
from pipeline.progress import say
from pipeline.results.ledger import runs_by_feature_set

Ask = Callable[[str], bool]
"""Puts a question to the person who waits; False where there is nobody."""


def feature_sets(cache_dir: Path, runs_dir: Path) -> list[dict[str, Any]]:
    """One record for each feature set of the cache, also for those that are unfinished or damaged.

    Returns:
        task, split, name, view, state (`whole`, `unfinished`, `damaged`), problem, rows (those done so far where it is
        not whole), size_bytes, created (UTC), source, fingerprint, and the names of the runs that use it (None where
        the ledger cannot be read).
    """
    try:
        users: Mapping[str, Sequence[str]] | None = runs_by_feature_set(runs_dir)
    except RunError as error:
        say(f"{error}\n  so it is not known which runs use which features")
        users = None
    return [_describe(entry, users) for entry in list_entries(cache_dir)]


def remove_feature_sets(
    names: Sequence[str], cache_dir: Path, runs_dir: Path, *, force: bool, ask: Ask
) -> list[dict[str, Any]]:
    """Remove feature sets: none of those named where one is unknown, used or being written.

    Args:
        names: as in `find_entry`.
        force: also those that runs refer to.
        ask: told what is to go.

    Returns:
        the records of `feature_sets` for what was removed; none where the answer was no.

    Raises:
        CacheError: a name calls none or several, runs refer to one, somebody is writing one; or the
            disk refuses one, and the error says which went before it.
        RunError: the ledger cannot be read, and it was not forced.
    """
    entries = list({entry.folder: entry for entry in (find_entry(cache_dir, name) for name in names)}.values())
    users: dict[str, list[str]] = {}
    try:
        users = runs_by_feature_set(runs_dir)
    except RunError as error:
        if not force:
            raise
        say(str(error))
    records = [_describe(entry, users) for entry in entries]
    used = [f"{record['name']}: {', '.join(record['runs'])}" for record in records if record["runs"]]
    if used and not force:
        raise CacheError(
            "runs refer to these features: without them they cannot be trained or explained again",
            where=cache_dir,
            found="\n    ".join(["", *used]),
            remedy="remove the runs' folders first, or say --force",
        )
    question = "\n".join(
        f"{_place(record)}: {record['rows']:,} rows, {readable_size(record['size_bytes'])}, "
        f"{len(record['runs'])} runs refer to it"
        for record in records
    )
    if not ask(f"{question}\nRemove {'these' if len(records) > 1 else 'this'} for good?"):
        return []
    remove_sets(entries)
    return records


def _describe(entry: Entry, users: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
    match = NAME.fullmatch(entry.name)
    return {
        "task": entry.task,
        "split": entry.split,
        "name": entry.name,
        "view": f"L{match['layer']}-{match['pooling']}" if match else None,
        "state": entry.state,
        "problem": entry.problem or None,
        "rows": entry.rows,
        "size_bytes": entry.size_bytes,
        "created": datetime.datetime.fromtimestamp(entry.changed, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": entry.manifest.source if entry.manifest else None,
        "fingerprint": entry.fingerprint or None,
        "runs": None if users is None else users_of(entry, users),
    }


def users_of(entry: Entry, users: Mapping[str, Sequence[str]]) -> list[str]:
    """The runs that trained on this feature set, out of those by fingerprint."""
    known = entry.fingerprint
    return sorted({name for used, names in users.items() if known and used.startswith(known) for name in names})


def _place(record: Mapping[str, Any]) -> str:
    return f"{record['task']}/{record['split']}/{record['name']}"
