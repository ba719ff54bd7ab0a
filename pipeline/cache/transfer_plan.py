"""What has to be copied so that a feature set is whole at another place: what is missing there, and what must go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache.manifest import MANIFEST
from pipeline.cache.remote import Folder, Place
from pipeline.cache.remote.names import FILE
from pipeline.cache.set_record import SealedFile, SetRecord, compare
from pipeline.digests import sha256_of_file
from pipeline.errors import TransferError


@dataclass(frozen=True)
class Plan:
    """What has to be done for one feature set.

    Args:
        record: the set.
        missing: files that are not at the destination, by shard.
        unsealed: shards whose seal is not there.
        lacks_manifest: whether the manifest is not there.
        obsolete: names of files there that make way, in the order in which they must go.
    """

    record: SetRecord
    missing: dict[int, list[SealedFile]]
    unsealed: set[int]
    lacks_manifest: bool
    obsolete: list[str]

    @property
    def n_files(self) -> int:
        """How many files are to be copied."""
        return sum(map(len, self.missing.values())) + len(self.unsealed) + self.lacks_manifest

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be done."""
        return not self.n_files and not self.obsolete

    @property
    def size_bytes(self) -> int:
        """Bytes of the files to copy, seals and manifest included."""
        small = [self.record.seal_name(number) for number in self.unsealed]
        small += [self.record.manifest_name] if self.lacks_manifest else []
        return sum(file.size_bytes for files in self.missing.values() for file in files) + sum(
            (self.record.copies / name).stat().st_size for name in small
        )

    def to_dict(self, status: str) -> dict[str, Any]:
        """The result's record."""
        name, record = self.record.name, self.record
        return {
            "task": name.task,
            "split": name.split,
            "name": name.name,
            "files": record.n_files,
            "bytes": record.size_bytes,
            "sent": self.n_files,
            "skipped": record.n_files - self.n_files,
            "sent_bytes": self.size_bytes,
            "status": status,
        }


def plan_copy(source: Place, destination: Place, record: SetRecord, replace: bool, verify: bool, scratch: Path) -> Plan:
    """Find out what of a feature set is not at the destination.

    Args:
        replace: whether another set there, of the same name, may make way.
        verify: read the bytes of the files there, even where a seal there says that they are right.
        scratch: a folder of its own to copy small files to.

    Raises:
        TransferError: another set stands there under the same name.
    """
    there = compare(destination, record, scratch)
    others, sizes, has_manifest = there.others, there.sizes, there.has_manifest
    if others and not replace:
        raise TransferError(
            "another feature set stands there under the same name, and is not overwritten",
            where=f"{destination.shown}, {record.name}",
            expected=f"what {source.shown} has: {record.manifest.seals}",
            found=f"other {', '.join(others[:5])}" + (f" and {len(others) - 5} more" if len(others) > 5 else ""),
            remedy="--replace overwrites it; or remove it there, or keep it and copy to another place",
        )
    obsolete = [other.split(" ")[0] for other in others]
    if others and MANIFEST in sizes:  # from now on, nothing there looks whole
        obsolete = [MANIFEST, *(name for name in obsolete if name != MANIFEST)]
        has_manifest = False
    own = {file.name.rpartition("/")[2] for n in range(len(record.seals)) for file in record.files(n)}
    if replace:  # leftovers of a replaced set that no seal stands for; a killed replacement may have kept them
        obsolete += [n for n in sizes if FILE.fullmatch(n) and not n.endswith(".json") and n not in own]
    missing: dict[int, list[SealedFile]] = {}
    for number in range(len(record.seals)):
        for file in record.files(number):
            is_long_enough = sizes.get(file.name.rpartition("/")[2]) == file.size_bytes
            if not (is_long_enough and holds(destination, source, file, trusted=number in there.same and not verify)):
                missing.setdefault(number, []).append(file)
    return Plan(
        record,
        missing,
        set(range(len(record.seals))) - there.same,
        not has_manifest,
        [f"{record.name.path}/{name}" for name in obsolete],
    )


def holds(destination: Place, source: Place, file: SealedFile, *, trusted: bool) -> bool:
    """Whether a file of the right size at the destination has the right bytes.

    Args:
        trusted: whether a seal there says so, which is enough where reading means sending.
    """
    if isinstance(destination, Folder):
        return sha256_of_file(destination.at(file.name)) == file.sha256
    assert isinstance(source, Folder), "one side is always here"
    return trusted or destination.holds(file.name, source.at(file.name), file.sha256)
