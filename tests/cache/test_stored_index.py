"""Of the index that is read which is asked for: some columns, some shards. A set's texts need not fit into memory."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.cache import FeatureSet
from pipeline.cache import stored_index as module
from pipeline.cache.index import SCHEMA, write_index
from pipeline.cache.manifest import shard_paths
from pipeline.errors import ConfigError, DamagedFeatureSet
from tests.cache.small_corpus import Corpus


@pytest.fixture(params=["split", "tokens"])
def order(request):
    return request.param


@pytest.fixture
def reads(monkeypatch):
    """What was read: file by file, the columns."""
    found = []
    read = module.read_open_index

    def noting(file, path, *, rows, columns):
        found.append((Path(path).name, set(columns) - {"row"}))
        return read(file, path, rows=rows, columns=columns)

    monkeypatch.setattr(module, "read_open_index", noting)
    return found


def test_a_column_is_read_alone_and_once(tmp_path, order, reads):
    small = Corpus(order=order)
    feature_set = small.write(tmp_path)
    for _ in range(2):
        assert feature_set.y.tolist() == [small.label(row) for row in range(11)]
        assert feature_set.sample_ids.tolist() == [1000 + 3 * row for row in range(11)]
        assert feature_set.sources == tuple(f"s{row % 5}" for row in range(11))
    assert set().union(*(columns for _, columns in reads)) == {"label", "idx", "source"}
    assert len([columns for _, columns in reads if columns]) == 9  # three shards
    reads.clear()
    assert feature_set.index.column_names == SCHEMA.names
    assert feature_set.texts == [small.text(row) for row in range(11)]
    assert len(reads) == 3


def test_labels_of_some_rows_are_read_from_their_shards(tmp_path, reads):
    small = Corpus()
    feature_set = small.write(tmp_path)
    for rows in ([9, 1, 9], np.array([0, 2]), []):
        assert feature_set.take_y(rows).tolist() == [small.label(int(row)) for row in rows]
    assert reads == [("shard-00000.parquet", {"label"}), ("shard-00002.parquet", {"label"})]


def test_labels_of_rows_that_were_ordered_anew(tmp_path):
    small = Corpus(order="tokens")
    assert small.write(tmp_path).take_y([10, 0, 5]).tolist() == [small.label(row) for row in (10, 0, 5)]


def test_an_epoch_reads_no_texts(tmp_path, order, reads):
    small = Corpus(order=order)
    feature_set = small.write(tmp_path)
    for X, y, rows in feature_set.batches(3, shuffle=True, block_rows=2):
        assert y.dtype == np.int64 and y.tolist() == [small.label(int(row)) for row in rows]
        assert np.array_equal(X, np.stack([small.states(int(row)) for row in rows]))
    loaded = feature_set.torch_dataset().__getitems__([4, 8])
    assert [row["y"] for row in loaded] == [small.label(4), small.label(8)]
    assert set().union(*(columns for _, columns in reads)) == {"label"}


def test_an_export_reads_a_shard_at_a_time(tmp_path, reads):
    small = Corpus()
    tables = small.write(tmp_path).tables()
    table = next(tables)
    assert table["text"].to_pylist() == [small.text(row) for row in range(4)]
    assert {name for name, _ in reads} == {"shard-00000.parquet"}


def test_an_unlabelled_split_has_no_labels_to_read(tmp_path, reads):
    feature_set = Corpus(facts={"labelled": False}).write(tmp_path)
    assert feature_set.y is None and feature_set.take_y([3]) is None
    assert [y for _, y, _ in feature_set.batches(4)] == [None] * 3
    assert not reads


def test_what_is_no_row_has_no_label(tmp_path):
    feature_set = Corpus().write(tmp_path)
    for row in (-1, 11):
        with pytest.raises(IndexError):
            feature_set.take_y([row])
    with pytest.raises(ConfigError, match="no row numbers"):
        feature_set.take_y(np.ones(11, dtype=bool))


ASKED = {
    "labels of rows": lambda feature_set: feature_set.take_y([5]),
    "labels": lambda feature_set: feature_set.y,
    "a column": lambda feature_set: feature_set.column("n_tokens"),
    "everything": lambda feature_set: feature_set.index,
    "an epoch": lambda feature_set: list(feature_set.batches(4)),
}
ROWS = {
    "a row twice": lambda table: table.take([0, 0, 2, 3]),
    "in another order": lambda table: table.take([1, 0, 2, 3]),
    "rows of another shard": lambda table: table.set_column(0, SCHEMA.field("row"), [[0, 1, 2, 3]]),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("rows", ROWS)
def test_a_shard_of_other_rows_is_refused_whatever_is_asked(tmp_path, monkeypatch, asked, rows):
    folder = Corpus().write(tmp_path).folder
    path = shard_paths(folder, 1)[1]
    table = ROWS[rows](pq.read_table(path))
    path.unlink()
    write_index(path, table)
    monkeypatch.setattr("pipeline.cache.sealed_files._check_size", lambda *found: None)
    monkeypatch.setattr("pipeline.cache.sealed_files._check_hash", lambda *found: None)
    with pytest.raises(DamagedFeatureSet, match="every row once, in order"):
        ASKED[asked](FeatureSet(folder))
