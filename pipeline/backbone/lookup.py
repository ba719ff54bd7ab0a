"""A backbone looked up: what its config and tokenizer say of it, whether or not its weights and its device are here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.backbone.catalogue import WEIGHTS, BackboneSource, check_revision, find_backbone
from pipeline.backbone.digest import digest_of_weights
from pipeline.backbone.embedded import EMBEDDED, write_without_weights
from pipeline.backbone.facts import named_device, read_facts, resolve_dtype
from pipeline.backbone.known import KnownBackbone
from pipeline.config import BackboneConfig


@contextmanager
def looked_up(config: BackboneConfig) -> Iterator[KnownBackbone]:
    """Within, a backbone is known as well as it can be without its weights; nothing is written for it.

    The embedded one is not converted, and of the Hub's only small files are fetched, into the Hub's cache. Weights
    that are here are known as stage one knows them; for those of the Hub that are not here the commit stands, and any
    others have a digest that no weights have. The device may be another machine's.

    Raises:
        BackboneError: it is not here, or none that can be used.
    """
    device = named_device(config.device)
    dtype = resolve_dtype(config.compute_dtype, device)
    check_revision(config)
    with TemporaryDirectory() as temporary:
        if config.backbone == EMBEDDED and not (config.models_dir / EMBEDDED).is_dir():
            write_without_weights(Path(temporary))
            source = BackboneSource(EMBEDDED, Path(temporary))
        else:
            source = find_backbone(config, with_weights=False)
        if source.commit is not None and not any(source.folder.glob(WEIGHTS)):
            weights = f"commit:{source.commit}"
        else:
            weights = digest_of_weights(source.folder, config.models_dir, source.commit, learns=False)
        yield KnownBackbone(source, config, read_facts(source, config, dtype, weights=weights), device, dtype)


def has_weights(known: KnownBackbone) -> bool:
    """Whether it is known which weights these are: by a commit, or because they are here."""
    return known.source.commit is not None or any(known.source.folder.glob(WEIGHTS))
