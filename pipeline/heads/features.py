"""The matrices that heads train on: one view of a task, or several side by side, out of the cache alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.identity import flatten
from pipeline.config import HeadsConfig, backbone_slug, parse_settings, source_name
from pipeline.errors import CacheError, ConfigError, FeatureSetNotFound
from pipeline.tasks.spec import SPLITS, Split, TaskSpec
from pipeline.views import View

READ_ROWS = 4096
"""Rows that are read at once."""


@dataclass(frozen=True)
class SplitFeatures:
    """One split, ready to train on or to score.

    Args:
        X: `[n, d]` float32; views side by side make `d` their sum.
        y: `[n]` int64, or None where the split is unlabelled.
        sample_ids: `[n]` int64.
        texts: `[n]`.
        fingerprints: of the feature sets, in the order of the views.
    """

    X: np.ndarray
    y: np.ndarray | None
    sample_ids: np.ndarray
    texts: list[str]
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class OwnRows:
    """What a split of one's own files holds, where the files are at hand.

    Args:
        texts: the digest of its sentences in order, as an identity has it.
        labels: `[n]` class numbers, or None where it is unlabelled.
        origin: where it was read, for people.
    """

    texts: str
    labels: tuple[int, ...] | None
    origin: str


Own = Mapping[str, Mapping[Split, OwnRows]]
"""By task and split. Where it is empty, the cache alone decides which rows are trained on."""


def load_features(
    cache: FeatureCache,
    task: TaskSpec,
    views: tuple[View, ...],
    config: HeadsConfig,
    own: Mapping[Split, OwnRows] = MappingProxyType({}),
) -> dict[str, SplitFeatures]:
    """Load a task's train and validation features, and test where there is one.

    Train decides: the other splits must have its identity in every field but the texts.

    Args:
        own: what one's own files hold, by split: features of other sentences or with other labels are not taken.

    Raises:
        FeatureSetNotFound: the cache does not hold them.
        CacheError: several feature sets match, those side by side are not of the same rows, or their labels are not
            those of the files.
    """
    wanted: dict[str, Any] = {
        "quantization.type": config.quantization,
        "adapter": config.adapter,
        "prompt": config.prompt or task.prompt,
    }
    where = parse_settings(config.where)
    if wrong := {"backbone", "source", "layer", "pooling"} & {name.split(".", 1)[-1] for name in where}:
        raise ConfigError(
            "these have settings of their own: --backbone, --data, --views", where="where", found=", ".join(wrong)
        )
    of_split = {split: _of_split(where, split) for split in SPLITS}
    for split, rows in own.items():
        of_split[split] = {"texts": rows.texts, **of_split[split]}
    wanted |= {name: value for name, value in where.items() if name.split(".")[0] not in SPLITS}
    wanted |= of_split["train"]
    backbone, source = backbone_slug(config.backbone), source_name(config.data)
    train = [
        cache.open(
            task.name,
            "train",
            layer=view.layer,
            pooling=view.pooling,
            backbone=backbone,
            source=source,
            identity=wanted,
        )
        for view in views
    ]
    features = {"train": _side_by_side(train)}
    for split in ("validation", "test"):
        try:
            others = [_sibling(cache, task, split, feature_set, source, of_split[split]) for feature_set in train]
        except FeatureSetNotFound:
            if split == "test":  # not every task has one
                continue
            raise
        features[split] = _side_by_side(others)
    for split, rows in own.items():
        if split in features:
            _check_labels(features[split], rows)
    return features


def _check_labels(features: SplitFeatures, rows: OwnRows) -> None:
    cached = None if features.y is None else tuple(features.y.tolist())
    if cached != rows.labels:
        raise CacheError(
            "the labels in the cache are not those of the files",
            where=rows.origin,
            expected="the same sentences with the same labels",
            found="the same sentences, labelled otherwise since or elsewhere",
            remedy="run the same pipeline extract again: it rewrites the labels and computes nothing",
        )


def _of_split(where: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name.split(".", 1)[1]: value for name, value in where.items() if name.startswith(f"{split}.")}


def _sibling(
    cache: FeatureCache, task: TaskSpec, split: str, train: FeatureSet, source: str, where: Mapping[str, Any]
) -> FeatureSet:
    identity = {name: value for name, value in flatten(train.manifest.identity.to_dict()).items() if name != "texts"}
    return cache.open(
        task.name,
        split,
        backbone=train.manifest.backbone,
        source=source,
        identity={**identity, **where},
    )


def _side_by_side(sets: list[FeatureSet]) -> SplitFeatures:
    first = sets[0]
    for other in sets[1:]:
        if other.manifest.identity.texts != first.manifest.identity.texts:
            raise CacheError(
                "views side by side must be of the same sentences",
                expected=first.manifest.name,
                found=other.manifest.name,
            )
    return SplitFeatures(
        X=_joined(sets),
        y=first.y,
        sample_ids=first.sample_ids,
        texts=first.texts,
        fingerprints=tuple(feature_set.fingerprint for feature_set in sets),
    )


def _joined(sets: list[FeatureSet]) -> np.ndarray:
    """`[n, d + d + …]` float32: read in blocks, so that the matrix is in memory once."""
    ends = np.cumsum([0, *(feature_set.hidden_size for feature_set in sets)])
    X = np.empty((len(sets[0]), ends[-1]), dtype=np.float32)
    for feature_set, first, stop in zip(sets, ends[:-1], ends[1:], strict=True):
        for vectors, _, rows in feature_set.batches(READ_ROWS, block_rows=READ_ROWS):
            X[rows, first:stop] = vectors
    return X
