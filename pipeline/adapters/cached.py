"""What the cache holds of the rows that a live path sees."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.adapters.rows import LiveRows, TaskRows
from pipeline.adapters.top_layers import LowerStates, states_before
from pipeline.backbone.facts import BackboneFacts
from pipeline.backbone.prefill import PrefillEngine
from pipeline.cache import FeatureCache, FeatureSet
from pipeline.config import TokensConfig, backbone_slug
from pipeline.digests import sha256_of_texts
from pipeline.errors import AdapterError, FeatureSetNotFound
from pipeline.views import View


def wanted_identity(facts: BackboneFacts, tokens: TokensConfig, prompt: str, rows: LiveRows) -> dict[str, Any]:
    """What features of these rows under this backbone must be, whatever their view and dtypes."""
    return {
        "weights": facts.weights,
        "architecture": facts.architecture,
        "quantization": {name: value for name, value in facts.quantization.items() if name != "compute_dtype"},
        "tokenizer": facts.tokenizer,
        "adapter": None,
        "prompt": prompt,
        "special_tokens": tokens.special_tokens,
        "texts": f"sha256:{sha256_of_texts(rows.examples.texts)}",
    }


def open_cached(
    cache: FeatureCache, rows: LiveRows, view: View, wanted: Mapping[str, Any], *, backbone: str, source: str
) -> FeatureSet:
    """The cached features of these rows under one view.

    Raises:
        FeatureSetNotFound: there are none; the error names the nearest, and what differs.
        CacheError: several match, or they are damaged.
    """
    return cache.open(
        rows.task.name,
        rows.examples.split,
        layer=view.layer,
        pooling=view.pooling,
        backbone=backbone_slug(backbone),
        source=source,
        identity=wanted,
    )


def lower_states(
    cache: FeatureCache,
    rows: TaskRows,
    layer: int,
    engine: PrefillEngine,
    wanted: Callable[[LiveRows], Mapping[str, Any]],
    *,
    backbone: str,
    source: str,
) -> dict[str, LowerStates]:
    """The states in which a task's live passes begin, by split.

    Args:
        layer: whose `tokens` view the cache must hold for every split.
        engine: of the whole backbone; it computes that layer.
        wanted: gives a split's identity, whatever its view.

    Raises:
        AdapterError: the cache does not hold them.
    """
    before = states_before(engine, [of_split.tokens for of_split in rows.splits.values()], layer)
    lower: dict[str, LowerStates] = {}
    for split, of_split in rows.splits.items():
        view = View(layer, "tokens")
        try:
            cached = open_cached(cache, of_split, view, wanted(of_split), backbone=backbone, source=source)
        except FeatureSetNotFound as error:
            raise AdapterError(
                f"live passes are to begin at layer {layer}, and its tokens view is not in the cache:\n{error}",
                remedy=f"run pipeline extract --tasks {rows.task.name} --layers {layer} --poolings tokens with the "
                "same backbone, quantisation and data",
            ) from error
        lower[split] = LowerStates(cached, of_split.tokens, before)
    return lower
