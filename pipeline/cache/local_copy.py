"""The local copy of a store: manifests, seals and indices come when they are asked for, hidden states when read.

It lies in a folder of its own below the cache's, `.store/<digest of the store's name>/<task>/<split>/<feature-set>/`,
where nothing takes it for the cache's own: of a set whose hidden states come one by one, some files are always missing.
Every file is held against its seal before it has its name.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.cache.files import clear_partials, make_way, whole_file
from pipeline.cache.inventory import size_or_none
from pipeline.cache.local_limit import LocalLimit
from pipeline.cache.lock import SET, FeatureSetLock
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.passes import PASSES
from pipeline.cache.remote import Folder, Place, find_sets, open_place
from pipeline.cache.remote.names import SetName
from pipeline.cache.remote.trouble import shown_url
from pipeline.cache.remove import nobody_writes
from pipeline.cache.seal import Seal
from pipeline.cache.set_record import SetRecord, fetch_file, files_of_shard, read_set
from pipeline.cache.transfer import copy_log
from pipeline.errors import ConfigError, FeatureSetNotFound
from pipeline.partials import remove
from pipeline.progress import say

STORES = ".store"
LOCK_SECONDS = 3600.0
"""How long to wait for another process that fetches the same file."""


class LocalCopy:
    """What of a store is here.

    Several processes may share it: each file is fetched by one of them. Pickled, it is the store's name.

    Args:
        store: the place, as `open_place` takes it.
        cache_dir: the cache's folder.
        limit_bytes: the most that hidden states may take here, beside those that are being read; None keeps all.
    """

    def __init__(self, store: str, cache_dir: Path, limit_bytes: int | None = None) -> None:
        self.store, self.cache_dir, self.limit_bytes = store, cache_dir, limit_bytes
        self.shown = shown_url(store)
        self.folder = cache_dir.absolute() / STORES / hashlib.sha256(_settled(store).encode()).hexdigest()[:16]
        self.limit = LocalLimit(self.folder, limit_bytes)
        self._place: tuple[int, Place] | None = None
        self._listed: set[tuple[str | None, str | None]] = set()
        self._told: set[Path] = set()
        self._fetching = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return LocalCopy, (self.store, self.cache_dir, self.limit_bytes)

    @property
    def place(self) -> Place:
        """The store, opened by this process: no connection survives a fork.

        Raises:
            ConfigError, MissingPackage, TransferError: it cannot be used.
        """
        if self._place is None or self._place[0] != os.getpid():
            place = open_place(self.store)
            if isinstance(place, Folder) and place.path.resolve() == self.cache_dir.resolve():
                raise ConfigError(
                    "the store is the cache's own folder", where=place.path, remedy="leave --store out, or name another"
                )
            self._place = os.getpid(), place
        return self._place[1]

    def bring_manifests(self, task: str | None, split: str | None) -> None:
        """Bring the manifests of all whole feature sets here, of one task or split if named; once for this object.

        A set that is gone from the store, or another one there now, goes here too.

        Raises:
            TransferError: the store does not answer as it should.
        """
        if self._listed & {(None, None), (task, None), (task, split)}:
            return
        names = [
            name for name in find_sets(self.place, task) if task in (None, name.task) and split in (None, name.split)
        ]
        with ThreadPoolExecutor(8) as several:
            sizes = dict(zip(names, several.map(lambda name: self.place.sizes(name.path), names), strict=True))
        whole = [f"{name.path}/{MANIFEST}" for name in names if MANIFEST in sizes[name]]
        contents = self.place.read_small(whole) if whole else {}
        for manifest in self.folder.glob(f"{task or '*'}/{split or '*'}/*/{MANIFEST}"):
            if contents.get(manifest.relative_to(self.folder).as_posix()) != manifest.read_bytes():
                self._forget(manifest.parent)
        for name, content in contents.items():
            if not (self.folder / name).is_file():
                self._write(self.folder / name, content)
        self._listed.add((task, split))

    def _forget(self, folder: Path) -> None:
        with nobody_writes(folder):
            (folder / MANIFEST).unlink(missing_ok=True)
            for path in (*shard_files(folder), folder / PASSES):
                remove(path)

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_bytes(content)

    def bring_set(self, folder: Path) -> None:
        """Bring what is small of a whole feature set: seals, indices, and the log of what it cost.

        Raises:
            FeatureSetNotFound: it is not whole at the store, or not any more.
            TransferError: it is damaged there, or the store does not answer as it should.
        """
        name = name_of(folder)
        with FeatureSetLock(folder).held(SET, timeout=LOCK_SECONDS), TemporaryDirectory() as temporary:
            if (folder / MANIFEST).is_file() and self._has_all_that_is_small(folder):
                return
            record = read_set(self.place, name, Path(temporary))
            if record is None:
                raise FeatureSetNotFound(
                    "the store holds this feature set no more, or not whole",
                    where=f"{self.shown}, {name}",
                    expected=f"a {MANIFEST}, which is written last",
                    remedy="run the same command again: it looks anew at what is there",
                )
            clear_partials(folder)
            for number, seal in enumerate(record.seals):
                self.bring_index(folder, number, seal)
                self._put_if_other(record, record.seal_name(number))
            here = Folder(self.folder)
            here.put(copy_log(self.place, here, record.name, record.copies), lambda size_bytes: None)
            self._put_if_other(record, record.manifest_name)

    def _has_all_that_is_small(self, folder: Path) -> bool:
        """Whether every seal has its index: opening the set holds them against the manifest."""
        paths = [shard_paths(folder, number) for number in range(Manifest.read(folder).shards)]
        return all(index.is_file() and seal.is_file() for _, index, seal in paths)

    def _put_if_other(self, record: SetRecord, name: str) -> None:
        content, path = (record.copies / name).read_bytes(), self.folder / name
        if not path.is_file() or path.read_bytes() != content:
            self._write(path, content)

    def bring_index(self, folder: Path, number: int, seal: Seal) -> None:
        """Bring a shard's index, if none of its size is here; reading holds it against the seal again.

        Raises:
            TransferError: it is not what the seal says, or the store does not answer as it should.
        """
        _, index = files_of_shard(name_of(folder), number, seal)
        if size_or_none(self.folder / index.name) != index.size_bytes:
            with self._fetching:
                fetch_file(self.place, index, self.folder / index.name, lambda size_bytes: None)

    def bring_states(self, folder: Path, number: int, seal: Seal) -> None:
        """Bring a shard's hidden states, if they are not here. They may go again at any moment: open them at once.

        Raises:
            TransferError: they are not what the seal says, or the store does not answer as it should.
        """
        states, _ = files_of_shard(name_of(folder), number, seal)
        path = self.folder / states.name
        self.limit.note_use(path)
        if size_or_none(path) == states.size_bytes:
            return
        if folder not in self._told:
            self._told.add(folder)
            say(f"{states.name.rpartition('/')[0]}: hidden states come from {self.shown}")
        with self._fetching, FeatureSetLock(folder).held(number, timeout=LOCK_SECONDS):
            if size_or_none(path) != states.size_bytes:
                make_way(path)
                clear_partials(folder)
                self.limit.make_room(states.size_bytes)
                with self.place.bringing([(states.name, states.size_bytes)], folder, lambda size_bytes: None):
                    fetch_file(self.place, states, path, lambda size_bytes: None)


def name_of(folder: Path) -> SetName:
    """A feature set's name, by where it lies in a cache."""
    return SetName(*folder.parts[-3:])


def shard_files(folder: Path) -> Iterator[Path]:
    """Everything that lies in a feature set's folder of its shards, whole and half."""
    yield from (path for path in folder.iterdir() if path.name.lstrip(".").startswith("shard-"))


def _settled(store: str) -> str:
    """One store has one name, whatever folder it is named from; its password is none of its name."""
    place = open_place(store) if "://" not in store else None
    return str(place.path.resolve()) if isinstance(place, Folder) else shown_url(store).rstrip("/")
