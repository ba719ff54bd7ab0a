"""Settings of predicting new sentences."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import BackboneConfig


@dataclass(frozen=True)
class PlaceConfig:
    """Where the run's backbone is found, and where it computes.

    Args:
        models_dir: where the embedded backbone and quantised weights are kept.
        device: `auto` is CUDA where there is one; `cpu`, `cuda` or `cuda:1` otherwise.
    """

    models_dir: Path = field(default_factory=lambda: BackboneConfig().models_dir)
    device: str = "auto"


@dataclass(frozen=True)
class PredictConfig(PlaceConfig):
    """Where what a run needs is found, and what becomes of long sentences.

    Args:
        backbone: where the run's backbone is, or what it is called, where the run does not say it or it moved since.
        adapter: the folder of the adapter that was merged into it (`pipeline extract --adapter`), where one was.
        cache_dir: of a run whose record does not say what its head reads, the cache that has the features it trained
            on; by default the one that it names.
        truncation: cut the sentences that are longer than the run's limit, and count them; otherwise they are refused.
    """

    backbone: str | None = None
    adapter: Path | None = None
    cache_dir: Path | None = None
    truncation: bool = False
