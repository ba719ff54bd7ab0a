"""The contract between the two stages: feature sets on disk, each with its identity, its shards and its manifest."""

from pipeline.cache.feature_cache import FeatureCache
from pipeline.cache.feature_set import FeatureSet

__all__ = ["FeatureCache", "FeatureSet"]
