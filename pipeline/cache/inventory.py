"""Everything that lies in a cache's folder, whole or not: one damaged set hides no other."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.cache.files import set_aside_from
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.seal import Seal
from pipeline.cache.sealed_files import SealedFiles
from pipeline.errors import CacheError, DamagedFeatureSet, FeatureSetNotFound

State = Literal["whole", "unfinished", "damaged"]
NAME = re.compile(r".+-L(?P<layer>\d+)-(?P<pooling>last|mean|first|tokens)-(?P<digits>[0-9a-f]{12})")
SEAL = re.compile(r"shard-(?P<number>\d{5,})\.json")
LEAST_DIGITS = 6
"""Hex digits by which a digest or a fingerprint may be called, at least."""


@dataclass(frozen=True)
class Entry:
    """What lies where a feature set belongs.

    Args:
        folder: `<cache>/<task>/<split>/<feature-set>`.
        state: `whole` where a sound manifest says so and every file is as long as its seal says; `unfinished` where
            there is no manifest; `damaged` where one of them is not sound, or was set aside and not written again.
        manifest: of a whole set, or of one whose shards are damaged.
        problem: of a damaged one.
        rows: of the whole set, or of the shards that are sealed so far.
        size_bytes: of all its files.
        changed: when it was last written to (of a whole set, when it became whole), in seconds since 1970.
        set_aside: names of damaged files that were taken out of use; stage one goes on from the rest.
    """

    folder: Path
    state: State
    manifest: Manifest | None
    problem: str
    rows: int
    size_bytes: int
    changed: float
    set_aside: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """`<task>/<split>/<feature-set>`."""
        return "/".join(self.folder.parts[-3:])

    @property
    def task(self) -> str:
        """The task's name."""
        return self.folder.parts[-3]

    @property
    def split(self) -> str:
        """The split's name."""
        return self.folder.parts[-2]

    @property
    def name(self) -> str:
        """The feature set's name."""
        return self.folder.name

    @property
    def fingerprint(self) -> str:
        """64 hex digits of a whole set; of any other, the 12 that its name ends in."""
        if self.manifest is not None:
            return self.manifest.fingerprint
        match = NAME.fullmatch(self.name)
        return match["digits"] if match else ""

    @property
    def link(self) -> Path | None:
        """The link that stands in the place of the set's, the split's or the task's folder, if one does."""
        return _link(self.folder)

    @property
    def is_called_as_a_set(self) -> bool:
        """Whether its name is one that a feature set can have; what is called otherwise is somebody else's."""
        return NAME.fullmatch(self.name) is not None


def list_entries(cache_dir: Path) -> list[Entry]:
    """Every folder where a feature set belongs, by task, split and name. Links are named, and never followed."""
    looked_at = (_look_at(folder) for folder in _folders(cache_dir, depth=3))
    return [entry for entry in looked_at if entry is not None]


def find_entry(cache_dir: Path, name: str) -> Entry:
    """The one entry that `name` calls.

    Args:
        name: a folder's name, the beginning of a fingerprint, `<task>/<split>/<feature-set>`, or the folder's path.

    Raises:
        FeatureSetNotFound: there is none.
        CacheError: there are several.
    """
    path = Path(name).absolute()
    found = [
        entry
        for entry in list_entries(cache_dir)
        if name in (entry.name, entry.place) or path == entry.folder.absolute() or _begins(entry, name)
    ]
    if not found:
        raise FeatureSetNotFound(
            "the cache holds no feature set of this name", where=cache_dir, found=name, remedy="pipeline cache ls"
        )
    if len(found) > 1:
        raise CacheError(
            "several feature sets begin so",
            where=cache_dir,
            found=", ".join(entry.place for entry in found),
            remedy="name one by task/split/name",
        )
    return found[0]


def find_whole(cache_dir: Path, name: str) -> tuple[Path, Manifest]:
    """The folder and manifest of the one whole feature set that `name` calls, as in `find_entry`.

    Raises:
        FeatureSetNotFound: there is none.
        CacheError: there are several, or it is not finished.
        DamagedFeatureSet: its manifest cannot be trusted, or was set aside.
    """
    entry = find_entry(cache_dir, name)
    if entry.manifest is not None:
        return entry.folder, entry.manifest
    if entry.state == "damaged":
        remedy = "run the same pipeline extract again: it writes what is damaged and nothing else"
        raise DamagedFeatureSet(
            "this feature set is damaged",
            where=entry.folder,
            found=entry.problem,
            remedy=None if entry.link else remedy,
        )
    raise CacheError(
        "this feature set is not finished",
        where=entry.folder,
        found=f"{entry.rows} rows in whole shards, and no manifest",
        remedy="run the same pipeline extract again: it goes on from there",
    )


def _begins(entry: Entry, name: str) -> bool:
    known = entry.fingerprint
    return len(name) >= LEAST_DIGITS and bool(known) and (known.startswith(name) or name.startswith(known))


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Folders `depth` levels down, and links on the way to there."""
    try:
        inside = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_symlink() and path.is_dir():
            yield path if depth == 1 else _under(path, depth - 1)
        elif path.is_dir():
            if depth == 1:
                yield path
            else:
                yield from _folders(path, depth - 1)


def _under(path: Path, levels: int) -> Path:
    """A link in a task's or split's place stands for all that it would lead to."""
    return path.joinpath(*["*"] * levels)


def _link(folder: Path) -> Path | None:
    return next((path for path in (folder, *list(folder.parents)[:2]) if path.is_symlink()), None)


def _look_at(folder: Path) -> Entry | None:
    """What lies in a folder, or None where it has just gone: others may be writing, renaming and removing there."""
    try:
        if link := _link(folder):
            return Entry(folder, "damaged", None, f"{link.name} is a link", 0, 0, link.lstat().st_mtime)
        begun = folder.stat().st_mtime
        files = [path for path in folder.iterdir() if path.is_symlink() or not path.is_dir()]
    except FileNotFoundError:
        return None
    found = [status for path in files if (status := lstat_or_none(path)) is not None]
    size_bytes = sum(status.st_size for status in found)
    changed = max((status.st_mtime for status in found), default=begun)
    written = lstat_or_none(folder / MANIFEST)
    if written is None:
        aside = tuple(path.name for path in set_aside_from(folder))
        state: State = "damaged" if aside else "unfinished"
        named = ", ".join(name for name in aside if name != MANIFEST) or MANIFEST
        problem = f"set aside as damaged, and not written again yet: {named}" if aside else ""
        return Entry(folder, state, None, problem, _sealed_rows(files), size_bytes, changed, aside)
    manifest = None
    try:
        manifest = Manifest.read(folder)
        SealedFiles(folder, manifest)
    except DamagedFeatureSet as error:
        if lstat_or_none(folder / MANIFEST) is None:  # removed since
            return _look_at(folder)
        return Entry(folder, "damaged", manifest, _in_short(error), _sealed_rows(files), size_bytes, changed)
    return Entry(folder, "whole", manifest, "", manifest.rows, size_bytes, written.st_mtime)


def _in_short(error: DamagedFeatureSet) -> str:
    """What is wrong on one line, with the file's name where it is a shard's."""
    name = error.where.name if isinstance(error.where, Path) else ""
    if not name.startswith("shard-"):
        return f"{error.what}: {error.found}".splitlines()[0]
    instead = f" instead of {error.expected}" if error.expected and not name.endswith(".json") else ""
    return f"{name}: {error.what}: {error.found}{instead}".splitlines()[0]


def size_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder and below; a link is as long as itself, what is gone is 0."""
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(root) / name for root, _, names in os.walk(path) for name in names]
    return sum(status.st_size for file in files if (status := lstat_or_none(file)) is not None)


def lstat_or_none(path: Path) -> os.stat_result | None:
    """What stands at a path, a link as itself, or None where it has gone since it was listed."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def size_or_none(path: Path) -> int | None:
    """The bytes of a regular file, or None where there is none."""
    found = lstat_or_none(path)
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None


def _sealed_rows(files: list[Path]) -> int:
    """Rows of the shards that are whole by their seals and sizes."""
    rows = 0
    for path in files:
        match = SEAL.fullmatch(path.name)
        if match is None:
            continue
        states, index, _ = shard_paths(path.parent, int(match["number"]))
        try:
            seal = Seal.read(path)
            sizes = states.stat().st_size, index.stat().st_size
        except (DamagedFeatureSet, OSError):
            continue
        rows += seal.rows if sizes == (seal.states_bytes, seal.index_bytes) else 0
    return rows
