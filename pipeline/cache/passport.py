"""The passport: what a feature set's own writer measured of it, shard by shard, to be read by people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.cache.seal import Seal

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Drift:
    """How far the stored hidden states of a few rows, the canaries, are from the same rows computed again.

    Args:
        canaries: how many rows were computed again.
        alone_relative, alone_cosine: against each row alone, unpadded, without a shared prefix: the largest relative
            difference (Euclidean, of a row) and the smallest cosine.
        shuffled_relative, shuffled_cosine: the same against these rows in another batch.
        tolerance: the largest relative difference that was allowed.
    """

    canaries: int = 0
    alone_relative: float = 0.0
    alone_cosine: float = 1.0
    shuffled_relative: float = 0.0
    shuffled_cosine: float = 1.0
    tolerance: float = 0.0

    @property
    def is_tolerable(self) -> bool:
        """Whether no canary is off by more than was allowed."""
        return max(self.alone_relative, self.shuffled_relative) <= self.tolerance


def passport_of_seals(seals: Sequence["Seal"]) -> dict[str, Any]:
    """What was measured while writing, over all shards."""
    values = sum(seal.values for seal in seals)
    return {
        "tokens": sum(seal.tokens for seal in seals),
        "truncated": sum(seal.truncated for seal in seals),
        "minimum": min(seal.minimum for seal in seals),
        "maximum": max(seal.maximum for seal in seals),
        "non_finite": 0,  # a shard with one is never written
        "share_beyond_float16": sum(seal.beyond_float16 for seal in seals) / max(values, 1),
        "canaries": sum(seal.canaries for seal in seals),
        "tolerance": max(seal.tolerance for seal in seals),
        "alone": {
            "relative": max(seal.alone_relative for seal in seals),
            "cosine": min(seal.alone_cosine for seal in seals),
        },
        "shuffled": {
            "relative": max(seal.shuffled_relative for seal in seals),
            "cosine": min(seal.shuffled_cosine for seal in seals),
        },
    }


def passport_in_words(passport: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A passport for people: what was measured, and the measure."""
    share = passport["share_beyond_float16"]
    lines = [
        ("tokens", f"{passport['tokens']:,} with the prompt; {passport['truncated']:,} sentences were cut"),
        ("values", f"{passport['minimum']:.6g} to {passport['maximum']:.6g}; {passport['non_finite']} NaN or infinite"),
        ("beyond float16", f"{share:.4%} of the values" if share else "none: float16 could hold the range"),
        ("canaries", f"{passport['canaries']} rows were computed again; {passport['tolerance']:g} was allowed"),
    ]
    for how, name in (("alone", "each alone, unpadded"), ("shuffled", "in another batch")):
        drift = passport[how]
        lines.append((name, f"relative difference up to {drift['relative']:.3g}, cosine from {drift['cosine']:.9g}"))
    return lines
