"""How fast stage one goes through a backbone: as the logs of earlier passes say, or as somebody says."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.cache.identity import Identity
from pipeline.cache.manifest import Manifest
from pipeline.cache.passes import PASSES, read_passes
from pipeline.errors import DamagedFeatureSet

LAST_PASSES = 32


@dataclass(frozen=True)
class Speed:
    """What one worker does in a second.

    Args:
        tokens_per_second: computed tokens.
        blocks: of the backbone, that they go through; None where it is said for whatever is asked for.
        passes: shards that it was measured on; 0 where it is said.
        where: the machine, for people.
    """

    tokens_per_second: float
    blocks: int | None = None
    passes: int = 0
    where: str = ""

    def seconds(self, computed_tokens: float, blocks: int) -> float:
        """What so many tokens take one worker."""
        return computed_tokens / self.tokens_per_second * (1.0 if self.blocks is None else blocks / self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """The speed as a JSON object."""
        return asdict(self)


def measured_speed(cache_dirs: Iterable[Path], device: str, own: Mapping[Path, Identity]) -> Speed | None:
    """The speed of the last passes of the same network in the same numbers, on the machine that made the last one.

    Seconds are those of shards with all that belongs to them; on CUDA, where a shard is written while the next is
    computed, without writing. A pass through fewer blocks counts as so much less.

    Args:
        cache_dirs: where feature sets lie.
        device: on whose kind, `cpu` or `cuda`, they were computed.
        own: by folder, identities of the sets that are planned, of one backbone; they may have no manifest yet.
    """
    kind = device.partition(":")[0]
    like = next(iter(own.values()), None)
    found = [] if like is None else [each for folder in cache_dirs for each in _passes(folder, like, kind, own)]
    together: dict[str, _Pass] = {}
    for each in found:
        before = together.get(each.key)
        together[each.key] = each if before is None or before.blocks < each.blocks else before
    if not together:
        return None
    in_time = sorted(together.values(), key=lambda each: each.ended)
    last = in_time[-1]
    alike = [each for each in in_time if each.where == last.where][-LAST_PASSES:]
    work = sum(each.computed_tokens * each.blocks for each in alike)
    return Speed(work / sum(each.seconds for each in alike) / last.blocks, last.blocks, len(alike), last.where)


@dataclass(frozen=True)
class _Pass:
    key: str
    ended: str
    where: str
    computed_tokens: int
    seconds: float
    blocks: int


def _passes(cache_dir: Path, like: Identity, kind: str, own: Mapping[Path, Identity]) -> Iterator[_Pass]:
    for path in sorted(cache_dir.glob(f"*/*/*/{PASSES}")):
        identity, device = own.get(path.parent), ""
        with contextlib.suppress(DamagedFeatureSet):
            manifest = Manifest.read(path.parent)
            identity, device = manifest.identity, str(manifest.recorded.get("device", ""))
        if identity is None or not _is_alike(identity, like):
            continue
        for record in read_passes(path.parent):
            tokens = record.get("computed_tokens")
            seconds = float(record["backbone_seconds" if kind == "cuda" else "seconds"])
            if isinstance(tokens, int) and tokens > 0 < seconds and _kind(record) == kind:
                yield _Pass(
                    key=str(record.get("pass", json.dumps(record, sort_keys=True))),
                    ended=str(record.get("ended", "")),
                    where=_where(record, device),
                    computed_tokens=tokens,
                    seconds=seconds,
                    blocks=max(1, identity.layer),
                )


def _is_alike(one: Identity, other: Identity) -> bool:
    return (one.architecture, one.quantization) == (other.architecture, other.quantization)


def _kind(record: Mapping[str, Any]) -> str:
    return str(record.get("device", "")).partition(":")[0]


def _where(record: Mapping[str, Any], device: str) -> str:
    """The machine of a pass; of a GPU its name, as its set's manifest has it."""
    what = (
        device or _kind(record)
        if _kind(record) == "cuda"
        else f"{record.get('machine')}, threads: {record.get('threads')}"
    )
    return f"{record.get('host')} ({what})"
