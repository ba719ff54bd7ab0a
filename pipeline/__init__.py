"""Read a corpus once with a frozen, quantised LLM; train heads on the cached hidden states as often as you like."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.cache import FeatureCache, FeatureSet
    from pipeline.heads.store import load_head
    from pipeline.predicting import Predictor, load_predictor

__all__ = ["FeatureCache", "FeatureSet", "Predictor", "load_head", "load_predictor"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What people import from here is loaded when they do, so that the command line answers at once (PEP 562)."""
    if name in ("FeatureCache", "FeatureSet"):
        from pipeline import cache

        return getattr(cache, name)
    if name == "load_head":
        from pipeline.heads.store import load_head

        return load_head
    if name in ("Predictor", "load_predictor"):
        from pipeline import predicting

        return getattr(predicting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
