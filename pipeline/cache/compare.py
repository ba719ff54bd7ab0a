"""Two feature sets side by side: in which fields of their identity they differ, and in what is recorded beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cache.identity import ABSENT, Difference, differences, flatten
from pipeline.cache.manifest import Manifest

FOLLOWING = ("fingerprint", "seals", "digest")
"""What follows from other fields or from the files."""


@dataclass(frozen=True)
class Comparison:
    """What two feature sets differ in.

    Args:
        a, b: the two manifests.
        identity: fields that decide a feature's value; `wanted` is A's, `found` is B's.
        recorded: fields that do not: rows, labels, source, passport, versions, device. Digests, which follow from the
            rest or from the files, say nothing to people and are left out.
    """

    a: Manifest
    b: Manifest
    identity: tuple[Difference, ...]
    recorded: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as a JSON object; a field that one of the two has not is left out on its side."""
        return {
            **{side: _describe(manifest) for side, manifest in (("a", self.a), ("b", self.b))},
            "same_identity": not self.identity,
            "identity": [_sides(difference) for difference in self.identity],
            "recorded": [_sides(difference) for difference in self.recorded],
        }


def compare(a: Manifest, b: Manifest) -> Comparison:
    """Compare two feature sets, of any tasks and splits, field by field."""
    identities = [flatten(manifest.identity.to_dict()) for manifest in (a, b)]
    recorded = [_beside(manifest) for manifest in (a, b)]
    return Comparison(a, b, _both_ways(*identities), _both_ways(*recorded))


def _both_ways(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    only_b = {name: ABSENT for name in b if name not in a}
    return tuple(differences({**a, **only_b}, b))


def _beside(manifest: Manifest) -> dict[str, Any]:
    record = manifest.to_dict()
    return flatten({name: value for name, value in record.items() if name not in ("identity", *FOLLOWING)})


def _describe(manifest: Manifest) -> dict[str, Any]:
    return {
        "task": manifest.task,
        "split": manifest.split,
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
    }


def _sides(difference: Difference) -> dict[str, Any]:
    sides = {"a": difference.wanted, "b": difference.found}
    return {"field": difference.field, **{side: value for side, value in sides.items() if value is not ABSENT}}
