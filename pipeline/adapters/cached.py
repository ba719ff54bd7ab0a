"""What the cache holds of the rows that a live path sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.adapters.rows import LiveRows
from pipeline.backbone.facts import BackboneFacts
from pipeline.backbone.tokens import resolve_max_length
from pipeline.cache import FeatureCache, FeatureSet
from pipeline.config import TokensConfig, backbone_slug
from pipeline.digests import sha256_of_texts
from pipeline.errors import AdapterError, FeatureSetNotFound
from pipeline.views import View


@dataclass(frozen=True)
class CachedRows:
    """The cached features of one split's rows under the backbone of a live run, whatever their view.

    Args:
        cache: where they are.
        rows: the split.
        identity: what they must be, but for their dtypes.
        dtype: the live path's compute dtype: where there are features of several, those of this one are meant.
        backbone, source: as asked for.
    """

    cache: FeatureCache
    rows: LiveRows
    identity: Mapping[str, Any]
    dtype: str
    backbone: str
    source: str

    @classmethod
    def of(
        cls,
        cache: FeatureCache,
        rows: LiveRows,
        facts: BackboneFacts,
        tokens: TokensConfig,
        prompt: str,
        *,
        backbone: str,
        source: str,
    ) -> "CachedRows":
        """Those of a backbone and a prompt."""
        identity = {
            "weights": facts.weights,
            "architecture": facts.architecture,
            "quantization": {name: value for name, value in facts.quantization.items() if name != "compute_dtype"},
            "tokenizer": facts.tokenizer,
            "adapter": None,
            "prompt": prompt,
            "max_length": resolve_max_length(tokens.max_length, facts.max_positions),
            "truncation": tokens.truncation,
            "special_tokens": tokens.special_tokens,
            "texts": f"sha256:{sha256_of_texts(rows.examples.texts)}",
        }
        return cls(cache, rows, identity, str(facts.quantization["compute_dtype"]), backbone, source)

    def open(self, view: View) -> FeatureSet:
        """The features under one view: of the live path's own dtypes, or where there are none, of others.

        Raises:
            FeatureSetNotFound: there are none; the error names the nearest, and what differs.
            CacheError: several match, or they are damaged.
        """
        own = {
            "quantization": {**self.identity["quantization"], "compute_dtype": self.dtype},
            "storage_dtype": self.dtype,
        }
        try:
            return self._open(view, {**self.identity, **own})
        except FeatureSetNotFound:
            return self._open(view, self.identity)

    def _open(self, view: View, identity: Mapping[str, Any]) -> FeatureSet:
        return self.cache.open(
            self.rows.task.name,
            self.rows.examples.split,
            layer=view.layer,
            pooling=view.pooling,
            backbone=backbone_slug(self.backbone),
            source=self.source,
            identity=identity,
        )

    def open_tokens(self, layer: int) -> FeatureSet:
        """The `tokens` view of a layer, in whose states live passes are to begin.

        Raises:
            AdapterError: the cache does not hold it.
            CacheError: several match, or they are damaged.
        """
        try:
            return self.open(View(layer, "tokens"))
        except FeatureSetNotFound as error:
            raise AdapterError(
                f"live passes are to begin at layer {layer}, and its tokens view is not there:\n{error.what}",
                where=f"{self.rows.task.name}/{self.rows.examples.split}",
                remedy=f"run pipeline extract --tasks {self.rows.task.name} --layers {layer} --poolings tokens with "
                "the same --data, --backbone, --quantization and --compute-dtype; or add --whole-passes",
            ) from error
