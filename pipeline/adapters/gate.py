"""The equivalence gate: before anything is trained, the live path must see what the cache holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash

from pipeline.adapters.cached import open_cached
from pipeline.adapters.network import HeadedNetwork
from pipeline.adapters.rows import LiveRows
from pipeline.backbone.prefill import TOLERANCE
from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.identity import Difference, difference_table, differences, flatten
from pipeline.errors import AdapterError, CacheError, FeatureSetNotFound
from pipeline.progress import say
from pipeline.views import View, check_pooling

CANARIES = 24


def pass_gate(
    network: HeadedNetwork,
    rows: LiveRows,
    views: Sequence[View],
    *,
    gate: str,
    cache: FeatureCache,
    wanted: Mapping[str, Any],
    backbone: str,
    source: str,
) -> dict[str, Any]:
    """Check that the live path, without adapters, gives the cached features of some rows.

    Args:
        network: without adapters, or with adapters that are switched off.
        rows: the training split of a task.
        views: those of its head.
        gate: `auto`, `off`, or a feature set's name or the beginning of its fingerprint.

    Returns:
        for the run's record: the feature sets, the rows that were compared, and the largest relative difference;
        an empty record where there is nothing to compare with.

    Raises:
        AdapterError: they differ by more than the dtypes allow, or the named feature set is of something else.
        CacheError: a feature set is damaged.
    """
    if gate == "off":
        return {}
    if gate == "auto":
        try:
            sets = [open_cached(cache, rows, v, wanted, backbone=backbone, source=source) for v in views]
        except FeatureSetNotFound as error:
            say(f"{rows.task.name}: no cached features to hold the live path against ({error.what.splitlines()[0]})")
            return {}
        except CacheError as error:
            say(f"{rows.task.name}: the live path is not held against the cache: {error.what.splitlines()[0]}")
            return {}
    else:
        sets = [_named(cache, gate, wanted, network.engine.layers)]
        identity = sets[0].manifest.identity
        views = [View(identity.layer, check_pooling(identity.pooling))]
    own = TOLERANCE[network.engine.backbone.dtype]
    tolerance = max(own, *(feature_set.manifest.passport["tolerance"] for feature_set in sets))
    numbers = np.sort(np.random.default_rng(0).permutation(len(rows))[:CANARIES])
    cached = np.concatenate([feature_set.take(numbers) for feature_set in sets], axis=1)
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


def _named(cache: FeatureCache, name: str, wanted: Mapping[str, Any], layers: Sequence[int]) -> FeatureSet:
    found = cache.open_folder(name)
    identity = found.manifest.identity
    differ = differences(flatten(dict(wanted)), flatten(identity.to_dict()))
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
    return found


def digest_of_frozen(parameters: Mapping[str, torch.Tensor]) -> str:
    """XXH3 of the bytes of what must not change in a training, by name."""
    digest = xxhash.xxh3_128()
    for name in sorted(parameters):
        tensor = parameters[name].detach().cpu().contiguous().reshape(-1)
        digest.update(name.encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return f"xxh3:{digest.hexdigest()}"
