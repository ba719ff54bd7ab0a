"""What features cost is what the log of their passes says, and nothing where the log does not tell it all."""

import json

import pytest

from pipeline.cache import FeatureCache, cost_of
from pipeline.cache.passes import PASSES, read_passes


def note(feature_set, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (feature_set.folder / PASSES).write_text("\n".join(lines) + "\n")


def of_pass(name, shard, backbone_seconds, seconds, **more):
    return {"pass": name, "shard": shard, "backbone_seconds": backbone_seconds, "seconds": seconds, **more}


@pytest.fixture
def views(write_cache, corpora, tmp_path):
    """Two views of the same rows, in three shards."""
    cache = FeatureCache(write_cache(tmp_path / "cache", corpora, shard_rows=128).cache_dir)
    return [cache.open("cola", "train", layer=layer, pooling="mean") for layer in (1, 2)]


def test_a_pass_that_wrote_several_views_counts_once(views):
    first, second = views
    together = [of_pass("a", 0, 4.0, 5.0, device="cpu"), of_pass("b", 1, 3.0, 3.5), of_pass("c", 2, 1.0, 1.25)]
    note(first, *together)
    note(second, *together)
    cost = cost_of(views)
    assert (cost.backbone_seconds, cost.seconds) == (8.0, 9.75)
    assert cost.devices == ("cpu", "unknown")
    assert cost == cost_of([first])
    note(second, *together[:2], of_pass("d", 2, 1.5, 2.0))  # the last shard was computed for this view alone
    assert cost_of(views).backbone_seconds == 9.5
    assert cost_of(views).passes == cost.passes == cost_of([second]).passes


def test_the_digest_of_passes_is_of_all_but_the_view(views, write_cache, corpora, tmp_path):
    other = FeatureCache(write_cache(tmp_path / "other", corpora, shard_rows=128, max_length=99).cache_dir)
    longer = other.open("cola", "train", layer=1, pooling="mean")
    every = [of_pass(str(shard), shard, 1.0, 1.0) for shard in range(3)]
    for feature_set in (*views, longer):
        note(feature_set, *every)
    one, two, another = (cost_of([feature_set]).passes for feature_set in (*views, longer))
    assert one == two != another


@pytest.mark.parametrize(
    "records",
    [
        [of_pass("a", 0, 4.0, 5.0), of_pass("b", 1, 3.0, 3.5)],
        [of_pass("a", 0, 1.0, 1.0), of_pass("b", 1, 1.0, 1.0), {"shard": 2, "backbone_seconds": 1.0}],
        [of_pass("a", 0, 1.0, 1.0), of_pass("b", 1, 1.0, 1.0), of_pass("c", 2, -1.0, 1.0)],
        [of_pass("a", 0, 1.0, 1.0), of_pass("b", 1, 1.0, 1.0), '{"shard": 2, "seco'],
        [of_pass("a", 0, 1.0, 1.0), of_pass("b", 1, 1.0, 1.0), "[]", "NaN", of_pass("c", 2, "many", 1.0)],
    ],
)
def test_a_log_that_does_not_tell_of_every_shard_tells_no_cost(views, records):
    note(views[0], *records)
    assert cost_of(views[:1]) is None
    note(views[0], *[of_pass(str(shard), shard, 1.0, 1.0) for shard in range(3)])
    assert cost_of(views[:1]) is not None


def test_no_log_or_one_that_is_a_link_tells_nothing(views, tmp_path):
    assert read_passes(views[0].folder) == []
    (tmp_path / "elsewhere").write_text(json.dumps(of_pass("a", 0, 1.0, 1.0)))
    (views[0].folder / PASSES).symlink_to(tmp_path / "elsewhere")
    assert read_passes(views[0].folder) == []
