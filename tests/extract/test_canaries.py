"""Canaries: rows computed again are compared with what is stored, and too much drift seals nothing."""

import dataclasses

import numpy as np
import pytest

from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.load import load_backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import load_tokenizer, tokenize
from pipeline.cache import FeatureCache
from pipeline.cache.canary_rows import CANARIES, draw_canaries, tolerance_for
from pipeline.cache.manifest import MANIFEST, Manifest
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError, CacheError, ConfigError
from pipeline.extract import shard_pass
from pipeline.extract.canaries import Recomputed
from pipeline.extract.recheck import recheck
from pipeline.extract.shard_pass import compute_rows, plan_rows, shared_prefix, to_shard_data
from pipeline.views import View


@pytest.fixture
def manifest(stage_one, tmp_path) -> Manifest:
    stage_one(tasks=("cola",), splits=("train",), layers=("-1",), poolings=("mean",))
    return FeatureCache(tmp_path / "cache").open("cola", "train").manifest


def test_the_passport_holds_what_was_measured(manifest):
    passport = manifest.passport
    assert passport["canaries"] == CANARIES
    assert passport["tolerance"] == 1e-4
    for how in ("alone", "shuffled"):
        assert 0.0 <= passport[how]["relative"] <= 1e-4
        assert 1.0 - 1e-6 <= passport[how]["cosine"] <= 1.0
    assert passport["alone"]["relative"] > 0.0  # padded batches with a shared prefix do not come out bit by bit
    assert passport["share_beyond_float16"] == 0.0
    assert passport["minimum"] < 0.0 < passport["maximum"]


def test_canaries_are_drawn_by_the_identity_alike_for_all_views_of_a_pass(manifest):
    identity = manifest.identity
    drawn = draw_canaries(identity, 1000)
    assert len(set(drawn.tolist())) == CANARIES
    assert drawn.tolist() == sorted(drawn)
    other_view = dataclasses.replace(identity, layer=0, layer_norm="none", pooling="last", storage_dtype="float16")
    assert draw_canaries(other_view, 1000).tolist() == drawn.tolist()
    for change in ({"prompt": "x {}"}, {"texts": "sha256:x"}, {"weights": "sha256:x"}):
        assert draw_canaries(dataclasses.replace(identity, **change), 1000).tolist() != drawn.tolist()
    assert draw_canaries(identity, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.fixture
def engine(tiny_backbone, tmp_path):
    config = BackboneConfig(backbone=str(tiny_backbone), quantization="none", models_dir=tmp_path / "models")
    source = BackboneSource("tiny", tiny_backbone)
    return PrefillEngine(load_backbone(source, config, device="cpu", compute_dtype="float32"), [1, 2])


@pytest.mark.parametrize("pooling", ["last", "mean", "first", "tokens"])
@pytest.mark.parametrize("storage_dtype", ["float32", "float16", "bfloat16"])
def test_a_row_that_is_off_is_measured(engine, tiny_backbone, manifest, pooling, storage_dtype):
    texts = [f"sentence number {'very ' * (n % 4)}{n}" for n in range(12)]
    tokens = tokenize(
        load_tokenizer(tiny_backbone),
        texts,
        "Look: {} !",
        max_length=64,
        truncation=False,
        special_tokens=True,
        origin="x",
    )
    rows, view = np.arange(4, 12), View(2, pooling)
    prefix = shared_prefix(engine, tokens, rows)
    assert len(prefix)
    batches = plan_rows(engine, tokens, rows, len(prefix), 40)
    pooled = compute_rows(engine, tokens, rows, prefix, [view], batches)[view]
    identity = dataclasses.replace(manifest.identity, pooling=pooling, storage_dtype=storage_dtype)
    again = Recomputed(engine, tokens.take(rows), rows, len(tokens), identity, prefix, [view])
    assert again.rows.tolist() == list(rows)  # of twelve rows, all are canaries
    tolerance = tolerance_for(identity)
    drift = again.drift(view, to_shard_data(pooled, pooling, storage_dtype, where=""), tolerance)
    assert drift.is_tolerable
    assert drift.canaries == len(rows)
    pooled[3] = pooled[3] * 1.3
    off = again.drift(view, to_shard_data(pooled, pooling, storage_dtype, where=""), tolerance)
    assert not off.is_tolerable
    assert off.alone_relative == pytest.approx(0.3, abs=0.02)
    assert off.shuffled_relative == pytest.approx(0.3, abs=0.02)


def test_above_tolerance_nothing_is_sealed(stage_one, tmp_path, monkeypatch):
    """A backbone whose rows depend on their batch, as one with a faulty mask would."""
    honest = shard_pass.compute_rows

    def leaky(*args, **kwargs):
        return {view: rows + 0.01 * rows.abs().max() for view, rows in honest(*args, **kwargs).items()}

    monkeypatch.setattr("pipeline.extract.shard_work.compute_rows", leaky)
    with pytest.raises(CacheError, match="do not come out the same") as caught:
        stage_one(tasks=("cola",), splits=("train",))
    assert "0.0001" in caught.value.expected
    assert not list((tmp_path / "cache").rglob("shard-*.json"))
    assert not list((tmp_path / "cache").rglob(MANIFEST))
    stage_one(tasks=("cola",), splits=("train",), drift_tolerance=0.5)
    passport = FeatureCache(tmp_path / "cache").open("cola", "train", layer=-1, pooling="mean").manifest.passport
    assert passport["tolerance"] == 0.5
    assert passport["alone"]["relative"] > 1e-3


def test_a_tolerance_below_zero_is_refused():
    from pipeline.config import PassConfig

    with pytest.raises(ConfigError, match="drift_tolerance"):
        PassConfig(drift_tolerance=-1.0)
    with pytest.raises(ConfigError, match="lock_timeout"):
        PassConfig(lock_timeout=float("nan"))


def test_with_its_backbone_a_set_is_checked_again(stage_one, tiny_backbone, tmp_path):
    stage_one(tasks=("sst2",), splits=("train",), layers=("1",), poolings=("mean", "tokens"))
    config = BackboneConfig(backbone=str(tiny_backbone), models_dir=tmp_path / "models")
    cache = FeatureCache(tmp_path / "cache")
    sets = [cache.folder(manifest) for manifest in cache.manifests()]
    assert [report.damages for report in recheck(sets, config)] == [(), ()]

    with pytest.raises(BackboneError, match="did not come from this backbone") as caught:
        recheck(sets[:1], dataclasses.replace(config, quantization="none"))
    assert "quantization.type" in str(caught.value)
    with pytest.raises(BackboneError, match="no feature set"):
        recheck(sets, dataclasses.replace(config, quantization="none"))


def test_features_of_something_else_under_this_identity_are_found_out(stage_one, tiny_backbone, tmp_path, monkeypatch):
    """Every digest fits, and still these are not the backbone's hidden states."""
    from pipeline.extract import shard_work

    honest = shard_work.compute_rows
    monkeypatch.setattr(shard_work, "compute_rows", lambda *a, **k: {v: r.flip(0) for v, r in honest(*a, **k).items()})
    stage_one(tasks=("cola",), splits=("validation",), layers=("1",), poolings=("mean",), drift_tolerance=10.0)
    monkeypatch.undo()
    config = BackboneConfig(backbone=str(tiny_backbone), models_dir=tmp_path / "models")
    feature_set = FeatureCache(tmp_path / "cache").open("cola", "validation")
    (report,) = recheck([feature_set.folder], config)
    assert {damage.shard for damage in report.damages} == {0, 1}
    assert "rows computed again differ" in str(report)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_canary_that_comes_out_as_no_number_is_as_far_off_as_can_be(value):
    from pipeline.cache.passport import Drift
    from pipeline.extract.canaries import _compare

    row = np.ones(4, np.float32)
    other = np.array([1, value, 1, 1], np.float32)
    assert _compare([row, row], [row, other]) == (np.inf, -1.0)
    assert not Drift(1, *_compare([row], [other]), tolerance=1e30).is_tolerable
