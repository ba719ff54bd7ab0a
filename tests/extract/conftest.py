"""Stage one on a tiny real backbone and a small GLUE folder."""

import pytest

from pipeline.config import BackboneConfig, ExtractConfig, PassConfig, TokensConfig
from pipeline.corpus_config import CorpusConfig
from pipeline.engine_config import ShareConfig
from pipeline.extract.run import extract
from pipeline.store_config import StoreConfig


@pytest.fixture
def asked_for(tiny_backbone, small_glue, tmp_path):
    """The settings of stage one on the tiny backbone, with any of them changed."""

    def ask(cache_dir=tmp_path / "cache", **changed):
        def settings(kind, **defaults):
            names = kind.__dataclass_fields__
            return kind(**{**defaults, **{name: value for name, value in changed.items() if name in names}})

        return (
            settings(ExtractConfig, layers=("1", "-1"), poolings=("last", "mean")),
            settings(CorpusConfig, glue_dir=small_glue),
            settings(BackboneConfig, backbone=str(tiny_backbone), models_dir=tmp_path / "models"),
            settings(TokensConfig),
            settings(PassConfig, shard_rows=16, token_budget=256),
            settings(StoreConfig, cache_dir=cache_dir),
            settings(ShareConfig),
        )

    return ask


@pytest.fixture
def stage_one(asked_for):
    """Stage one on the tiny backbone, with any setting changed."""
    return lambda *cache_dir, **changed: extract(*asked_for(*cache_dir, **changed))
