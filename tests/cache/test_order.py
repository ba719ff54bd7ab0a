"""Rows that were ordered by their tokens before they were cut: read, they stand as in the split."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.cache import FeatureSet
from pipeline.cache.cut import CUT, Cut, read_cut
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.relabel import reindex
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.verify import verify_feature_set
from pipeline.digests import sha256_of_file
from pipeline.errors import CacheError, DamagedFeatureSet


@pytest.fixture
def ordered(corpus, pooling, dtype):
    return corpus(order="tokens", changes={"pooling": pooling, "storage_dtype": dtype})


def test_what_is_read_stands_as_in_the_split(ordered, tmp_path):
    feature_set = ordered.write(tmp_path)
    assert [rows.tolist() for rows in feature_set.rows_of_shards] != [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    ordered.check(feature_set)
    ordered.check(FeatureSet(feature_set.folder, verify=True))
    for number, rows in enumerate(feature_set.rows_of_shards):
        assert pq.read_table(shard_paths(feature_set.folder, number)[1])["row"].to_pylist() == sorted(rows.tolist())
        stored = feature_set.shards[number]
        parts = (
            [stored.hidden_states] if stored.offsets is None else np.split(stored.hidden_states, stored.offsets[1:-1])
        )
        expected = [ordered.stored(row) for row in rows]
        assert np.concatenate(parts).tobytes() == np.concatenate([part.ravel() for part in expected]).tobytes()


def test_every_other_way_to_read_gives_the_same(ordered, tmp_path):
    feature_set, rows = ordered.write(tmp_path), list(range(11))
    for shuffle in (False, True):
        seen = []
        for X, y, numbers in feature_set.batches(3, shuffle=shuffle, block_rows=2):
            assert y.tolist() == [ordered.label(row) for row in numbers]
            for vectors, row in zip(X, numbers, strict=True):
                assert np.array_equal(vectors, ordered.states(row))
            seen += numbers.tolist()
        assert sorted(seen) == rows
        assert shuffle or seen == rows
    samples = feature_set.torch_dataset().__getitems__([7, 0, 7])
    assert [sample["row"] for sample in samples] == [7, 0, 7]
    assert all(np.array_equal(sample["X"].float().numpy(), ordered.states(sample["row"])) for sample in samples)
    feature_set.to_parquet(tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["row"].to_pylist() == rows
    assert table["text"].to_pylist() == [ordered.text(row) for row in rows]
    assert table["hidden_states"].to_pylist() == [ordered.states(row).tolist() for row in rows]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matrix_is_ones_own_and_the_view_of_it_is_read_only(corpus, tmp_path, dtype):
    small = corpus(order="tokens", changes={"storage_dtype": dtype})
    feature_set = small.write(tmp_path)
    tensor = feature_set.to_torch()
    tensor += 1
    assert torch.equal(feature_set.to_torch().float() + 1, tensor.float())
    assert np.array_equal(feature_set.take([4, 2]), np.stack([small.stored(4), small.stored(2)]))
    if dtype == "float32":
        assert feature_set.X is feature_set.X
        with pytest.raises(ValueError, match="read-only"):
            feature_set.X[0] = 0
    small.check(feature_set)


def test_a_begun_order_is_kept_and_another_is_refused(corpus, tmp_path):
    first, other = corpus(order="tokens"), corpus()
    late = other.writer(tmp_path)
    writer = first.writer(tmp_path)
    writer.keep_cut(timeout=0.0)
    with pytest.raises(CacheError, match="cuts this feature set into other shards"):
        late.keep_cut(timeout=0.0)
    first.write_shard(writer, 1)
    assert late.sealed(1) is None  # it would be of other rows
    (writer.folder / CUT).unlink()
    assert read_cut(writer.folder) == Cut(4, "tokens", 1024)  # by the sealed shard
    again = other.writer(tmp_path)
    assert again.cut == Cut(4, "tokens", 1024)
    again.keep_cut(timeout=0.0)
    for number in (0, 2):
        other.write_shard(again, number)
    again.finish()
    first.check(FeatureSet(writer.folder))
    assert other.writer(tmp_path).cut == Cut(4, "tokens", 1024)


def test_relabelling_finds_the_rows_of_each_shard(corpus, tmp_path):
    small = corpus(order="tokens")
    small.write(tmp_path)
    changed = dataclasses.replace(small, relabelled=True)
    writer = changed.writer(tmp_path)
    labels = {"label": pa.array([changed.label(row) for row in range(11)], pa.int64())}
    assert [reindex(writer, number, labels) for number in range(3)] == [True] * 3
    writer.finish()
    changed.check(FeatureSet(writer.folder))
    assert verify_feature_set(writer.folder, deep=True).status == "sound"


def _with_rows(folder, number, rows):
    """Give a shard's index other row numbers, with seal, passport and manifest made to agree."""
    _, index, seal_path = shard_paths(folder, number)
    table = pq.read_table(index)
    index.unlink()
    pq.write_table(table.set_column(0, table.schema.field(0), pa.array(rows)), index, write_page_checksum=True)
    sizes = {"index_bytes": index.stat().st_size, "index_sha256": sha256_of_file(index)}
    dataclasses.replace(Seal.read(seal_path), **sizes).write(seal_path)
    seals = [Seal.read(shard_paths(folder, each)[2]) for each in range(3)]
    manifest = Manifest.read(folder)
    dataclasses.replace(manifest, seals=digest_of_seals(seals), passport=passport_of_seals(seals)).write(folder)


@pytest.mark.parametrize("change", ["twice", "shuffled", "beyond", "negative"])
def test_shards_that_do_not_hold_every_row_once_are_refused(corpus, tmp_path, change):
    small = corpus(order="tokens")
    feature_set = small.write(tmp_path)
    mine, other = (feature_set.rows_of_shards[number].tolist() for number in (0, 1))
    wrong = {
        "twice": sorted([*mine[:-1], next(row for row in other if row not in mine)]),
        "shuffled": mine[::-1],
        "beyond": [*mine[:-1], 11],
        "negative": [-1, *mine[1:]],
    }[change]
    _with_rows(feature_set.folder, 0, wrong)
    report = verify_feature_set(feature_set.folder, deep=True)
    assert report.status == "damaged"
    if change == "twice":
        assert report.damages[0].file == MANIFEST
        assert "every row of the split once" in report.damages[0].problem
    with pytest.raises(DamagedFeatureSet):
        _ = FeatureSet(feature_set.folder).X
