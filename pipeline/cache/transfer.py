"""Push and pull: whole feature sets to and from another place, only what is missing there, each file against its seal.

At the destination a shard's files come before its seal and the manifest comes last, each under its name only when it
is whole. So a copy that is killed at any instant leaves nothing that looks whole and is not, and the same command goes
on from the last whole file. Of `passes.jsonl`, a log that no seal covers, the lines that are records go with a set that
has none yet.
"""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.cache.files import clear_partials
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.passes import MOST_BYTES, PASSES, lines_of_passes, parse_passes
from pipeline.cache.remote import Folder, Place, find_sets, open_place
from pipeline.cache.remote.names import FINGERPRINT, SetName
from pipeline.cache.remote.place import Advance
from pipeline.cache.set_record import SetRecord, check_digest, fetch_file, read_set
from pipeline.cache.sound import settled_key
from pipeline.cache.transfer_plan import Plan, holds, plan_copy
from pipeline.cache.verify import damages_of_shard
from pipeline.config import TransferConfig
from pipeline.digests import sha256_of_file
from pipeline.errors import CacheError, ConfigError, FeatureSetNotFound, TransferError, did_you_mean
from pipeline.progress import BytesLine, say

LOCK_SECONDS = 60.0
"""How long to wait for a process that is writing the feature set that is to be pulled."""


def push(
    remote: str, names: Sequence[str], config: TransferConfig, cache_dir: Path, *, verify: bool = False
) -> list[dict[str, Any]]:
    """Copy whole feature sets of the cache to another place.

    Args:
        remote: a folder, `user@host:folder`, or a URL.
        names: of feature sets, or beginnings of fingerprints; none means all.
        verify: what is sent is read back and hashed always; with this, also what was there already.

    Returns:
        a record a feature set: task, split, name, files, bytes, files sent, files skipped, bytes sent, status.

    Raises:
        FeatureSetNotFound: nothing is called so.
        TransferError: the other place cannot be used, another set stands there under the same name, or bytes are wrong.
    """
    with contextlib.closing(open_place(remote)) as there:
        return _copy_sets(Folder(cache_dir), there, names, config, verify=verify, label="push")


def pull(remote: str, names: Sequence[str], config: TransferConfig, cache_dir: Path) -> list[dict[str, Any]]:
    """Copy whole feature sets of another place into the cache; arguments, records and errors are those of `push`."""
    with contextlib.closing(open_place(remote)) as there:
        return _copy_sets(there, Folder(cache_dir), names, config, verify=False, label="pull")


def _copy_sets(
    source: Place, destination: Place, names: Sequence[str], config: TransferConfig, *, verify: bool, label: str
) -> list[dict[str, Any]]:
    if isinstance(source, Folder) and isinstance(destination, Folder):
        _check_apart(source, destination)
    chosen = _choose(source, names, config)
    with tempfile.TemporaryDirectory(prefix="transfer-") as temporary:
        records = list(_read(source, chosen, names, Path(temporary) / "source"))
        plans = []
        for number, record in enumerate(records):
            scratch = Path(temporary) / str(number)
            plans.append(plan_copy(source, destination, record, config.replace, verify, scratch))
        if isinstance(destination, Folder):
            _check_room(destination.path, sum(plan.size_bytes for plan in plans))
        if config.dry_run:
            return [plan.to_dict("unchanged" if plan.is_done else "to copy") for plan in plans]
        if not all(plan.is_done for plan in plans):
            line = BytesLine(label, sum(plan.n_files for plan in plans), sum(plan.size_bytes for plan in plans))
            with line, _saying_what_is_needed(plans):
                for plan in (plan for plan in plans if not plan.is_done):
                    _copy(source, destination, plan, line.advance)
        skipped = sum(plan.record.n_files - plan.n_files for plan in plans)
        say(f"{label}: {len(plans)} feature sets; {skipped} files were there already")
        return [plan.to_dict("unchanged" if plan.is_done else "copied") for plan in plans]


def _check_apart(source: Folder, destination: Folder) -> None:
    if source.path.resolve() == destination.path.resolve():
        raise ConfigError("the other place is the cache itself", where=source.path, remedy="name another folder")


def _choose(source: Place, names: Sequence[str], config: TransferConfig) -> list[SetName]:
    there = find_sets(source)
    if not there:
        raise TransferError(
            "there are no feature sets at this place",
            where=source.shown,
            expected=f"<task>/<split>/<feature-set>/{MANIFEST}",
            remedy="name the folder that pipeline extract (or pipeline cache push) wrote: data/cache by default",
        )
    chosen = [
        name
        for name in there
        if (not config.tasks or name.task in config.tasks) and (not config.splits or name.split in config.splits)
    ]
    if not chosen:
        raise _none_of(source, there, config)
    for task in set(config.tasks) - {name.task for name in chosen}:
        say(f"of {task} there is nothing to copy at {source.shown}")
    called: set[SetName] = set()
    for text in names:
        found = [name for name in chosen if name.is_called(text)]
        if len({name.name for name in found}) > 1:
            raise CacheError("several feature sets begin so", where=text, found=", ".join(name.name for name in found))
        if not found:
            raise _not_found(source, there, text)
        called.update(found)
    return sorted(called) or chosen


def _none_of(source: Place, there: Sequence[SetName], config: TransferConfig) -> FeatureSetNotFound:
    """The error for tasks and splits of which there is no feature set."""
    tasks, splits = (sorted({getattr(name, which) for name in there}) for which in ("task", "split"))
    unknown = [(name, tasks) for name in config.tasks if name not in tasks]
    unknown += [(name, splits) for name in config.splits if name not in splits]
    questions = (did_you_mean(name.lower(), known, cutoff=0.5) for name, known in unknown)
    return FeatureSetNotFound(
        "this place holds no such feature set",
        where=source.shown,
        expected=", ".join((*config.tasks, *config.splits)),
        found=", ".join(sorted({f"{name.task}/{name.split}" for name in there})),
        remedy=next((question for question in questions if question), None)
        or "name some of these, or leave --tasks and --splits out to copy all",
    )


def _not_found(source: Place, there: Sequence[SetName], wanted: str) -> FeatureSetNotFound:
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    return FeatureSetNotFound(
        "this place holds no such feature set",
        where=source.shown,
        expected=wanted,
        found=", ".join(map(str, there[:5])) + more,
        remedy=did_you_mean(wanted, [name.name for name in there])
        or "name one of these, or leave NAME, --tasks and --splits out to copy all",
    )


def _read(source: Place, chosen: Sequence[SetName], names: Sequence[str], copies: Path) -> Iterator[SetRecord]:
    """The records of those that are whole; what is named must be."""
    whole = 0
    for name in chosen:
        record = read_set(source, name, copies)
        if record is None:
            if names:
                raise TransferError(
                    "this feature set is not whole, and is not copied",
                    where=f"{source.shown}, {name}",
                    expected=MANIFEST,
                    remedy="finish it first: run the pipeline extract (or push) that began it again",
                )
            say(f"left out: {name} is not whole ({MANIFEST} is missing)")
            continue
        prefixes = [text for text in names if FINGERPRINT.fullmatch(text) and text != name.name]
        if names and name.name not in names and not any(map(record.manifest.fingerprint.startswith, prefixes)):
            raise _not_found(source, chosen, ", ".join(names))
        whole += 1
        yield record
    if not whole:
        raise TransferError(
            "no feature set at this place is whole",
            where=source.shown,
            expected=f"a {MANIFEST}, which is written last",
            remedy="run the pipeline extract (or push) that began them again",
        )


def _copy(source: Place, destination: Place, plan: Plan, advance: Advance) -> None:
    if isinstance(destination, Folder):
        with FeatureSetLock(destination.at(plan.record.name.path)).alone(timeout=LOCK_SECONDS):
            destination.remove(plan.obsolete)
            _copy_here(source, destination, plan, advance)
        return
    destination.remove(plan.obsolete)
    assert isinstance(source, Folder), "one side is always here"
    files = []
    record = plan.record
    for number in range(len(record.seals)):
        for file in plan.missing.get(number, ()):
            path = source.at(file.name)
            check_digest(sha256_of_file(path), file, source)
            files.append((path, file.name))
        if number in plan.unsealed:
            files.append((record.copies / record.seal_name(number), record.seal_name(number)))
    files += copy_log(source, destination, record.name, record.copies)
    if plan.lacks_manifest:
        files.append((record.copies / record.manifest_name, record.manifest_name))
    destination.put(files, advance)
    _check_arrived(destination, source, plan)


def _copy_here(source: Place, destination: Folder, plan: Plan, advance: Advance) -> None:
    record = plan.record
    folder = destination.at(record.name.path)
    clear_partials(folder)
    missing = [(file.name, file.size_bytes) for files in plan.missing.values() for file in files]
    with source.bringing(missing, folder, advance):
        for number in range(len(record.seals)):
            for file in plan.missing.get(number, ()):
                fetch_file(source, file, destination.at(file.name), advance)
            if number in plan.missing:
                _check_content(destination, record, number)
            if number in plan.unsealed:
                seal = record.seal_name(number)
                destination.put([(record.copies / seal, seal)], advance)
    destination.put(copy_log(source, destination, record.name, record.copies), lambda size_bytes: None)
    if plan.lacks_manifest:
        destination.put([(record.copies / record.manifest_name, record.manifest_name)], advance)


def copy_log(
    source: Place, destination: Place, of: SetName, copies: Path, *, replace: bool = False
) -> list[tuple[Path, str]]:
    """A copy of the log of passes to put at the destination, where there is none; one that tells nothing stays.

    Args:
        copies: a folder for the copy.
        replace: whether it is put there all the same.
    """
    name = f"{of.path}/{PASSES}"
    size_bytes = source.sizes(of.path).get(PASSES, 0)
    if not 0 < size_bytes <= MOST_BYTES or (not replace and PASSES in destination.sizes(of.path)):
        return []
    records = parse_passes(b"".join(source.read(name, size_bytes)))
    copy = copies / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(lines_of_passes(records))
    return [(copy, name)] if records else []


def _check_content(destination: Folder, record: SetRecord, number: int) -> None:
    """Look at every byte of a shard that has arrived, before its seal says that it is whole; it is noted as sound."""
    folder = destination.at(record.name.path)
    states, index, _ = shard_paths(folder, number)
    key = settled_key(states, touch=index)
    for damage in damages_of_shard(folder, number, record.seals[number], record.manifest, deep=True, key=key):
        raise TransferError(
            "a shard is damaged at the other place",
            where=folder / damage.file,
            found=damage.problem,
            remedy="have it written again there (pipeline cache verify --deep, then pipeline extract)",
        )


def _check_arrived(destination: Place, source: Place, plan: Plan) -> None:
    """Read back what was sent; what is wrong is taken away again, and with it what says that the set is whole."""
    for number, files in plan.missing.items():
        for file in files:
            if not holds(destination, source, file, trusted=False):
                destination.remove([plan.record.manifest_name, plan.record.seal_name(number), file.name])
                raise other_bytes(destination, file.name, file.sha256)


def other_bytes(place: Place, name: str, sha256: str) -> TransferError:
    """The error for a file that was read back and is not what was sent."""
    return TransferError(
        "a file that was sent does not have the bytes that were sent",
        where=f"{place.shown}, {name}",
        expected=f"SHA-256 {sha256}",
        remedy="run the same command again; if it stays so, do not trust this place",
    )


def _check_room(folder: Path, needed_bytes: int) -> None:
    here = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    free_bytes = shutil.disk_usage(here).free
    if needed_bytes > free_bytes:
        raise _no_room(folder, needed_bytes, free_bytes)


def _no_room(folder: object, needed_bytes: int, free_bytes: int) -> TransferError:
    return TransferError(
        "the disk has no room for these feature sets",
        where=folder,
        expected=f"{needed_bytes:,} bytes",
        found=f"{free_bytes:,} bytes free",
        remedy="make room and run the same command again: what is whole is kept; or name fewer feature sets",
    )


@contextlib.contextmanager
def _saying_what_is_needed(plans: Sequence[Plan]) -> Iterator[None]:
    """Where the disk fills up while copying, say how much all of it takes."""
    try:
        yield
    except CacheError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(error.where, sum(plan.size_bytes for plan in plans), 0) from error
