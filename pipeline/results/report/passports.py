"""The features behind the figures: what each set's identity and passport say, and which runs look at it."""

from collections.abc import Iterable
from typing import Any

from pipeline.results.report.gather import Gathered


def features_behind(gathered: Gathered, runs: Iterable[str], also: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The feature sets that some runs trained on or were scored on, by task, split, backbone, layer and pooling.

    Args:
        runs: the names of all runs that a figure shows.
        also: fingerprints of more feature sets, which are at hand.

    Returns:
        `fingerprint`, `task`, `split`, `runs` (how many of these look at it) and, where the set is at hand, what
        `Features` has of it.
    """
    named = set(runs)
    found: dict[str, dict[str, Any]] = {}
    for run in gathered.runs:
        if run.run not in named:
            continue
        for task, splits in run.features.items():
            for split, fingerprints in splits.items():
                for fingerprint in fingerprints:
                    record = found.setdefault(
                        fingerprint, {"fingerprint": fingerprint, "task": task, "split": split, "runs": 0}
                    )
                    record["runs"] += 1
    for fingerprint in also:
        known = gathered.features[fingerprint]
        place = {name: known[name] for name in ("task", "split")}
        found.setdefault(fingerprint, {"fingerprint": fingerprint, **place, "runs": 1})  # the sweep's
    for fingerprint, record in found.items():
        record |= {k: v for k, v in gathered.features.get(fingerprint, {}).items() if k not in ("task", "split")}
    return sorted(found.values(), key=_order)


def _order(record: dict[str, Any]) -> tuple[Any, ...]:
    identity = record.get("identity") or {}
    view = (str(identity.get("quantization", "")), str(identity.get("pooling", "")), identity.get("layer", -1))
    splits = ("train", "validation", "test")
    place = splits.index(record["split"]) if record["split"] in splits else len(splits)
    return (record["task"], place, *view, record["fingerprint"])
