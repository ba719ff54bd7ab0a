"""What a place says of a feature set in its small files, manifest and seals, read and judged before the large ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.files import whole_file
from pipeline.cache.identity import flatten
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.remote.names import FILE, SetName
from pipeline.cache.remote.place import Advance, Place
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.sealed_files import check_seals
from pipeline.errors import CacheError, TransferError


@dataclass(frozen=True)
class SealedFile:
    """A file of a shard, as its seal has it.

    Args:
        name: below the cache's folder.
        size_bytes, sha256: of its bytes.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class SetRecord:
    """A whole feature set, as its manifest and seals have it; they agree.

    Args:
        name: which one.
        manifest: its manifest.
        seals: one a shard.
        copies: a folder with copies of the manifest and the seals, laid out as a cache.
    """

    name: SetName
    manifest: Manifest
    seals: tuple[Seal, ...]
    copies: Path

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        small = [self.copies / self.manifest_name, *(self.copies / self.seal_name(n) for n in range(len(self.seals)))]
        return sum(s.states_bytes + s.index_bytes for s in self.seals) + sum(path.stat().st_size for path in small)

    @property
    def n_files(self) -> int:
        """How many files it has."""
        return 3 * len(self.seals) + 1

    @property
    def manifest_name(self) -> str:
        """The manifest's name below the cache's folder."""
        return f"{self.name.path}/{MANIFEST}"

    def seal_name(self, number: int) -> str:
        """The name of a seal below the cache's folder."""
        return f"{self.name.path}/{shard_paths(Path(), number)[2].name}"

    def files(self, number: int) -> tuple[SealedFile, SealedFile]:
        """What a shard consists of: hidden states and index."""
        return files_of_shard(self.name, number, self.seals[number])


def files_of_shard(name: SetName, number: int, seal: Seal) -> tuple[SealedFile, SealedFile]:
    """What a shard of a feature set consists of, as its seal has it: hidden states and index."""
    states, index, _ = shard_paths(Path(), number)
    return (
        SealedFile(f"{name.path}/{states.name}", seal.states_bytes, seal.states_sha256),
        SealedFile(f"{name.path}/{index.name}", seal.index_bytes, seal.index_sha256),
    )


def read_set(place: Place, name: SetName, copies: Path) -> SetRecord | None:
    """Read what a place says of a feature set, or None where it is not whole there.

    Args:
        copies: a folder to copy manifest and seals to.

    Raises:
        TransferError: manifest and seals contradict each other, the set's place or the files there.
    """
    sizes = place.sizes(name.path)
    if MANIFEST not in sizes:
        return None
    folder = copies / name.path
    copy_small(place, name, [MANIFEST], copies)
    try:
        manifest = Manifest.read(folder)
        # However many shards a manifest claims, no more names are made up than there are files.
        seal_paths = [shard_paths(folder, n)[2] for n in range(min(manifest.shards, len(sizes)))]
        if any(path.name not in sizes for path in seal_paths):
            raise CacheError("a seal is missing", expected=f"{manifest.shards} shards")
        copy_small(place, name, [path.name for path in seal_paths], copies)
        seals = tuple(Seal.read(path) for path in seal_paths)
        check_seals(manifest, seals, digest_of_seals(seals), folder)
        record = SetRecord(name, manifest, seals, copies)
        for number, seal in enumerate(seals):
            for file in record.files(number):
                found = sizes.get(file.name.rpartition("/")[2])
                if found != file.size_bytes:
                    raise CacheError(
                        "a file is not as long as its seal says",
                        where=file.name,
                        expected=f"{file.size_bytes} bytes",
                        found="no such file" if found is None else f"{found} bytes",
                    )
            seal.write(seal_paths[number])  # what was checked is what is passed on, without anything around it
        manifest.write(folder)
    except (CacheError, RecursionError) as error:  # JSON can be nested deeper than Python goes
        if isinstance(error, TransferError):
            raise
        raise TransferError(
            "a feature set is damaged, and is not copied",
            where=f"{place.shown}, {name}",
            found="; ".join(str(error).replace(f"{copies}/", "").splitlines()),
            remedy="pipeline cache verify there, or copy it there again",
        ) from error
    return record


@dataclass(frozen=True)
class Standing:
    """What stands at a place under a record's name, compared with the record.

    Args:
        sizes: names and bytes of all files there.
        same: the numbers of the shards whose seal there is the record's.
        has_manifest: whether the manifest is.
        others: seals and the manifest, if they are others than the record's: their names, and in brackets what differs.
    """

    sizes: dict[str, int]
    same: set[int]
    has_manifest: bool
    others: list[str]


def compare(place: Place, record: SetRecord, scratch: Path) -> Standing:
    """Compare a record with what stands at another place under the same name.

    Args:
        scratch: an empty folder.
    """
    sizes = place.sizes(record.name.path)
    there = [name for name in sizes if FILE.fullmatch(name) and name.endswith(".json")]
    copy_small(place, record.name, there, scratch)
    folder = scratch / record.name.path
    numbers = {shard_paths(folder, number)[2].name: number for number in range(len(record.seals))}
    same, others = set(), []
    for name in sorted(set(there) - {MANIFEST}):
        if name in numbers and seal_or_none(folder / name) == record.seals[numbers[name]]:
            same.add(numbers[name])
        else:
            others.append(name)
    if MANIFEST not in there:
        return Standing(sizes, same, False, others)
    try:
        found = Manifest.read(folder)
    except (CacheError, RecursionError):
        return Standing(sizes, same, False, [f"{MANIFEST} (damaged)", *others])
    apart = _fields_apart(record.manifest, found)
    return Standing(sizes, same, not apart, [*([f"{MANIFEST} ({', '.join(apart)})"] if apart else []), *others])


def seal_or_none(path: Path) -> Seal | None:
    """A seal, or None where there is none that can be read."""
    try:
        return Seal.read(path)
    except (CacheError, RecursionError):
        return None


def _fields_apart(one: Manifest, other: Manifest) -> list[str]:
    facts, others = flatten(one.to_dict()), flatten(other.to_dict())
    return sorted(name for name in facts.keys() | others.keys() if facts.get(name) != others.get(name))


def fetch_file(place: Place, file: SealedFile, path: Path, advance: Advance) -> None:
    """Copy a shard's file from a place to `path`, where it appears when it is whole and what its seal says.

    Raises:
        TransferError: the place does not answer as it should, or the file is another; nothing appears.
    """
    with whole_file(path) as partial:
        check_digest(place.fetch(file.name, partial, file.size_bytes, advance), file, place)


def check_digest(found: str, file: SealedFile, place: Place) -> None:
    """Hold a file's SHA-256 against its seal.

    Raises:
        TransferError: it is another.
    """
    if found != file.sha256:
        raise TransferError(
            "a file is not what its seal says, and is not copied",
            where=f"{place.shown}, {file.name}",
            expected=f"SHA-256 {file.sha256}",
            found=f"SHA-256 {found}",
            remedy="it is damaged there, or was on the way: try again, or have it written again there "
            "(pipeline cache verify, then pipeline extract)",
        )


def copy_small(place: Place, name: SetName, files: Sequence[str], copies: Path) -> None:
    """Copy manifest and seals of a set into a folder that is laid out as a cache, unread."""
    (copies / name.path).mkdir(parents=True, exist_ok=True)
    contents = place.read_small([f"{name.path}/{file}" for file in files]) if files else {}
    for path, content in contents.items():
        (copies / path).write_bytes(content)
