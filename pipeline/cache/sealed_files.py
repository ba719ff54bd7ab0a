"""The shards' files of one feature set, opened only as what their seals say: of that size and, where asked, SHA-256."""

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cache.manifest import Manifest, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.reading import FileKey, Remembered, open_to_read
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.shard import REPAIR
from pipeline.errors import DamagedFeatureSet

if TYPE_CHECKING:
    from pipeline.cache.local_copy import LocalCopy

STATES, INDEX = 0, 1
"""Which of a shard's two sealed files: its place in `shard_paths`."""

_SEALS: Remembered[Seal] = Remembered()
_DIGESTS: Remembered[str] = Remembered()


class SealedFiles:
    """The seals of a feature set, which agree with its manifest, and the files that they are about.

    Args:
        folder: the feature set's folder.
        manifest: what stands in it.
        verify: hash every file now, and again whenever it was changed or replaced before it is read.
        copy: the local copy of a store that the folder belongs to, which brings hidden states when they are opened;
            what it brings was hashed.

    Raises:
        DamagedFeatureSet: a link, a file that is missing, has another size or (with `verify`) another SHA-256 than its
            seal says, or seals that the manifest is not about.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, *, verify: bool = False, copy: "LocalCopy | None" = None
    ) -> None:
        self.folder, self.verify, self.copy = folder, verify, copy
        self._hashed: dict[Path, FileKey] = {}
        self._paths: list[tuple[Path, Path, Path]] = []
        self.seals: list[Seal] = []
        self.states_keys: list[FileKey | None] = []
        keys: list[FileKey] = []
        for number in range(manifest.shards):
            self._paths.append(shard_paths(folder, number))
            seal, key, states_key = _checked_seal(self._paths[-1], has_states=copy is None)
            self.seals.append(seal)
            self.states_keys.append(states_key)
            keys.append(key)
        check_seals(manifest, self.seals, _digest(self.seals, keys), folder)
        if verify:
            for number in range(manifest.shards):
                for which in (STATES, INDEX) if copy is None else (INDEX,):
                    with self.open(number, which):
                        pass

    @property
    def stay(self) -> bool:
        """Whether hidden states that are here are here to stay."""
        return self.copy is None or self.copy.limit_bytes is None

    def path(self, number: int, which: int) -> Path:
        """Where one of a shard's files lies."""
        return self._paths[number][which]

    @contextmanager
    def open(self, number: int, which: int) -> Iterator[io.FileIO]:
        """Open a shard's file to read it, as what its seal says: of this size, and of this SHA-256.

        An index, which is small, is always hashed; hidden states with `verify`: their fast digest is held against the
        seal when they are read.

        Raises:
            DamagedFeatureSet: it is not.
        """
        path, seal = self.path(number, which), self.seals[number]
        try:
            with self._opened(number, which) as file:
                key = FileKey.of(file.fileno())
                _check_size(path, _size_of(seal, which), key.size_bytes)
                if (self.verify or which == INDEX) and self._hashed.get(path) != key:
                    _check_hash(path, seal.states_sha256 if which == STATES else seal.index_sha256, file)
                    self._hashed[path] = key
                yield file
        except OSError as error:
            raise _unreadable(path, error) from error

    def _opened(self, number: int, which: int) -> io.FileIO:
        path = self.path(number, which)
        if self.copy is not None and which == INDEX:  # it may have gone with the local copy since it came
            self.copy.bring_index(self.folder, number, self.seals[number])
        while self.copy is not None and which == STATES:
            self.copy.bring_states(self.folder, number, self.seals[number])
            with contextlib.suppress(FileNotFoundError):  # another process made room in between
                return open_to_read(path)
        return open_to_read(path)


def _checked_seal(paths: tuple[Path, Path, Path], *, has_states: bool) -> tuple[Seal, FileKey, FileKey | None]:
    """A shard's seal, its two files being of the sizes that it says, and the keys of the seal and of the states.

    Args:
        has_states: whether the hidden states have to be here.
    """
    try:
        key = FileKey.of_path(paths[2])
    except OSError as error:
        raise DamagedFeatureSet("a seal cannot be read", where=paths[2], found=error, remedy=REPAIR) from error
    seal = _SEALS.get(key)
    if seal is None:
        seal = Seal.read(paths[2])
        _SEALS.keep(seal, key, keys=[key])
    found: list[FileKey | None] = [] if has_states else [None]
    for which in (STATES, INDEX) if has_states else (INDEX,):
        try:
            there = FileKey.of_path(paths[which])
        except OSError as error:
            raise _unreadable(paths[which], error) from error
        _check_size(paths[which], _size_of(seal, which), there.size_bytes)
        found.append(there)
    return seal, key, found[STATES]


def _digest(seals: list[Seal], keys: list[FileKey]) -> str:
    digest = _DIGESTS.get(*keys)
    if digest is None:
        digest = digest_of_seals(seals)
        _DIGESTS.keep(digest, *keys, keys=keys)
    return digest


def _size_of(seal: Seal, which: int) -> int:
    return seal.states_bytes if which == STATES else seal.index_bytes


def _check_size(path: Path, expected: int, found: int) -> None:
    if found != expected:
        raise DamagedFeatureSet(
            "a file of a shard is not as long as its seal says",
            where=path,
            expected=f"{expected} bytes",
            found=f"{found} bytes",
            remedy=REPAIR,
        )


def _check_hash(path: Path, expected: str, file: io.FileIO) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found != expected:
        raise DamagedFeatureSet(
            "a file of a shard is not the one that was sealed",
            where=path,
            expected=f"SHA-256 {expected}",
            found=found,
            remedy=REPAIR,
        )


def _unreadable(path: Path, error: OSError) -> DamagedFeatureSet:
    return DamagedFeatureSet(
        "a file of a shard cannot be read", where=path, found=error.strerror or error, remedy=REPAIR
    )


def check_seals(manifest: Manifest, seals: Sequence[Seal], digest: str, folder: Path) -> None:
    """Hold the manifest against the seals: every fact that stands in both is the same.

    Args:
        digest: over all seals in order.

    Raises:
        DamagedFeatureSet: one is not.
    """
    stand = [(seal.order, seal.token_budget, seal.first_place, seal.rows) for seal in seals]
    places = [manifest.places_of(number) for number in range(manifest.shards)]
    for problem, expected, found in (
        ("the manifest is not about these shards", manifest.seals, digest),
        ("the manifest's passport is not that of its shards", passport_of_seals(seals), dict(manifest.passport)),
        (
            "a shard holds another number of rows than its place needs, or is of another cut",
            [(manifest.order, manifest.token_budget, each.start, len(each)) for each in places],
            stand,
        ),
    ):
        if expected != found:
            raise DamagedFeatureSet(problem, where=folder, expected=expected, found=found, remedy=REPAIR)
