"""A stream gives the same rows whether they are in memory, mapped, of one cut or of several."""

import numpy as np
import pytest

from pipeline.cache import FeatureCache
from pipeline.heads.fused import stream as streams
from pipeline.heads.fused.stream import FeatureStream
from pipeline.views import View


def rows_of(stream):
    X = np.full((len(stream), stream.width), np.nan, dtype=np.float32)
    for rows, block in stream.blocks():
        X[stream.order[rows]] = block.numpy()
    return X


def opened(cache, *views):
    features = FeatureCache(cache.cache_dir)
    return [features.open("cola", "train", layer=view.layer, pooling=view.pooling) for view in views]


VIEWS = (View(1, "mean"), View(2, "last"))


@pytest.mark.parametrize("least_rows", [7, 128, 1000])
@pytest.mark.parametrize("storage_dtype", ["float32", "float16", "bfloat16"])
def test_every_row_comes_once_whatever_the_blocks(
    corpora, write_cache, tmp_path, monkeypatch, least_rows, storage_dtype
):
    from dataclasses import replace

    def stored(X):
        if storage_dtype == "bfloat16":
            return (X.view(np.uint32) >> 16).astype(np.uint16)
        return X.astype(storage_dtype)

    train = corpora["train"]
    coarse = replace(train, X={name: stored(X) for name, X in train.X.items()})
    cache = write_cache(tmp_path, {"train": coarse}, shard_rows=64, storage_dtype=storage_dtype)
    monkeypatch.setattr(streams, "LEAST_BLOCK_ROWS", least_rows)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1)
    sets = opened(cache, *VIEWS)
    stream = FeatureStream.of_feature_sets(sets)
    expected = np.concatenate([np.asarray(each.X, dtype=np.float32) for each in sets], axis=1)
    assert np.array_equal(rows_of(stream), expected)
    assert np.array_equal(rows_of(stream.in_memory()), expected)
    np.testing.assert_allclose(expected, np.concatenate([train.X[str(view)] for view in VIEWS], axis=1), rtol=1e-2)


def test_views_of_different_cuts_stand_side_by_side(corpora, write_cache, tmp_path):
    train = {"train": corpora["train"]}
    write_cache(tmp_path, train, views=VIEWS[:1], shard_rows=64)
    cache = write_cache(tmp_path, train, views=VIEWS[1:], shard_rows=128)
    expected = np.concatenate([corpora["train"].X[str(view)] for view in VIEWS], axis=1)
    assert np.array_equal(rows_of(FeatureStream.of_feature_sets(opened(cache, *VIEWS))), expected)


def test_a_single_mapped_view_is_never_copied_and_what_is_too_large_is_streamed(cache, monkeypatch):
    single = FeatureStream.of_feature_sets(opened(cache, VIEWS[0]))
    assert single.within_memory() is single
    both = FeatureStream.of_feature_sets(opened(cache, *VIEWS))
    assert both.within_memory() is not both
    monkeypatch.setattr(streams, "free_bytes", lambda: both.nbytes)
    assert both.within_memory() is both  # it would take more than its share
