"""The matrices that heads train on: one view of a task, or several side by side, out of the cache alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.cache import Cost, FeatureCache, FeatureSet, cost_of
from pipeline.cache.identity import flatten
from pipeline.cache.shard import to_float32
from pipeline.config import FeaturesConfig, backbone_slug, parse_settings, source_name
from pipeline.errors import CacheError, ConfigError, FeatureSetNotFound, HeadError
from pipeline.heads.missing_features import with_remedy
from pipeline.heads.token_rows import TokenRows
from pipeline.tasks.spec import SPLITS, Split, TaskSpec
from pipeline.views import View, check_pooling

READ_ROWS = 4096
"""Rows that are read at once."""
NOT_READ = np.empty((0, 0), dtype=np.float32)
"""Stands for features that nobody asked for."""


@dataclass(frozen=True)
class SplitFeatures:
    """One split, ready to train on or to score.

    Args:
        X: `[n, d]` float32; views side by side make `d` their sum. Of the tokens view `TokenRows`, which are not read.
        y: `[n]` int64, or None where the split is unlabelled.
        sample_ids: `[n]` int64.
        texts: `[n]`.
        fingerprints: of the feature sets, in the order of the views.
        sources: `[n]` codes of where the sentences are from (CoLA's), or None where no row has one.
        cost: of the passes that computed them, where that is known here.
        reading_seconds: that it took to read `X`, where it was read whole.
        identities: of the feature sets, less their texts, in the order of the views.
    """

    X: Any
    y: np.ndarray | None
    sample_ids: np.ndarray
    texts: list[str]
    fingerprints: tuple[str, ...]
    sources: tuple[str | None, ...] | None = None
    cost: Cost | None = None
    reading_seconds: float | None = None
    identities: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class OwnRows:
    """What a split of one's own files holds, where the files are at hand.

    Args:
        texts: the digest of its sentences in order, as an identity has it.
        labels: `[n]` class numbers, or None where it is unlabelled.
        origin: where it was read, for people.
        knows_labels: whether labels were read: those of a stream are part of its digest.
    """

    texts: str
    labels: tuple[int, ...] | None
    origin: str
    knows_labels: bool = True


Own = Mapping[str, Mapping[Split, OwnRows]]
"""By task and split. Where it is empty, the cache alone decides which rows are trained on."""


Opened = dict[str, list[FeatureSet]]
"""By split, one feature set a view, all of the same rows."""


def load_features(
    cache: FeatureCache,
    task: TaskSpec,
    views: tuple[View, ...],
    config: FeaturesConfig,
    own: Mapping[Split, OwnRows] = MappingProxyType({}),
) -> dict[str, SplitFeatures]:
    """Load a task's train and validation features, and test where there is one, views side by side.

    A tokens view stays where it lies: its rows are read when they are asked for.

    Args, raises: as `open_features`.
    """
    opened = open_features(cache, task, views, config, own)
    if [view.pooling for view in views] == ["tokens"]:
        return {split: facts_of(*sets, X=TokenRows(*sets)) for split, sets in opened.items()}
    return {split: side_by_side(sets) for split, sets in opened.items()}


def open_features(
    cache: FeatureCache,
    task: TaskSpec,
    views: Sequence[View],
    config: FeaturesConfig,
    own: Mapping[Split, OwnRows] = MappingProxyType({}),
) -> Opened:
    """Open the views of a task's train and validation rows, and of test where there is one.

    Train decides: the other splits must have its identity in every field but the texts.

    Args:
        own: what one's own files hold, by split: features of other sentences or with other labels are not taken.

    Raises:
        FeatureSetNotFound: the cache does not hold them.
        CacheError: several feature sets match, those of one split are not of the same rows, or their labels are not
            those of the files.
    """
    try:
        return _open(cache, task, views, config, own)
    except FeatureSetNotFound as error:
        streamed = any(not rows.knows_labels for rows in own.values())
        raise with_remedy(error, cache, task, views, config, stream=streamed) from error


def _open(
    cache: FeatureCache,
    task: TaskSpec,
    views: Sequence[View],
    config: FeaturesConfig,
    own: Mapping[Split, OwnRows],
) -> Opened:
    wanted = _wanted(task, config, own)
    backbone, source = backbone_slug(config.backbone), source_name(config.data)
    train = [
        cache.open(
            task.name,
            "train",
            layer=view.layer,
            pooling=view.pooling,
            backbone=backbone,
            source=source,
            identity=wanted["train"],
        )
        for view in views
    ]
    opened = {"train": train}
    for split in ("validation", "test"):
        try:
            opened[split] = [_sibling(cache, task, split, feature_set, source, wanted[split]) for feature_set in train]
        except FeatureSetNotFound:
            if split == "validation":  # test, not every task has
                raise
    for sets in opened.values():
        check_same_rows(sets)
    for split, rows in own.items():
        if split in opened and rows.knows_labels:
            _check_labels(opened[split][0], rows)
    return opened


def cached_views(
    cache: FeatureCache,
    task: TaskSpec,
    config: FeaturesConfig,
    own: Mapping[Split, OwnRows] = MappingProxyType({}),
) -> list[View]:
    """All pooled views of a task that the cache holds of its training rows.

    Raises:
        FeatureSetNotFound: it holds none.
    """
    wanted = _wanted(task, config, own)["train"]
    backbone, source = backbone_slug(config.backbone), source_name(config.data)
    found = cache.matching(task.name, "train", backbone=backbone, source=source, identity=wanted)
    views = dict.fromkeys(View(m.identity.layer, check_pooling(m.identity.pooling)) for m in found)
    pooled = [view for view in views if view.pooling != "tokens"]
    if not pooled:  # opening the task's own views says what is nearest
        open_features(cache, task, task.head_view, config, own)
        raise FeatureSetNotFound("the cache holds no pooled view of these rows", where=f"{task.name}/train")
    return pooled


def _wanted(task: TaskSpec, config: FeaturesConfig, own: Mapping[Split, OwnRows]) -> dict[str, dict[str, Any]]:
    """By split, the fields of the identity that are asked for; of train all, of others what only they differ in."""
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
    of_split: dict[str, dict[str, Any]] = {split: _of_split(where, split) for split in SPLITS}
    for split, rows in own.items():
        of_split[split] = {"texts": rows.texts, **of_split[split]}
    wanted |= {name: value for name, value in where.items() if name.split(".")[0] not in SPLITS}
    return {**of_split, "train": wanted | of_split["train"]}


def _check_labels(feature_set: FeatureSet, rows: OwnRows) -> None:
    y = feature_set.y
    if (None if y is None else tuple(y.tolist())) != rows.labels:
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
    identity = flatten(train.manifest.identity.without_texts())
    return cache.open(
        task.name,
        split,
        backbone=train.manifest.backbone,
        source=source,
        identity={**identity, **where},
    )


def check_same_rows(sets: Sequence[FeatureSet]) -> None:
    """Refuse views of different sentences, or of the same in another order.

    Raises:
        CacheError: they are.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.manifest.identity.texts != first.manifest.identity.texts:
            raise CacheError(
                "views side by side must be of the same sentences",
                expected=_place(first),
                found=_place(other),
            )


def _place(feature_set: FeatureSet) -> str:
    manifest = feature_set.manifest
    return f"{manifest.task}/{manifest.split}/{manifest.name}"


def side_by_side(sets: Sequence[FeatureSet]) -> SplitFeatures:
    """The rows of views `[n, d]` each as one matrix `[n, d + d + …]`.

    Raises:
        CacheError: the views are of different sentences.
        HeadError: one is a tokens view, which has more than one vector a row.
    """
    check_same_rows(sets)
    if tokens := [feature_set.manifest.name for feature_set in sets if feature_set.is_tokens]:
        raise HeadError(
            "a tokens view cannot stand side by side with others, nor be a matrix",
            where=tokens[0],
            expected="one vector a row",
        )
    began = time.monotonic()
    X = _joined(sets)
    return replace(facts_of(*sets, X=X), reading_seconds=time.monotonic() - began)


def facts_of(*sets: FeatureSet, X: Any = NOT_READ) -> SplitFeatures:
    """What is known of the rows of one or several views, whose features are not read."""
    first = sets[0]
    first.columns("idx", "text", "source")  # together: each of them alone would open every file again
    return SplitFeatures(
        X=X,
        y=first.y,
        sample_ids=first.sample_ids,
        texts=first.texts,
        fingerprints=tuple(feature_set.fingerprint for feature_set in sets),
        sources=first.sources,
        cost=cost_of(sets),
        identities=tuple(feature_set.manifest.identity.without_texts() for feature_set in sets),
    )


def _joined(sets: Sequence[FeatureSet]) -> np.ndarray:
    """`[n, d + d + …]` float32: read in blocks, so that the matrix is in memory once."""
    ends = np.cumsum([0, *(feature_set.hidden_size for feature_set in sets)])
    X = np.empty((len(sets[0]), ends[-1]), dtype=np.float32)
    for feature_set, first, stop in zip(sets, ends[:-1], ends[1:], strict=True):
        for number, rows in enumerate(feature_set.rows_of_shards):  # shard by shard, as a store likes to be read
            data = feature_set.shard(number)
            for begin in range(0, len(rows), READ_ROWS):
                some = slice(begin, begin + READ_ROWS)
                X[rows[some], first:stop] = to_float32(data.hidden_states[some], data.dtype)
    return X
