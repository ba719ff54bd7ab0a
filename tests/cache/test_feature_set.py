"""A feature set, written in pieces and read in data-set order."""

import dataclasses
import mmap
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cache import FeatureSet
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.shard import ShardData
from pipeline.errors import CacheError, DamagedFeatureSet, DiskFull


def base_of(array):
    """The object whose memory an array looks at."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def files(folder):
    """Every file of a folder by name, with its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_come_back_in_data_set_order(tmp_path, corpus, dtype, pooling):
    small = corpus(changes={"storage_dtype": dtype, "pooling": pooling})
    feature_set = small.write(tmp_path)
    small.check(feature_set)
    assert len(feature_set) == 11
    assert feature_set.manifest.shards == 3
    assert feature_set.hidden_size == 6


def test_a_row_of_another_corpus_would_be_seen(tmp_path, corpus):
    """The control of every `check`: the corpus' rows differ from each other."""
    small = corpus()
    assert len({small.states(row).tobytes() for row in range(small.rows)}) == small.rows
    with pytest.raises(AssertionError):
        corpus(facts={"labelled": False}).check(small.write(tmp_path))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 12), shard_rows=st.integers(1, 13), seed=st.randoms(use_true_random=False))
def test_neither_the_cut_nor_the_order_of_writing_shows(tmp_path, corpus, pooling, rows, shard_rows, seed):
    small = corpus(rows=rows, shard_rows=shard_rows, changes={"pooling": pooling})
    folder = tmp_path / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    writer = small.writer(folder)
    numbers = list(range(writer.manifest.shards))
    seed.shuffle(numbers)
    for number in numbers:
        small.write_shard(writer, number)
    writer.finish()
    small.check(FeatureSet(writer.folder))


def test_the_numbers_are_of_the_type_that_heads_expect(tmp_path, corpus, dtype):
    import torch

    small = corpus(changes={"storage_dtype": dtype})
    feature_set = small.write(tmp_path)
    assert feature_set.X.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert feature_set.y.dtype == np.int64
    assert feature_set.sample_ids.dtype == np.int64
    tensor = feature_set.to_torch()
    assert tensor.dtype == getattr(torch, dtype)
    assert np.array_equal(tensor.float().numpy(), np.stack([small.states(row) for row in range(11)]))


def test_one_shard_is_mapped_and_not_copied(tmp_path, corpus):
    feature_set = corpus(shard_rows=11).write(tmp_path)
    assert isinstance(base_of(feature_set.X), mmap.mmap)
    assert feature_set.manifest.shards == 1


def test_an_unlabelled_split_has_no_y(tmp_path, corpus):
    feature_set = corpus(facts={"labelled": False}).write(tmp_path)
    assert feature_set.y is None
    assert feature_set.index["label"].null_count == 11
    assert corpus().write(tmp_path / "other").y is not None


def test_the_tokens_view_has_no_matrix_and_a_pooled_view_no_tokens(tmp_path, corpus):
    tokens = corpus(changes={"pooling": "tokens"}).write(tmp_path)
    pooled = corpus().write(tmp_path)
    with pytest.raises(CacheError, match="tokens view has no"):
        _ = tokens.X
    with pytest.raises(CacheError, match="read X"):
        pooled.tokens(0)
    assert pooled.X.shape == (11, 6)
    assert tokens.tokens(1).shape == (3, 6)


def test_a_row_without_tokens_is_an_empty_array(tmp_path, corpus):
    small = corpus(changes={"pooling": "tokens"})
    feature_set = small.write(tmp_path)
    assert [feature_set.tokens(row).shape for row in range(11)] == [(small.length(row), 6) for row in range(11)]
    assert feature_set.tokens(0).shape == feature_set.tokens(4).shape == (0, 6)


@pytest.mark.parametrize("row", [-1, 11, 1000])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path, corpus, row):
    feature_set = corpus(changes={"pooling": "tokens"}).write(tmp_path)
    with pytest.raises(IndexError, match=f"row {row} of 11"):
        feature_set.tokens(row)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_on_writing(tmp_path, corpus, dtype, value):
    small = corpus(changes={"storage_dtype": dtype})
    writer = small.writer(tmp_path)
    data, index = small.shard(writer.rows_of(0))
    states = np.stack([small.states(row) for row in range(4)])
    states[2, 3] = value
    bad = (
        (states.view(np.uint32) >> 16).astype(np.uint16)
        if dtype == "bfloat16"
        else states.astype(data.hidden_states.dtype)
    )
    with pytest.raises(CacheError, match="not finite") as caught:
        writer.write(0, dataclasses.replace(data, hidden_states=bad), index, truncated=0)
    assert str(caught.value.where).endswith("shard 0, line 2")
    assert not writer.folder.exists()
    writer.write(0, data, index, truncated=0)
    assert writer.sealed(0) is not None


def test_a_value_that_is_not_finite_is_refused_on_writing_tokens(tmp_path, corpus):
    small = corpus(changes={"pooling": "tokens"})
    writer = small.writer(tmp_path)
    data, index = small.shard(writer.rows_of(0))
    bad = data.hidden_states.copy()
    bad[-1, -1] = np.nan
    with pytest.raises(CacheError, match="not finite"):
        writer.write(0, ShardData(bad, data.offsets, "float32"), index, truncated=0)
    assert writer.sealed(0) is None


def test_a_seal_says_what_its_shard_holds(tmp_path, corpus):
    small = corpus()
    writer = small.writer(tmp_path)
    small.write_shard(writer, 1)
    seal = writer.sealed(1)
    states = np.stack([small.states(row) for row in range(4, 8)])
    assert (seal.rows, seal.tokens, seal.truncated) == (4, 5 + 4 + 5 + 5 + 5 + 6 + 5 + 7, 1)
    assert (seal.minimum, seal.maximum) == (states.min(), states.max())
    assert seal.states_bytes == shard_paths(writer.folder, 1)[0].stat().st_size


def test_the_passport_sums_up_the_shards(tmp_path, corpus):
    small = corpus()
    passport = small.write(tmp_path).manifest.passport
    states = np.stack([small.states(row) for row in range(11)])
    assert passport == {
        "tokens": sum(5 + row for row in range(11)),
        "truncated": 0 + 1 + 2,
        "minimum": states.min(),
        "maximum": states.max(),
        "non_finite": 0,
        "share_beyond_float16": 0.0,
        "canaries": 0,
        "tolerance": 0.0,
        "alone": {"relative": 0.0, "cosine": 1.0},
        "shuffled": {"relative": 0.0, "cosine": 1.0},
    }


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_set_with_a_missing_shard_is_not_finished(tmp_path, corpus, missing):
    small = corpus()
    writer = small.writer(tmp_path)
    for number in {0, 1, 2} - {missing}:
        small.write_shard(writer, number)
    with pytest.raises(CacheError, match="a shard is missing") as caught:
        writer.finish()
    assert caught.value.found == f"no whole shard {missing}"
    assert not writer.is_whole
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(writer.folder)
    small.write_shard(writer, missing)
    writer.finish()
    small.check(FeatureSet(writer.folder))


def test_the_manifest_is_written_last(tmp_path, corpus):
    small = corpus()
    writer = small.writer(tmp_path)
    for number in range(3):
        assert not (writer.folder / MANIFEST).exists()
        small.write_shard(writer, number)
    assert not writer.is_whole
    writer.finish()
    assert writer.is_whole


def test_a_reopened_set_keeps_its_whole_shards_and_goes_on(tmp_path, corpus):
    small = corpus()
    first = small.writer(tmp_path)
    small.write_shard(first, 0)
    small.write_shard(first, 1)
    shard_paths(first.folder, 1)[2].unlink()  # killed before the seal
    kept = files(first.folder)

    again = small.writer(tmp_path)
    assert files(again.folder) == kept
    assert [again.sealed(number) is not None for number in range(3)] == [True, False, False]
    times = {path: path.stat().st_mtime_ns for path in shard_paths(again.folder, 0)}
    for number in (1, 2):
        small.write_shard(again, number)
    again.finish()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    small.check(FeatureSet(again.folder))


@pytest.mark.parametrize("place", [0, 1, 2], ids=["states", "index", "seal"])
@pytest.mark.parametrize("damage", ["absent", "short", "long"])
def test_a_shard_with_a_file_of_another_length_is_not_whole(tmp_path, corpus, place, damage):
    small = corpus()
    writer = small.writer(tmp_path)
    small.write_shard(writer, 0)
    assert writer.sealed(0) is not None
    path = shard_paths(writer.folder, 0)[place]
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(content[:-1] if damage == "short" else content + b"x")
    if (place, damage) == (2, "short"):
        path.write_bytes(content[:-2])  # the last byte is a newline, without which it is the same seal
    assert writer.sealed(0) is None


def test_a_rewritten_shard_has_no_seal_until_it_is_whole_again(tmp_path, corpus, monkeypatch):
    import pipeline.cache.writer as room

    small = corpus()
    writer = small.writer(tmp_path)
    small.write_shard(writer, 0)

    def refuse(path, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "write_index", refuse)
    with pytest.raises(DiskFull, match="the disk is full"):
        small.write_shard(writer, 0)
    assert writer.sealed(0) is None
    assert not [name for name in files(writer.folder) if name.endswith(".partial")]
    monkeypatch.undo()
    small.write_shard(writer, 0)
    assert writer.sealed(0) is not None


@pytest.mark.parametrize(("before", "after"), [(4, 5), (5, 4), (4, 7), (11, 4), (4, 11)])
def test_a_set_reopened_with_another_cut_gives_the_right_rows(tmp_path, corpus, before, after):
    """The last shard of one cut can have as many rows as a middle one of the other: 4 + 4 + 3 against 7 + 4."""
    first, second = corpus(shard_rows=before), corpus(shard_rows=after)
    writer = first.writer(tmp_path)
    for number in range(writer.manifest.shards - 1):
        first.write_shard(writer, number)
    again = second.writer(tmp_path)
    for number in range(again.manifest.shards):
        if again.sealed(number) is None:
            second.write_shard(again, number)
    again.finish()
    second.check(FeatureSet(again.folder))


def test_two_writers_of_one_content_write_the_same_bytes(tmp_path, corpus, dtype, pooling):
    small = corpus(changes={"storage_dtype": dtype, "pooling": pooling})
    forwards = small.write(tmp_path / "a")
    writer = small.writer(tmp_path / "b")
    small.write_shard(writer, 2)
    for number in (1, 0, 2):
        small.write_shard(small.writer(tmp_path / "b"), number)
    writer.finish()
    assert files(forwards.folder) == files(writer.folder)
    assert len(files(writer.folder)) == 3 * 3 + 1


def test_other_content_has_other_bytes(tmp_path, corpus):
    one = corpus().write(tmp_path / "a")
    other = corpus(rows=10).write(tmp_path / "b")
    same = set(files(one.folder).items()) & set(files(other.folder).items())
    assert {name for name, _ in same} == {f"shard-0000{n}.{end}" for n in (0, 1) for end in ("h5", "parquet", "json")}


def test_a_folder_reads_to_a_person_and_is_unique(tmp_path, corpus):
    small = corpus()
    folder = small.write(tmp_path).folder
    assert folder == tmp_path / "cola" / "train" / f"tiny-nf4-L2-mean-{small.identity.fingerprint[:12]}"
    other = corpus(changes={"prompt": "Text: {}"}).write(tmp_path).folder
    assert (other.parent, other.name != folder.name) == (folder.parent, True)


def test_a_manifest_reads_back_as_it_was_written(tmp_path, corpus):
    feature_set = corpus().write(tmp_path)
    manifest = Manifest.read(feature_set.folder)
    feature_set.manifest.write(feature_set.folder)
    assert Manifest.read(feature_set.folder) == manifest
    assert manifest.labels == ("unacceptable", "acceptable")
    assert feature_set.fingerprint == manifest.identity.fingerprint


def test_a_moved_cache_opens_and_a_moved_set_does_not(tmp_path, corpus):
    small = corpus()
    folder = small.write(tmp_path / "a").folder
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    small.check(FeatureSet(tmp_path / "b" / folder.relative_to(tmp_path / "a")))
    for place in ("cola/validation", "sst2/train"):
        shutil.copytree(folder, tmp_path / "c" / place / folder.name)
        with pytest.raises(DamagedFeatureSet, match="belongs to cola/train"):
            FeatureSet(tmp_path / "c" / place / folder.name)
    folder.rename(folder.with_name("another-name"))
    with pytest.raises(DamagedFeatureSet, match="belongs to"):
        FeatureSet(folder.with_name("another-name"))


def test_a_read_only_cache_can_be_read(tmp_path, corpus):
    small = corpus()
    folder = small.write(tmp_path).folder
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        small.check(FeatureSet(folder))
    finally:
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_made_is_a_cache_error(tmp_path, corpus):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be locked"):
        corpus().write(tmp_path / "file")


def test_opening_reads_no_values(tmp_path, corpus):
    """Opening must stay cheap for a set of gigabytes: sizes are compared, the hidden states are not touched."""
    folder = corpus().write(tmp_path).folder
    path = shard_paths(folder, 0)[0]
    path.write_bytes(bytes(path.stat().st_size))
    opened = FeatureSet(folder)
    assert len(opened) == 11
    with pytest.raises(DamagedFeatureSet):
        _ = opened.X


@pytest.mark.parametrize(("storage", "values"), [("float32", [1e39]), ("float32", [1.0]), ("float16", [70000.0])])
def test_numbers_of_another_type_than_is_stored_are_refused(tmp_path, corpus, storage, values):
    """What does not fit would become infinite behind the check."""
    small = corpus(rows=1, shard_rows=1, changes={"storage_dtype": storage})
    writer = small.writer(tmp_path)
    data, index = small.shard(writer.rows_of(0))
    wide = np.full(data.hidden_states.shape, values[0], np.float64 if storage == "float32" else np.float32)
    with pytest.raises(CacheError, match="not the shard that belongs here"):
        writer.write(0, ShardData(wide, None, storage), index, truncated=0)
    assert not list(tmp_path.rglob("shard-*.json"))
