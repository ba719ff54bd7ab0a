"""A shard's seal: the sizes and SHA-256 of its two files, written after them. No seal, no shard."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

from pipeline.cache.files import whole_file
from pipeline.cache.json_files import read_json
from pipeline.digests import canonical_json
from pipeline.errors import DamagedFeatureSet


@dataclass(frozen=True)
class Seal:
    """What a whole shard is.

    Args:
        first_row: the place of its first row in the split.
        rows: rows of the shard.
        tokens: tokens of its prompted texts.
        truncated: sentences that were cut to fit.
        minimum, maximum: the range of its hidden states, all of them finite.
        states_bytes, states_sha256: the HDF5 file.
        index_bytes, index_sha256: the Parquet file.
    """

    first_row: int
    rows: int
    tokens: int
    truncated: int
    minimum: float
    maximum: float
    states_bytes: int
    states_sha256: str
    index_bytes: int
    index_sha256: str

    def write(self, path: Path) -> None:
        """Write the seal; the shard is whole from then on."""
        with whole_file(path) as partial:
            partial.write_bytes(canonical_json(asdict(self)) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Seal":
        """Read a seal.

        Raises:
            DamagedFeatureSet: the file is no seal.
        """
        try:
            record: Any = read_json(path)
        except (OSError, ValueError) as error:
            raise DamagedFeatureSet("a seal cannot be read", where=path, found=error) from error
        kinds = {field.name: field.type for field in fields(cls)}
        if not isinstance(record, dict) or set(record) != set(kinds):
            raise DamagedFeatureSet("a seal has the wrong fields", where=path, expected=", ".join(kinds), found=record)
        for name, kind in kinds.items():
            value = record[name]
            wanted: tuple[type, ...] = {int: (int,), float: (int, float), str: (str,)}[kind]  # type: ignore[index]
            if not isinstance(value, wanted) or isinstance(value, bool) or value in _NOT_FINITE or value != value:
                raise DamagedFeatureSet("a seal's field is wrong", where=f"{path}, {name}", found=repr(value))
        return cls(**record)


def passport_of_seals(seals: Sequence[Seal]) -> dict[str, Any]:
    """What was found while writing, over all shards."""
    return {
        "tokens": sum(seal.tokens for seal in seals),
        "truncated": sum(seal.truncated for seal in seals),
        "minimum": min(seal.minimum for seal in seals),
        "maximum": max(seal.maximum for seal in seals),
        "non_finite": 0,  # a shard with one is never written
    }


_NOT_FINITE = (inf, -inf)


def digest_of_seals(seals: Sequence[Seal]) -> str:
    """One digest over all seals in shard order: it stands in the manifest, so that no shard can be swapped."""
    return "sha256:" + hashlib.sha256(b"\n".join(canonical_json(asdict(seal)) for seal in seals)).hexdigest()
