"""The manifest: written last, its presence says that the feature set is whole, and it says what the set is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.cache.files import whole_file
from pipeline.cache.identity import Identity
from pipeline.cache.json_files import parse_json, read_bounded
from pipeline.cache.shard import RAW, REPAIR
from pipeline.digests import has_its_digest, with_digest
from pipeline.errors import CacheError, DamagedFeatureSet

FORMAT = 3
MANIFEST = "manifest.json"

Order = Literal["split", "tokens"]
"""How rows are ordered before they are cut into shards: as in the split, or so that those that begin alike meet."""
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class Manifest:
    """A whole feature set. Two uninterrupted, interrupted or shared passes over one corpus write the same bytes.

    Args:
        task, split: where it belongs.
        labels: the classes' names, in the order of their numbers.
        labelled: whether its rows have labels.
        source: where the sentences came from: glue, hub, sample or files; several that agree are joined by +.
        backbone: the backbone's name.
        identity: every fact that can change a value.
        rows: rows in all.
        shard_rows: rows a shard; the last one holds the rest. Shard i is `shard-{i:05d}`.
        order: of the rows that are cut. Within a shard they stand as in the split, and each index names its rows.
        token_budget: tokens a batch, padding included: what else decides the last digits of a float32 value.
        seals: digest over all seals in order.
        passport: what was measured while writing, as `passport_of_seals` has it.
        recorded: library versions and device, beside the identity.
    """

    task: str
    split: str
    labels: tuple[str, ...]
    labelled: bool
    source: str
    backbone: str
    identity: Identity
    rows: int
    shard_rows: int
    order: Order
    token_budget: int
    seals: str
    passport: Mapping[str, Any]
    recorded: Mapping[str, Any]

    @property
    def sources(self) -> set[str]:
        """Every source that was seen to give these sentences with these labels."""
        return set(self.source.split("+"))

    @property
    def fingerprint(self) -> str:
        """The identity's fingerprint."""
        return self.identity.fingerprint

    @property
    def name(self) -> str:
        """The feature set's folder name: reads to a person, and is unique."""
        return feature_set_name(self.backbone, self.identity)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    def places_of(self, number: int) -> range:
        """Where the rows of shard `number` stand in the order that was cut."""
        first = number * self.shard_rows
        return range(first, min(first + self.shard_rows, self.rows))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a JSON object."""
        return with_digest({"format": FORMAT, "fingerprint": self.fingerprint, **json.loads(json.dumps(asdict(self)))})

    def write(self, folder: Path) -> None:
        """Write the manifest into the feature set's folder."""
        with whole_file(folder / MANIFEST) as partial:
            partial.write_bytes(_as_bytes(self.to_dict()))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of the feature set in `folder`.

        Raises:
            DamagedFeatureSet: it is not there or not readable, or contradicts itself or its folder's name.
        """
        path = folder / MANIFEST
        try:
            content = read_bounded(path)
            record: Any = parse_json(content)
            manifest = cls._parse(record)
            if _as_bytes(record) != content:
                raise CacheError("the manifest was changed after it was written")
            fingerprint, name = manifest.fingerprint, manifest.name
        except FileNotFoundError as error:
            raise DamagedFeatureSet(
                "this feature set is not finished, or not there",
                where=folder,
                expected=f"a {MANIFEST}, which is written last",
                remedy="run the same pipeline extract again: it goes on from the last whole shard",
            ) from error
        except (OSError, ValueError, CacheError) as error:
            raise DamagedFeatureSet("a manifest cannot be read", where=path, found=error, remedy=REPAIR) from error
        problem = ""
        if record["fingerprint"] != fingerprint:
            problem = "its fingerprint is not that of its identity"
        elif (manifest.task, manifest.split, name) != (
            folder.parent.parent.name,
            folder.parent.name,
            folder.name,
        ):
            problem = f"it belongs to {manifest.task}/{manifest.split}/{manifest.name}"
        if problem:
            raise DamagedFeatureSet("a manifest contradicts itself", where=path, found=problem, remedy=REPAIR)
        return manifest

    @classmethod
    def _parse(cls, record: Any) -> "Manifest":
        names = {field.name for field in fields(cls)}
        if not isinstance(record, dict) or "format" not in record:
            raise CacheError("the manifest has the wrong fields", expected=", ".join(sorted(names)))
        if record["format"] != FORMAT:
            raise CacheError("the manifest is of another format", expected=FORMAT, found=record["format"])
        if set(record) != names | {"format", "fingerprint", "digest"}:
            raise CacheError("the manifest has the wrong fields", expected=", ".join(sorted(names)))
        if not has_its_digest(record):
            raise CacheError("the manifest was changed after it was written")
        kinds: dict[str, type] = {"rows": int, "shard_rows": int, "token_budget": int, "labelled": bool, "labels": list}
        kinds |= {"identity": dict, "passport": dict, "recorded": dict}
        for name in names:
            value, kind = record[name], kinds.get(name, str)
            if not (_is_count(value) if kind is int else isinstance(value, kind)):
                raise CacheError("a manifest's field is wrong", where=name, expected=kind.__name__, found=repr(value))
        if not record["labels"] or not all(isinstance(label, str) for label in record["labels"]):
            raise CacheError("a manifest's field is wrong", where="labels", expected="texts", found=record["labels"])
        if record["order"] not in ORDERS:
            raise CacheError("a manifest's field is wrong", where="order", expected=ORDERS, found=record["order"])
        identity = Identity.from_dict(record["identity"])
        if identity.storage_dtype not in RAW or not _is_count(identity.architecture.get("hidden_size")):
            raise CacheError("the identity does not say what the shards hold", where="storage_dtype, architecture")
        for name in (record["task"], record["split"], record["backbone"]):
            if not _is_name(name):
                raise CacheError("a manifest's field is no name of a folder", found=repr(name))
        return cls(
            **{name: record[name] for name in names - {"identity", "labels"}},
            identity=identity,
            labels=tuple(record["labels"]),
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_name(name: str) -> bool:
    """Whether this can be a folder's name, or part of one, and stays in its place."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")


def _as_bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def adapter_digits(digest: str) -> str:
    """The hex digits by which an adapter is called, the beginning of its digest."""
    return digest.removeprefix("sha256:")[:8]


def feature_set_name(backbone: str, identity: Identity) -> str:
    """A feature set's folder name, such as `smollm2-135m-nf4-L20-mean-3fa9c1e07b52`.

    Where an adapter was merged into the weights: `smollm2-135m-nf4-lora-9b02d51c-L20-mean-…`, with the first eight
    hex digits of its digest.
    """
    weights = f"{backbone}-{identity.quantization.get('type')}"
    if identity.adapter is not None:
        weights += f"-lora-{adapter_digits(identity.adapter)}"
    return f"{weights}-L{identity.layer}-{identity.pooling}-{identity.fingerprint[:12]}"


def shard_paths(folder: Path, number: int) -> tuple[Path, Path, Path]:
    """Where shard `number` of a feature set lies: hidden states, index, seal."""
    stem = f"shard-{number:05d}"
    return folder / f"{stem}.h5", folder / f"{stem}.parquet", folder / f"{stem}.json"
