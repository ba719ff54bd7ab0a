"""Ways to read a feature set: joined maps, torch, batches, a loader with workers, exports; all give the same rows."""

import gc
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache import FeatureCache, FeatureSet, mapping
from pipeline.cache.batches import WINDOW_BLOCKS, plan_windows, read_batches
from pipeline.cache.index import SCHEMA
from pipeline.cache.manifest import shard_paths
from pipeline.cache.reading import FileKey, Remembered
from pipeline.errors import CacheError, ConfigError, DamagedFeatureSet, MissingPackage

WIDE = {"architecture": {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 1024}}
"""Eight rows of this width fill whole pages in every storage dtype: shards of them join in one map."""


@pytest.fixture
def wide(corpus, dtype):
    """A corpus whose three shards join without a copy."""
    return corpus(rows=20, shard_rows=8, changes={**WIDE, "storage_dtype": dtype})


def maps_of(folder):
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(folder) in line]


def numbers(tensor):
    return tensor.float().numpy()


# --- the matrix ---


def test_several_shards_are_one_read_only_map(tmp_path, wide, dtype):
    feature_set = wide.write(tmp_path)
    X = feature_set.X
    assert len(maps_of(feature_set.folder)) == 3
    assert np.array_equal(X, np.stack([wide.states(row) for row in range(20)]))
    if dtype == "bfloat16":
        assert X.dtype == np.float32
        assert X.flags.owndata or X.base.flags.owndata
        return
    assert not X.flags.writeable
    assert np.shares_memory(X, feature_set.X)
    del X, feature_set
    gc.collect()
    assert not maps_of(tmp_path)


def test_shards_that_do_not_fill_pages_are_copied_together(tmp_path, corpus, dtype):
    small = corpus(changes={"storage_dtype": dtype})
    feature_set = small.write(tmp_path)
    small.check(feature_set)
    assert not maps_of(tmp_path)
    assert not (dtype != "bfloat16" and feature_set.X.flags.writeable)


def test_without_a_system_map_the_same_is_read(tmp_path, wide, monkeypatch):
    monkeypatch.setattr(mapping, "SYSTEM_MAP", None)
    feature_set = wide.write(tmp_path)
    wide.check(feature_set)
    assert np.array_equal(numbers(feature_set.to_torch()), feature_set.X)
    assert not maps_of(tmp_path)


def test_opening_maps_nothing_and_keeps_no_file_open(tmp_path, wide):
    folder = wide.write(tmp_path).folder
    gc.collect()
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    feature_set = FeatureSet(folder)
    assert not maps_of(tmp_path)
    _ = feature_set.X, feature_set.y, feature_set.to_torch()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_value_that_is_not_finite_anywhere_in_a_joined_map(tmp_path, wide, dtype, number):
    folder = wide.write(tmp_path).folder
    path = shard_paths(folder, number)[0]
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the arrays end with the file; its last two bytes hold the exponent of each dtype
        file.write(b"\x80\x7f" if dtype != "float16" else b"\x00\x7c")
    feature_set = FeatureSet(folder)
    for read in (lambda: feature_set.X, feature_set.to_torch, lambda: list(feature_set.tables())):
        with pytest.raises(DamagedFeatureSet, match=r"not finite|bytes that were sealed") as caught:
            read()
        assert caught.value.where == path
    bad = min(8 * number + 7, 19)
    with pytest.raises(DamagedFeatureSet, match=r"not finite|bytes that were sealed") as caught:
        feature_set.take([0, bad])
    assert caught.value.where == path
    assert feature_set.take([0 if number else 19]).shape == (1, 1024)


def test_what_was_seen_to_be_finite_is_looked_at_again_when_the_file_changes(tmp_path, corpus, monkeypatch):
    import pipeline.cache.states as room

    small = corpus(changes=WIDE)
    folder = small.write(tmp_path).folder
    looked_at = []
    examine = room.examine_all

    def counting(examinations):
        looked_at.append(len(examinations))
        return examine(examinations)

    monkeypatch.setattr(room, "examine_all", counting)
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))
    monkeypatch.setattr("pipeline.cache.reading.SETTLED_NS", -1)  # its change time cannot be set back
    for _ in range(2):
        _ = FeatureSet(folder).X
    assert looked_at == [3, 0]
    path = shard_paths(folder, 1)[0]
    content = bytearray(path.read_bytes())
    content[-2:] = b"\x80\x7f"
    path.write_bytes(content)
    with pytest.raises(DamagedFeatureSet, match="not finite"):
        _ = FeatureSet(folder).X
    assert looked_at == [3, 0, 1]


def test_a_file_changed_just_now_is_not_remembered(tmp_path, corpus, monkeypatch):
    """Two changes in one tick of the clock cannot be told apart, so the second must not pass for the first."""
    folder = corpus(rows=3, shard_rows=3).write(tmp_path).folder
    path = shard_paths(folder, 0)[0]
    _ = FeatureSet(folder).X
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x80\x7f")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(DamagedFeatureSet, match="not finite"):
        _ = FeatureSet(folder).X


def test_facts_are_kept_of_settled_files_alone(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    fresh = FileKey.of_path(path)
    settled = fresh._replace(is_settled=True)
    assert not fresh.is_settled
    facts = Remembered()
    facts.keep("finite", fresh, settled, keys=[settled, fresh])
    facts.keep("finite", fresh, keys=[fresh])
    facts.keep("finite", settled, keys=[settled])
    assert (facts.get(fresh, settled), facts.get(fresh), facts.get(settled)) == (None, None, "finite")
    assert facts.get(settled._replace(ctime_ns=settled.ctime_ns + 1)) is None
    facts.forget()
    assert facts.get(settled) is None


# --- torch ---


def test_a_tensor_is_a_map_of_the_storage_dtype_that_may_be_written_to_and_never_reaches_a_file(tmp_path, wide, dtype):
    import torch

    folder = wide.write(tmp_path).folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    feature_set = FeatureSet(folder)
    tensor = feature_set.to_torch()
    assert tensor.dtype == getattr(torch, dtype)
    assert len([line for line in maps_of(folder) if " rw-p " in line]) == 3
    tensor *= 0
    assert not tensor.any()
    wide.check(feature_set)
    assert np.array_equal(numbers(feature_set.to_torch()), np.stack([wide.states(row) for row in range(20)]))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(("dtype", "pooling"), [("float32", "mean"), ("bfloat16", "tokens")])
def test_a_loader_with_workers_gives_every_row_once(tmp_path, corpus, dtype, pooling):
    import torch
    from torch.utils.data import DataLoader, Dataset

    small = corpus(rows=23, changes={"storage_dtype": dtype, "pooling": pooling})
    dataset = small.write(tmp_path).torch_dataset()
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 23
    loader = DataLoader(
        dataset,
        batch_size=4,
        shuffle=True,
        num_workers=2,
        collate_fn=dataset.collate,
        multiprocessing_context="forkserver",
        generator=torch.Generator().manual_seed(0),
    )
    seen = []
    for batch in loader:
        assert batch["X"].dtype == getattr(torch, dtype)
        for place, row in enumerate(batch["row"].tolist()):
            seen.append(row)
            assert batch["y"][place] == small.label(row)
            X = numbers(batch["X"][place])
            if pooling == "tokens":
                assert batch["mask"][place].sum() == small.length(row)
                assert not X[~batch["mask"][place].numpy()].any()
                X = X[batch["mask"][place].numpy()]
            assert np.array_equal(X, small.states(row))
    assert sorted(seen) == list(range(23))
    assert seen != sorted(seen)


def test_the_default_collate_of_torch_serves_a_pooled_view(tmp_path, corpus):
    from torch.utils.data import DataLoader

    small = corpus()
    for batch in DataLoader(small.write(tmp_path).torch_dataset(), batch_size=5):
        assert set(batch) == {"X", "y", "row"}
        assert np.array_equal(batch["X"].numpy(), np.stack([small.states(row) for row in batch["row"].tolist()]))


def test_one_item_has_no_y_where_there_are_no_labels_and_no_negative_row(tmp_path, corpus):
    dataset = corpus(facts={"labelled": False}).write(tmp_path).torch_dataset()
    assert set(dataset[3]) == {"X", "row"}
    assert set(dataset.collate([dataset[0], dataset[1]])) == {"X", "row"}
    for row in (-1, 11):
        with pytest.raises(IndexError):
            dataset[row]


def test_rows_without_tokens_make_a_batch_of_no_length(tmp_path, corpus):
    dataset = corpus(changes={"pooling": "tokens"}).write(tmp_path).torch_dataset()
    batch = dataset.collate([dataset[0], dataset[4]])
    assert batch["X"].shape == (2, 0, 6)
    assert batch["mask"].shape == (2, 0)


def test_pickled_it_is_its_folder_and_no_values(tmp_path, corpus, monkeypatch):
    small = corpus(rows=20, shard_rows=8, changes=WIDE)
    monkeypatch.chdir(tmp_path)
    feature_set = small.write(Path("cache"))
    _ = feature_set.X, feature_set.index
    dataset = feature_set.torch_dataset()
    _ = dataset[0]
    for thing in (feature_set, dataset):
        assert len(pickle.dumps(thing)) < 1000
    content = pickle.dumps(dataset)
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    small.check(again.feature_set)
    assert pickle.loads(pickle.dumps(FeatureSet(tmp_path / feature_set.folder, verify=True)))._files.verify


def test_a_set_that_was_written_anew_is_not_taken_for_the_pickled_one(tmp_path, corpus):
    folder = corpus().write(tmp_path).folder
    content = pickle.dumps(FeatureSet(folder))
    assert len(pickle.loads(content)) == 11
    for path in folder.iterdir():
        path.unlink()
    corpus(shard_rows=5).write(tmp_path)
    with pytest.raises(DamagedFeatureSet, match="written anew"):
        pickle.loads(content)


# --- some rows, and batches ---


def test_any_rows_in_any_order(tmp_path, corpus):
    small = corpus()
    feature_set = small.write(tmp_path)
    for rows in ([10, 0, 4, 4, 3], [], [7], np.arange(11)[::-1]):
        taken = feature_set.take(rows)
        assert np.array_equal(taken, np.array([small.states(row) for row in rows], np.float32).reshape(-1, 6))
        assert taken.flags.writeable
    for rows in ([11], [-1], [0, 99]):
        with pytest.raises(IndexError):
            feature_set.take(rows)


@pytest.mark.parametrize(
    "wrong", [np.arange(11) > 4, [True, False], [1.0, 2.0], np.array([1.9]), [[0, 1]], np.array(3), ["1"], [None]]
)
@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_what_is_no_row_number_is_refused_and_never_taken_for_one(tmp_path, corpus, wrong, pooling):
    feature_set = corpus(changes={"pooling": pooling}).write(tmp_path)
    readers = [feature_set.torch_dataset().__getitems__]
    if pooling == "mean":
        readers.append(feature_set.take)
    for read in readers:
        with pytest.raises(ConfigError, match="no row numbers") as caught:
            read(wrong)
        assert str(np.asarray(wrong).dtype) in caught.value.found
    assert feature_set.torch_dataset().__getitems__([]) == []


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 200),
    block_rows=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_an_epoch_is_every_row_once_in_full_batches(rows, block_rows, batch_size, shuffle, drop_last, epoch):
    asked = []

    def read(of):
        asked.append(of)
        assert (np.diff(of) > 0).all()
        assert len(of) <= WINDOW_BLOCKS * block_rows
        return of[:, None] * 10

    windows = plan_windows(rows, block_rows, shuffle=shuffle, seed=1, epoch=epoch)
    batches = list(read_batches(windows, read, batch_size, drop_last=drop_last))
    order = np.concatenate([np.zeros(0, int), *(of for of, _ in batches)])
    assert all(np.array_equal(values[:, 0], of * 10) for of, values in batches)
    assert sorted(np.concatenate(asked).tolist()) == list(range(rows))
    assert all(len(of) == batch_size for of, _ in batches[: None if drop_last else -1])
    if drop_last:
        assert len(batches) == rows // batch_size
        assert len(set(order.tolist())) == len(order)
    else:
        assert sorted(order.tolist()) == list(range(rows))
    if not shuffle:
        assert order.tolist() == list(range(len(order)))


def test_seed_and_epoch_decide_the_order():
    def order(**how):
        return np.concatenate(list(plan_windows(500, 20, **{"shuffle": True, "seed": 0, "epoch": 0, **how}))).tolist()

    assert order() == order()
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(shuffle=False) == list(range(500))
    shares = [len({row // 20 for row in order()[first : first + 80]}) for first in range(0, 480, 80)]
    assert shares == [WINDOW_BLOCKS] * 6  # any stretch is read from few blocks


def test_batches_hold_the_right_rows(tmp_path, corpus, dtype, pooling):
    small = corpus(rows=23, changes={"storage_dtype": dtype, "pooling": pooling})
    feature_set = small.write(tmp_path)
    seen = []
    for X, y, rows in feature_set.batches(5, shuffle=True, block_rows=3, seed=4):
        seen += rows.tolist()
        assert y.tolist() == [small.label(row) for row in rows]
        assert len(X) == len(rows)
        assert all(np.array_equal(x, small.states(row)) for x, row in zip(X, rows, strict=True))
    assert sorted(seen) == list(range(23))
    assert [rows.tolist() for *_, rows in feature_set.batches(8)] == [[*range(8)], [*range(8, 16)], [*range(16, 23)]]
    assert [len(rows) for *_, rows in feature_set.batches(8, drop_last=True)] == [8, 8]
    assert next(corpus(facts={"labelled": False}).write(tmp_path / "b").batches(3))[1] is None


def test_a_batch_with_a_bad_value_is_refused_and_the_others_come(tmp_path, corpus):
    small = corpus(rows=12, shard_rows=4)
    folder = small.write(tmp_path).folder
    with shard_paths(folder, 2)[0].open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x80\x7f")
    batches = FeatureSet(folder).batches(1, block_rows=1)
    for _ in range(8):
        X, _, [row] = next(batches)
        assert np.array_equal(X[0], small.states(row))
    with pytest.raises(DamagedFeatureSet, match="not finite"):
        list(batches)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"block_rows": 0}, {"seed": -1}, {"epoch": -1}])
def test_wrong_settings_of_batches_are_said_at_once(tmp_path, corpus, wrong):
    with pytest.raises(ConfigError, match="too small") as caught:
        corpus().write(tmp_path).batches(**{"batch_size": 2, **wrong})
    assert caught.value.where in wrong


def test_what_belongs_to_a_pooled_view_is_refused_of_tokens(tmp_path, corpus):
    tokens = corpus(changes={"pooling": "tokens"}).write(tmp_path)
    for ask in (lambda: tokens.X, tokens.to_torch, lambda: tokens.take([0])):
        with pytest.raises(CacheError, match="tokens view has no"):
            ask()


# --- exports ---


def test_parquet_and_back(tmp_path, corpus, dtype, pooling):
    small = corpus(changes={"storage_dtype": dtype, "pooling": pooling})
    feature_set = small.write(tmp_path)
    feature_set.to_parquet(tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [*SCHEMA.names, "hidden_states"]
    assert table.drop(["hidden_states"]).equals(feature_set.index)
    for row, states in enumerate(table["hidden_states"].to_pylist()):
        assert np.array_equal(np.array(states, np.float32).reshape(small.states(row).shape), small.states(row))
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3
    value = pa.float16() if dtype == "float16" else pa.float32()
    kind = table.schema.field("hidden_states").type
    assert (kind if pooling == "mean" else kind.value_type).value_type == value


def test_an_export_that_fails_leaves_nothing(tmp_path, corpus):
    folder = corpus().write(tmp_path).folder
    with shard_paths(folder, 2)[0].open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x80\x7f")
    (tmp_path / "out").mkdir()
    with pytest.raises(DamagedFeatureSet, match=r"not finite|bytes that were sealed"):
        FeatureSet(folder).to_parquet(tmp_path / "out" / "a.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_an_export_cannot_go_to_is_named(tmp_path, corpus):
    path = tmp_path / "absent" / "a.parquet"
    with pytest.raises(CacheError, match="a Parquet file cannot be written") as caught:
        corpus().write(tmp_path).to_parquet(path)
    assert (caught.value.where, caught.value.found) == (path, "No such file or directory")
    assert "of the cache" not in str(caught.value)
    assert "extract" not in str(caught.value)


def test_a_hugging_face_dataset_and_back(tmp_path, corpus, dtype, pooling):
    datasets = pytest.importorskip("datasets")
    small = corpus(changes={"storage_dtype": dtype, "pooling": pooling})
    feature_set = small.write(tmp_path)
    dataset = feature_set.to_dataset()
    assert dataset.features["label"] == datasets.ClassLabel(names=["unacceptable", "acceptable"])
    assert str(dataset.split) == "train"
    for row, record in enumerate(dataset):
        states = np.array(record.pop("hidden_states"), np.float32).reshape(small.states(row).shape)
        assert np.array_equal(states, small.states(row))
        assert record == feature_set.index.slice(row, 1).to_pylist()[0]


def test_a_dataset_lies_over_the_shards_themselves(tmp_path, corpus):
    pytest.importorskip("datasets")
    feature_set = corpus(rows=20, shard_rows=8, changes=WIDE).write(tmp_path)
    dataset = feature_set.to_dataset()
    assert len(maps_of(feature_set.folder)) == 3
    starts = {int(line.split("-")[0], 16) for line in maps_of(feature_set.folder)}
    chunks = dataset.data.table["hidden_states"].chunks
    assert {chunk.values.buffers()[1].address for chunk in chunks} == starts


def test_an_unlabelled_dataset_has_no_labels(tmp_path, corpus):
    pytest.importorskip("datasets")
    dataset = corpus(facts={"labelled": False}).write(tmp_path).to_dataset()
    assert dataset["label"][:] == [None] * 11


def test_without_datasets_the_error_names_it(tmp_path, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackage, match="datasets"):
        corpus().write(tmp_path).to_dataset()


def test_a_cache_opens_verified(tmp_path, corpus):
    feature_set = corpus().write(tmp_path)
    path = shard_paths(feature_set.folder, 0)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    cache = FeatureCache(tmp_path)
    assert len(cache.open("cola", "train")) == len(cache.open_folder(feature_set.manifest.name)) == 11
    for ask in (
        lambda: cache.open("cola", "train", verify=True),
        lambda: cache.open_folder(feature_set.manifest.name, verify=True),
    ):
        with pytest.raises(DamagedFeatureSet, match="not the one that was sealed"):
            ask()
