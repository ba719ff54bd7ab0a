"""The contract between the two stages: feature sets on disk, each with its identity, its shards and its manifest."""

from pipeline.cache.feature_cache import FeatureCache
from pipeline.cache.feature_set import FeatureSet
from pipeline.cache.passes import Cost, cost_of

__all__ = ["Cost", "FeatureCache", "FeatureSet", "cost_of"]
