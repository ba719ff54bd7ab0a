"""Of the index that is read which is asked for: some columns, some shards. A set's texts need not fit into memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
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
    """What was read: file by file, the columns beside those that are always checked."""
    found = []
    read = module.read_open_index

    def noting(file, path, *, rows, columns):
        assert set(module.CHECKED) <= set(columns)
        found.append((Path(path).name, set(columns) - set(module.CHECKED)))
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
    assert set().union(*(columns for _, columns in reads)) == {"idx", "source"}
    assert len([columns for _, columns in reads if columns]) == 6  # three shards
    reads.clear()
    assert feature_set.index.column_names == SCHEMA.names
    assert feature_set.index.schema == SCHEMA
    assert feature_set.texts == [small.text(row) for row in range(11)]
    assert reads == [
        (f"shard-0000{n}.parquet", set(SCHEMA.names) - {"row", "label", "idx", "source"}) for n in range(3)
    ]


def test_columns_that_are_asked_for_together_are_read_together(tmp_path, order, reads):
    feature_set = Corpus(order=order).write(tmp_path)
    assert feature_set.columns("text", "idx", "text").column_names == ["text", "idx"]
    assert [columns for _, columns in reads if columns] == [{"text", "idx"}] * 3
    with pytest.raises(KeyError, match="texts"):
        feature_set.columns("texts")


def test_labels_of_some_rows(tmp_path, order, reads):
    small = Corpus(order=order)
    feature_set = small.write(tmp_path)
    for rows in ([9, 1, 9], np.array([0, 2]), []):
        y = feature_set.take_y(rows)
        assert y.dtype == np.int64 and y.tolist() == [small.label(int(row)) for row in rows]
    assert not set().union(*(columns for _, columns in reads))


def test_an_epoch_reads_no_texts(tmp_path, order, reads):
    small = Corpus(order=order)
    feature_set = small.write(tmp_path)
    for X, y, rows in feature_set.batches(3, shuffle=True, block_rows=2):
        assert y.dtype == np.int64 and y.tolist() == [small.label(int(row)) for row in rows]
        assert np.array_equal(X, np.stack([small.states(int(row)) for row in rows]))
    loaded = feature_set.torch_dataset().__getitems__([4, 8])
    assert [row["y"] for row in loaded] == [small.label(4), small.label(8)]
    assert not set().union(*(columns for _, columns in reads))


def test_labels_are_as_wide_as_the_classes_need(tmp_path, monkeypatch):
    monkeypatch.setattr(Corpus, "label", lambda self, row: 290 + row)
    feature_set = Corpus(facts={"labels": tuple(f"class {n}" for n in range(301))}).write(tmp_path)
    assert feature_set.y.tolist() == feature_set.take_y(range(11)).tolist() == list(range(290, 301))


def test_an_export_reads_a_shard_at_a_time(tmp_path, reads):
    small = Corpus()
    tables = small.write(tmp_path).tables()
    table = next(tables)
    assert table["text"].to_pylist() == [small.text(row) for row in range(4)]
    assert {name for name, _ in reads} == {"shard-00000.parquet"}


def test_an_unlabelled_split_has_no_labels(tmp_path):
    feature_set = Corpus(facts={"labelled": False}).write(tmp_path)
    assert feature_set.y is None and feature_set.take_y([3]) is None
    assert [y for _, y, _ in feature_set.batches(4)] == [None] * 3


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
    "an item": lambda feature_set: feature_set.torch_dataset()[0],
    "a column": lambda feature_set: feature_set.columns("n_tokens"),
    "everything": lambda feature_set: feature_set.index,
    "the first batch": lambda feature_set: next(feature_set.batches(2)),
}
ROWS = {
    "a row twice": lambda table: table.take([0, 0, 2, 3]),
    "in another order": lambda table: table.take([1, 0, 2, 3]),
    "rows of another shard": lambda table: table.set_column(0, SCHEMA.field("row"), [[0, 1, 2, 3]]),
}


@pytest.fixture
def unsealed(monkeypatch):
    """Seals say nothing of the files: what else is wrong with them has to be found."""
    monkeypatch.setattr("pipeline.cache.sealed_files._check_size", lambda *found: None)
    monkeypatch.setattr("pipeline.cache.sealed_files._check_hash", lambda *found: None)


def change_index(folder, change):
    path = shard_paths(folder, 1)[1]
    table = change(pq.read_table(path))
    path.unlink()
    write_index(path, table)


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("rows", ROWS)
def test_a_shard_of_other_rows_is_refused_whatever_is_asked(tmp_path, unsealed, asked, rows):
    folder = Corpus().write(tmp_path).folder
    change_index(folder, ROWS[rows])
    with pytest.raises(DamagedFeatureSet, match="every row once, in order"):
        ASKED[asked](FeatureSet(folder))


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("labelled", [True, False])
def test_labels_where_there_should_be_none_and_none_where_there_should_be_some(tmp_path, unsealed, asked, labelled):
    folder = Corpus(facts={"labelled": labelled}).write(tmp_path).folder
    labels = pa.array([None if labelled else 1] * 4, pa.int64())
    change_index(folder, lambda table: table.set_column(2, SCHEMA.field("label"), labels))
    with pytest.raises(DamagedFeatureSet, match="disagree on labels"):
        ASKED[asked](FeatureSet(folder))


@pytest.mark.parametrize("asked", ["labels of rows", "labels", "an item", "the first batch"])
@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_refused_before_anything_is_served(tmp_path, unsealed, asked, label):
    folder = Corpus().write(tmp_path).folder
    labels = pa.array([0, 1, label, 0], pa.int64())
    change_index(folder, lambda table: table.set_column(2, SCHEMA.field("label"), labels))
    with pytest.raises(DamagedFeatureSet, match="no class"):
        ASKED[asked](FeatureSet(folder))
