"""A shard's seal: sizes and digests of its two files and what was measured of them, written last. No seal, no shard."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

from pipeline.cache.files import whole_file
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.manifest import ORDERS
from pipeline.cache.passport import Drift
from pipeline.digests import canonical_json, has_its_digest, with_digest
from pipeline.errors import DamagedFeatureSet


@dataclass(frozen=True, kw_only=True)
class Seal(Drift):
    """What a whole shard is, and how far its canaries drift.

    Args:
        order: how the split's rows were ordered before they were cut into shards.
        token_budget: tokens a batch that it was computed in.
        first_place: how many of them stand in the shards before it.
        rows: rows of the shard.
        tokens: tokens of its prompted texts.
        truncated: sentences that were cut to fit.
        values: how many numbers its hidden states are.
        minimum, maximum: their range; all of them are finite.
        beyond_float16: how many of them float16 could not hold.
        states_bytes, states_sha256: the HDF5 file.
        states_xxh3: a digest of the same bytes that is as fast as memory, checked whenever values are read.
        index_bytes, index_sha256: the Parquet file.
    """

    order: str
    token_budget: int
    first_place: int
    rows: int
    tokens: int
    truncated: int
    values: int
    minimum: float
    maximum: float
    beyond_float16: int
    states_bytes: int
    states_sha256: str
    states_xxh3: str
    index_bytes: int
    index_sha256: str

    def write(self, path: Path) -> None:
        """Write the seal; the shard is whole from then on."""
        with whole_file(path) as partial:
            partial.write_bytes(_as_bytes(with_digest(asdict(self))))

    @classmethod
    def read(cls, path: Path) -> "Seal":
        """Read a seal.

        Raises:
            DamagedFeatureSet: the file is no seal.
        """
        try:
            content = read_bounded(path)
            record: Any = parse_json(content)
        except (OSError, ValueError) as error:
            raise DamagedFeatureSet("a seal cannot be read", where=path, found=error) from error
        kinds = {field.name: field.type for field in fields(cls)}
        if not isinstance(record, dict) or set(record) != {*kinds, "digest"}:
            raise DamagedFeatureSet("a seal has the wrong fields", where=path, expected=", ".join(kinds), found=record)
        if not has_its_digest(record) or _as_bytes(record) != content:
            raise DamagedFeatureSet("a seal was changed after it was written", where=path)
        del record["digest"]
        for name, kind in kinds.items():
            value = record[name]
            wanted: tuple[type, ...] = {int: (int,), float: (int, float), str: (str,)}[kind]  # type: ignore[index]
            if not isinstance(value, wanted) or isinstance(value, bool) or value in _NOT_FINITE or value != value:
                raise DamagedFeatureSet("a seal's field is wrong", where=f"{path}, {name}", found=repr(value))
        if record["order"] not in ORDERS:
            raise DamagedFeatureSet(
                "a seal's field is wrong", where=f"{path}, order", expected=ORDERS, found=record["order"]
            )
        return cls(**record)


def _as_bytes(record: Mapping[str, Any]) -> bytes:
    return canonical_json(record) + b"\n"


_NOT_FINITE = (inf, -inf)


def digest_of_seals(seals: Sequence[Seal]) -> str:
    """One digest over all seals in shard order: it stands in the manifest, so that no shard can be swapped."""
    return "sha256:" + hashlib.sha256(b"\n".join(canonical_json(asdict(seal)) for seal in seals)).hexdigest()
