"""What features cost: the passes through the backbone that computed them, as the log beside their shards says."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digests import sha256_of_record

if TYPE_CHECKING:
    from pipeline.cache.feature_set import FeatureSet

PASSES = "passes.jsonl"
MOST_BYTES = 16 * 2**20
OF_A_VIEW = ("layer", "layer_norm", "pooling")
"""Fields of an identity in which the views of one pass differ."""


@dataclass(frozen=True)
class Cost:
    """What it took to compute features, once.

    Args:
        backbone_seconds: in passes through the backbone, those of canaries too.
        seconds: with pooling, writing and sealing.
        devices: that computed.
        passes: a digest of all that decides a pass but the views kept of it: what shares the digest was, or could have
            been, computed in one.
        rows: that the passes went through.
        processor_seconds: of all of the CPU's threads in the passes, which other work beside them hardly changes; None
            where a log does not say.
        peak_memory_bytes: the most that a process which computed them had taken, of the machine's memory or, where CUDA
            computed, of the device's; alike.
        weights_bytes: that the backbone's weights took there; alike.
    """

    backbone_seconds: float
    seconds: float
    devices: tuple[str, ...]
    passes: str
    rows: int = 0
    processor_seconds: float | None = None
    peak_memory_bytes: int | None = None
    weights_bytes: int | None = None


def read_passes(folder: Path) -> list[dict[str, Any]]:
    """The records of a feature set's passes, as its log has them."""
    path = folder / PASSES
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return []
    return parse_passes(path.read_bytes())


def parse_passes(content: bytes) -> list[dict[str, Any]]:
    """The records in a log; lines that are none are left out, as the log has no seal."""
    records = []
    for line in content.splitlines():
        try:
            record = json.loads(line)
            if {float(record[name]) >= 0 for name in ("backbone_seconds", "seconds", "shard")} == {True}:
                records.append(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return records


def lines_of_passes(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as a log has them."""
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode()


def cost_of(sets: "Sequence[FeatureSet]") -> Cost | None:
    """What views of one split cost; None where their logs do not tell it of every shard.

    A pass that wrote several of them counts once.
    """
    passes: dict[Any, dict[str, Any]] = {}
    for feature_set in sets:
        records = read_passes(feature_set.folder)
        if {record["shard"] for record in records} != set(range(feature_set.manifest.shards)):
            return None
        passes |= {record.get("pass", json.dumps(record, sort_keys=True)): record for record in records}
    identity = {name: value for name, value in sets[0].manifest.identity.to_dict().items() if name not in OF_A_VIEW}
    return Cost(
        backbone_seconds=round(sum(float(record["backbone_seconds"]) for record in passes.values()), 3),
        seconds=round(sum(float(record["seconds"]) for record in passes.values()), 3),
        devices=tuple(sorted({str(record.get("device", "unknown")) for record in passes.values()})),
        passes=f"sha256:{sha256_of_record(identity)}",
        rows=len(sets[0]),
        processor_seconds=_all(passes.values(), "processor_seconds", sum),
        peak_memory_bytes=_all(passes.values(), "peak_memory_bytes", max),
        weights_bytes=_all(passes.values(), "weights_bytes", max),
    )


def _all(records: Iterable[Mapping[str, Any]], name: str, together: Callable[[list[Any]], Any]) -> Any:
    """What the numbers of a field come to, which older logs do not have: None where one is not there."""
    values = [record.get(name) for record in records]
    return together(values) if all(isinstance(value, int | float) for value in values) else None
