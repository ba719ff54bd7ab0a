"""Feature sets that are written to a store: each shard goes up when it is sealed, the manifest when all have.

At the store, hidden states and index come first and are read back, then the seal, and the manifest last: killed at any
instant, nothing there looks whole and is not. A shard whose seal stands there is whole, wherever it was computed: of it
only index and seal come here, and hidden states that are up may leave again.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.cache.inventory import SEAL, size_or_none
from pipeline.cache.local_copy import LOCK_SECONDS, LocalCopy, name_of
from pipeline.cache.lock import SET, FeatureSetLock
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.remote import Folder
from pipeline.cache.remote.names import FILE
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.sealed_files import check_seals
from pipeline.cache.set_record import SealedFile, copy_small, files_of_shard, seal_or_none
from pipeline.cache.transfer import copy_log, other_bytes
from pipeline.config import CacheConfig
from pipeline.digests import sha256_of_file
from pipeline.errors import DamagedFeatureSet, TransferError
from pipeline.progress import counted, say
from pipeline.sizes import parse_size
from pipeline.store_config import StoreConfig


class Upload:
    """What one process knows of the store that it writes to.

    Args:
        copy: the local copy, into which feature sets are written.
        verify: hash the files that are there before they count as whole, instead of trusting their sizes.
    """

    def __init__(self, copy: LocalCopy, *, verify: bool = False) -> None:
        self.copy, self.verify = copy, verify
        self._sealed: dict[Path, Seal] = {}
        """By a seal's path here, what stands there under that name, with the files that it is about."""
        self._states: dict[Path, str] = {}
        """By a seal's path here, the SHA-256 of hidden states that were read there, with another seal or none."""

    @classmethod
    def of(cls, config: CacheConfig, *, verify: bool = False) -> "Upload | None":
        """The upload that settings ask for; None where features stay in the cache's folder."""
        if not isinstance(config, StoreConfig) or config.store is None:
            return None
        limit_bytes = None if config.local_limit is None else parse_size(config.local_limit)
        return cls(LocalCopy(config.store, config.cache_dir, limit_bytes), verify=verify)

    def begin(self, folder: Path) -> None:
        """Bring here what stands there of a feature set: seals of whole shards, their indices, and the manifest.

        A manifest there that does not hold is removed, as it would say that the set is whole; so is one here that is
        not there.

        Raises:
            TransferError: the store does not answer as it should.
        """
        name = name_of(folder)
        sizes = self.copy.place.sizes(name.path)
        if not sizes and not folder.exists():
            return
        lock = FeatureSetLock(folder)
        with lock.held(SET, timeout=LOCK_SECONDS), TemporaryDirectory() as temporary:
            copies = Path(temporary)
            small = [each for each in sizes if FILE.fullmatch(each) and each.endswith(".json")]
            copy_small(self.copy.place, name, small, copies)
            for path in sorted((copies / name.path).glob("shard-*.json")):
                match, seal = SEAL.fullmatch(path.name), seal_or_none(path)
                if match is not None and seal is not None and self._stands(folder, int(match["number"]), seal, sizes):
                    with lock.held(int(match["number"]), timeout=LOCK_SECONDS):
                        self._keep(folder, int(match["number"]), seal)
            manifest = self._manifest_there(folder, copies / name.path) if MANIFEST in sizes else None
            if manifest is not None:
                manifest.write(folder)
            else:
                (folder / MANIFEST).unlink(missing_ok=True)
            if manifest is None and MANIFEST in sizes:
                say(f"{name}: its manifest at {self.copy.shown} is not about what stands there, and is taken away")
                self.copy.place.remove([f"{name.path}/{MANIFEST}"])
            for path in folder.glob("shard-*.json"):
                self._forget_if_nowhere(folder, path, sizes)
            self._log(folder, copies, up=False)

    def _forget_if_nowhere(self, folder: Path, path: Path, sizes: dict[str, int]) -> None:
        """Remove a seal here whose hidden states are neither here nor there: that shard is to be computed."""
        match, seal = SEAL.fullmatch(path.name), seal_or_none(path)
        if match is None or seal is None or path in self._sealed:
            return
        number = int(match["number"])
        states, _ = files_of_shard(name_of(folder), number, seal)
        if size_or_none(self.copy.folder / states.name) == seal.states_bytes:
            return
        if sizes.get(_last(states.name)) == seal.states_bytes and self._has_bytes(states):
            self._states[path] = seal.states_sha256  # killed before the seal went up
        elif self._seal_there(folder, number) != seal:
            path.unlink(missing_ok=True)

    def _stands(self, folder: Path, number: int, seal: Seal, sizes: dict[str, int]) -> bool:
        """Whether the files that a seal there is about are there too."""
        for file in files_of_shard(name_of(folder), number, seal):
            if sizes.get(_last(file.name)) != file.size_bytes or (self.verify and not self._has_bytes(file)):
                return False
        return True

    def _has_bytes(self, file: SealedFile) -> bool:
        digest = hashlib.sha256()
        for block in self.copy.place.read(file.name, file.size_bytes):
            digest.update(block)
        return digest.hexdigest() == file.sha256

    def _keep(self, folder: Path, number: int, seal: Seal) -> None:
        """Have a shard here as it stands there, hidden states of another one gone."""
        states, index, seal_path = shard_paths(folder, number)
        mine = seal_or_none(seal_path)
        if mine != seal:
            seal_path.unlink(missing_ok=True)
            if mine is None or mine.states_sha256 != seal.states_sha256:
                states.unlink(missing_ok=True)
        if size_or_none(index) is not None and sha256_of_file(index) != seal.index_sha256:
            index.unlink()
        self.copy.bring_index(folder, number, seal)
        if mine != seal:
            seal.write(seal_path)
        self._sealed[seal_path] = seal

    def _manifest_there(self, folder: Path, copies: Path) -> Manifest | None:
        try:
            manifest = Manifest.read(copies)
            seals = [self._sealed[shard_paths(folder, number)[2]] for number in range(manifest.shards)]
            check_seals(manifest, seals, digest_of_seals(seals), folder)
        except (DamagedFeatureSet, KeyError, RecursionError):
            return None
        return manifest

    def holds(self, folder: Path, number: int, seal: Seal) -> bool:
        """Whether the store has the hidden states that a seal here is about.

        Raises:
            TransferError: it does not answer as it should.
        """
        path = shard_paths(folder, number)[2]
        there = self._sealed.get(path)
        if seal.states_sha256 in (there and there.states_sha256, self._states.get(path)):
            return True
        there = self._seal_there(folder, number)  # another process may have put it there
        return there is not None and there.states_sha256 == seal.states_sha256

    def _seal_there(self, folder: Path, number: int) -> Seal | None:
        """A shard's seal as another process put it there, if its files are there."""
        name, path = name_of(folder), shard_paths(folder, number)[2]
        sizes = self.copy.place.sizes(name.path)
        if path.name not in sizes:
            return None
        with TemporaryDirectory() as temporary:
            copy_small(self.copy.place, name, [path.name], Path(temporary))
            seal = seal_or_none(Path(temporary) / name.path / path.name)
        if seal is None or not self._stands(folder, number, seal, sizes):
            return None
        self._sealed[path] = seal
        return seal

    def sealed(self, folder: Path, number: int, seal: Seal) -> None:
        """Put a shard there that is sealed here; then what the local limit has no room for makes way.

        Raises:
            TransferError: the store does not take it; what is whole there stays so.
        """
        path = shard_paths(folder, number)[2]
        if (self._sealed.get(path) or self._seal_there(folder, number)) != seal:
            with self._saying_what_is_whole(folder):
                self._put(folder, number, seal)
            self._sealed[path] = seal
        self.copy.limit.make_room(0, safe=[each.with_suffix(".h5") for each in self._sealed])

    def _put(self, folder: Path, number: int, seal: Seal) -> None:
        place, name = self.copy.place, name_of(folder)
        seal_path = shard_paths(folder, number)[2]
        seal_name = f"{name.path}/{seal_path.name}"
        sizes = place.sizes(name.path)
        before = self._sealed.pop(seal_path, None)
        if seal_path.name in sizes and before is None:
            before = self._seal_there(folder, number)
            if before == seal:  # another process has just put it there: taken away now, it would miss it
                return
        place.remove([f"{name.path}/{each}" for each in (MANIFEST, seal_path.name) if each in sizes])
        known = (before and before.states_sha256, before and before.index_sha256)
        missing = []
        for file, digest_there in zip(files_of_shard(name, number, seal), known, strict=True):
            is_long_enough = sizes.get(_last(file.name)) == file.size_bytes
            if not (is_long_enough and (digest_there == file.sha256 or self._has_bytes(file))):
                self._check_here(file, seal_path)
                missing.append(file)
        if missing:
            place.put([(self.copy.folder / file.name, file.name) for file in missing], _nobody)
        for file in missing:
            if not place.holds(file.name, self.copy.folder / file.name, file.sha256):
                place.remove([file.name])
                raise other_bytes(place, file.name, file.sha256)
        with TemporaryDirectory() as temporary:
            place.put([*self._log(folder, Path(temporary), up=True), (seal_path, seal_name)], _nobody)
        if place.read_small([seal_name])[seal_name] != seal_path.read_bytes():
            place.remove([seal_name])
            raise other_bytes(place, seal_name, sha256_of_file(seal_path))

    def _check_here(self, file: SealedFile, seal_path: Path) -> None:
        """Hash what is to go up: what is damaged here is a shard that is not there."""
        path = self.copy.folder / file.name
        found = sha256_of_file(path) if path.is_file() else "no such file"
        if found != file.sha256:
            seal_path.unlink(missing_ok=True)
            raise TransferError(
                "a file of a shard is not what its seal says, and does not go to the store",
                where=path,
                expected=f"SHA-256 {file.sha256}",
                found=found,
                remedy="run the same command again: it computes that shard again",
            )

    def finished(self, folder: Path, manifest: Manifest, seals: Sequence[Seal]) -> None:
        """Put a feature set's manifest there, which says that it is whole, after whatever of it is not there yet.

        Raises:
            TransferError: the store does not take it.
        """
        place, name = self.copy.place, name_of(folder)
        manifest_name = f"{name.path}/{MANIFEST}"
        for number, seal in enumerate(seals):
            self.sealed(folder, number, seal)
        with self._saying_what_is_whole(folder), TemporaryDirectory() as temporary:
            mine = Path(temporary) / name.path
            mine.mkdir(parents=True)
            manifest.write(mine)
            content = (mine / MANIFEST).read_bytes()
            sizes = place.sizes(name.path)
            own = {path.name for number in range(manifest.shards) for path in shard_paths(folder, number)}
            others = [each for each in sizes if FILE.fullmatch(each) and each not in own | {MANIFEST}]
            has_manifest = MANIFEST in sizes and place.read_small([manifest_name])[manifest_name] == content
            if has_manifest and not others:
                return
            place.remove([f"{name.path}/{each}" for each in (MANIFEST, *others) if each in sizes])
            place.put([*self._log(folder, Path(temporary), up=True), (mine / MANIFEST, manifest_name)], _nobody)
            if place.read_small([manifest_name])[manifest_name] != content:
                place.remove([manifest_name])
                raise other_bytes(place, manifest_name, sha256_of_file(mine / MANIFEST))
        say(f"{name}: whole at {self.copy.shown}")

    def _log(self, folder: Path, copies: Path, *, up: bool) -> list[tuple[Path, str]]:
        """What is to be put there of the log of passes; with `up` false, it is put here where there is none."""
        here, name = Folder(self.copy.folder), name_of(folder)
        if up:
            return copy_log(here, self.copy.place, name, copies, replace=True)
        here.put(copy_log(self.copy.place, here, name, copies), _nobody)
        return []

    @contextlib.contextmanager
    def _saying_what_is_whole(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except TransferError as error:
            whole = f"whole there: {counted(sum(path.parent == folder for path in self._sealed), 'shard')}"
            raise TransferError(
                error.what,
                where=error.where,
                expected=error.expected,
                found=whole if error.found is None else f"{error.found}; {whole}",
                remedy=f"{error.remedy}. The same command goes on: what is sealed here is not computed again",
            ) from error


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _nobody(size_bytes: int) -> None:
    """Is told how many bytes more are copied."""
