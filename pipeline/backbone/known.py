"""A backbone that is found, and known by its files, before its weights are loaded."""

from dataclasses import dataclass

from pipeline.backbone.catalogue import BackboneSource, find_backbone
from pipeline.backbone.facts import BackboneFacts, check_unchanged, read_facts, resolve_device, resolve_dtype
from pipeline.backbone.load import Backbone, load_backbone
from pipeline.config import BackboneConfig, Dtype


@dataclass(frozen=True)
class KnownBackbone:
    """What will be loaded, and where it will compute.

    Args:
        source: where it lies.
        config: as it was asked for.
        facts: its part of a feature's identity.
        device: the resolved one.
        dtype: it computes in, resolved.
    """

    source: BackboneSource
    config: BackboneConfig
    facts: BackboneFacts
    device: str
    dtype: Dtype

    @classmethod
    def find(cls, config: BackboneConfig) -> "KnownBackbone":
        """Find a backbone and read its files, not its weights.

        Raises:
            BackboneError: it is not here, or none that can be used.
        """
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.compute_dtype, device)
        source = find_backbone(config)
        return cls(source, config, read_facts(source, config, dtype), device, dtype)

    def load(self) -> Backbone:
        """Load it.

        Raises:
            BackboneError: its files are other ones than when it was found, or do not fit.
        """
        loaded = load_backbone(self.source, self.config, device=self.device, compute_dtype=self.dtype, facts=self.facts)
        check_unchanged(self.facts, self.source, self.config, self.dtype)
        return loaded
