"""The equivalence gate: before anything is trained, the live path must see what the cache holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash

from pipeline.adapters.cached import CachedRows
from pipeline.adapters.network import HeadedNetwork
from pipeline.adapters.rows import LiveRows
from pipeline.cache import FeatureSet
from pipeline.cache.canary_rows import TOLERANCE, draw_canaries
from pipeline.cache.identity import Difference, difference_table, differences, flatten
from pipeline.cache.shard import to_float32
from pipeline.errors import AdapterError, CacheError, DamagedFeatureSet, FeatureSetNotFound
from pipeline.progress import say
from pipeline.views import View, check_pooling


@dataclass(frozen=True)
class Gate:
    """Cached features that the backbone must reproduce.

    Args:
        sets: the feature sets.
        views: theirs, with non-negative layers.
    """

    sets: tuple[FeatureSet, ...]
    views: tuple[View, ...]


def find_gate(cached: CachedRows, views: Sequence[View], gate: str) -> Gate | None:
    """The features to hold a task's live path against; None where there are none, which is said.

    Args:
        cached: of the training split.
        views: those of the task's head.
        gate: `auto`, `off`, or a feature set's name or the beginning of its fingerprint.

    Raises:
        AdapterError: the named feature set is of something else, or several sets match.
        CacheError: a feature set is damaged.
    """
    task = cached.rows.task.name
    if gate == "off":
        return None
    if gate != "auto":
        return _named(cached, gate, sorted({int(view.layer) for view in views}))
    try:
        return Gate(tuple(cached.open(view) for view in views), tuple(views))
    except FeatureSetNotFound as error:
        say(f"{task}: trained without a gate, for there is nothing to hold the live path against: {error.what}")
        return None
    except DamagedFeatureSet:
        raise
    except CacheError as error:
        raise AdapterError(
            f"the live path could be held against several feature sets:\n{error.what}",
            where=f"gate of {task}",
            remedy="name one with --gate, or train without it (--gate off)",
        ) from error


def pass_gate(network: HeadedNetwork, rows: LiveRows, gate: Gate | None) -> dict[str, Any]:
    """Check that the live path, without adapters, gives the cached features of the canaries.

    Args:
        network: without adapters, or with adapters that are switched off.
        rows: the training split of a task.
        gate: of that split.

    Returns:
        for the run's record: the feature sets, the rows that were compared, and the largest relative difference;
        an empty record where there is nothing to compare with.

    Raises:
        AdapterError: they differ by more than the dtypes allow.
        CacheError: a feature set is damaged.
    """
    if gate is None:
        return {}
    sets, views = gate.sets, gate.views
    own = TOLERANCE[str(network.engine.backbone.dtype).removeprefix("torch.")]
    tolerance = max(own, *(feature_set.manifest.passport["tolerance"] for feature_set in sets))
    numbers = draw_canaries(sets[0].manifest.identity, len(rows))
    cached = np.concatenate([to_float32(s.take(numbers), s.manifest.identity.storage_dtype) for s in sets], axis=1)
    worst = largest_difference(network.pooled_rows(rows, numbers, views), cached)
    if not worst <= tolerance:
        raise AdapterError(
            "the live path does not see what the cache holds",
            where=f"{rows.task.name}: {', '.join(s.manifest.name for s in sets)}",
            expected=f"a relative difference of at most {tolerance:g} over {len(numbers)} rows",
            found=f"{worst:.3g}",
            remedy="check the feature set (pipeline cache verify --canaries), or train without it (--gate off)",
        )
    say(f"{rows.task.name}: the live path gives the cached features (relative difference {worst:.1e} at most)")
    return {"feature_sets": [s.fingerprint for s in sets], "rows": len(numbers), "relative": float(f"{worst:.3g}")}


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative (Euclidean) difference of rows `[n, d]`."""
    if not np.isfinite(found).all():
        return float("inf")
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    return float((np.linalg.norm(found.astype(np.float64) - expected, axis=1) / np.maximum(lengths, 1e-30)).max())


def _named(cached: CachedRows, name: str, layers: Sequence[int]) -> Gate | None:
    found = cached.cache.open_folder(name)
    identity = found.manifest.identity
    if found.manifest.task != cached.rows.task.name:
        say(f"{cached.rows.task.name}: not held against the cache: the gate is of {found.manifest.task}")
        return None
    differ = differences(flatten(dict(cached.identity)), flatten(identity.to_dict()))
    if found.is_tokens:
        differ.append(Difference("pooling", "one vector a row", "tokens"))
    elif identity.layer not in layers:
        differ.append(Difference("layer", " | ".join(map(str, layers)), identity.layer))
    if differ:
        raise AdapterError(
            "the feature set for the gate is not of this backbone, prompt and texts; it differs in\n"
            + difference_table(differ),
            where=f"gate: {found.manifest.name}",
            remedy="name another with --gate, or leave it out: features that fit are found by themselves",
        )
    return Gate((found,), (View(identity.layer, check_pooling(identity.pooling)),))


def check_frozen(before: str, parameters: Mapping[str, torch.Tensor]) -> None:
    """Compare what must not change in a training with its digest before.

    Raises:
        AdapterError: it changed.
    """
    now = digest_of_frozen(parameters)
    if now != before:
        raise AdapterError("frozen weights changed in training: nothing is stored", expected=before, found=now)


def digest_of_frozen(parameters: Mapping[str, torch.Tensor]) -> str:
    """XXH3 of the bytes of what must not change in a training, by name."""
    digest = xxhash.xxh3_128()
    for name in sorted(parameters):
        tensor = parameters[name].detach().cpu().contiguous().reshape(-1)
        digest.update(name.encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return f"xxh3:{digest.hexdigest()}"
