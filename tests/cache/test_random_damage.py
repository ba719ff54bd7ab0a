"""What reading promises, under random damage and over random contents.

Whatever bit of whatever file is flipped: what is served is what was written, or there is an error. Shards are held
against the fast digest of their seals when they are first read, indexes against their SHA-256. With
`verify`, every file is held against its SHA-256 before anything is served.
"""

import os
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cache import FeatureSet
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.shard import RAW, ShardData, to_float32
from pipeline.errors import DamagedFeatureSet

FILES = [f"shard-0000{number}.{suffix}" for number in range(3) for suffix in ("h5", "parquet", "json")] + [MANIFEST]


@pytest.fixture(scope="module")
def written(tmp_path_factory, corpus):
    """Whole feature sets: each file is damaged and put back in turn."""
    sets = {}
    for pooling in ("mean", "tokens"):
        for dtype in ("float32", "bfloat16"):
            small = corpus(changes={"pooling": pooling, "storage_dtype": dtype})
            sets[pooling, dtype] = small, small.write(tmp_path_factory.mktemp(f"{pooling}-{dtype}")).folder
    return sets


def everything_of(feature_set):
    """All that can be asked for, as comparable values."""
    values = (
        [feature_set.tokens(row).tobytes() for row in range(len(feature_set))]
        if feature_set.is_tokens
        else feature_set.X.tobytes()
    )
    y = feature_set.y
    return values, None if y is None else y.tolist(), feature_set.index.to_pydict()


def flip(path, offset, bit):
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 1 << bit
    path.write_bytes(content)


def values_of(path):
    """Where in a shard's file the numbers and offsets stand."""
    with h5py.File(path) as file:
        return [range(file[n].id.get_offset(), file[n].id.get_offset() + file[n].nbytes) for n in file]


KINDS = st.sampled_from([(pooling, dtype) for pooling in ("mean", "tokens") for dtype in ("float32", "bfloat16")])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, name=st.sampled_from(FILES), offset=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_verified_a_flipped_bit_anywhere_never_yields_anything_wrong(written, kind, name, offset, bit):
    small, folder = written[kind]
    before = (folder / name).read_bytes()
    expected = everything_of(FeatureSet(folder))
    flip(folder / name, offset, bit)
    try:
        try:
            found = everything_of(FeatureSet(folder, verify=True))
        except DamagedFeatureSet:
            return
        assert not name.startswith("shard-") or name.endswith(".json")  # every bit of a sealed file counts
        assert found == expected
    finally:
        (folder / name).write_bytes(before)
    small.check(FeatureSet(folder, verify=True))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, name=st.sampled_from(FILES), offset=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_unverified_neither_does_it(written, kind, name, offset, bit):
    _, folder = written[kind]
    path = folder / name
    before = path.read_bytes()
    expected = everything_of(FeatureSet(folder))
    flip(path, offset, bit)
    try:
        found = everything_of(FeatureSet(folder))
    except DamagedFeatureSet:
        return
    finally:
        path.write_bytes(before)
    assert not name.endswith(".h5")  # every bit of a shard counts
    assert found == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, name=st.sampled_from(FILES), kept=st.floats(0, 0.999), verify=st.booleans())
def test_a_truncated_file_is_always_refused(written, kind, name, kept, verify):
    _, folder = written[kind]
    path = folder / name
    before = path.read_bytes()
    cut = int(kept * len(before.rstrip()))  # the last byte of a JSON file is a newline that says nothing
    os.truncate(path, cut)
    try:
        with pytest.raises(DamagedFeatureSet):
            FeatureSet(folder, verify=verify)
    finally:
        path.write_bytes(before)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(sorted(RAW)),
    lengths=st.lists(st.one_of(st.sampled_from([0, 1]), st.integers(0, 9)), min_size=1, max_size=14),
    shard_rows=st.integers(1, 15),
    hidden_size=st.sampled_from([1, 3, 64]),
    pooling=st.sampled_from(["last", "tokens"]),
    seed=st.integers(0, 99),
)
def test_writing_and_reading_is_the_identity(tmp_path, corpus, dtype, lengths, shard_rows, hidden_size, pooling, seed):
    """Any finite bits, subnormal numbers and signed zeros too."""
    folder = tmp_path / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    architecture = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": hidden_size}
    changes = {"storage_dtype": dtype, "pooling": pooling, "architecture": architecture}
    small = corpus(rows=len(lengths), shard_rows=shard_rows, changes=changes)
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths if pooling == "tokens" else [1] * len(lengths):
        bits = np.frombuffer(random.bytes(length * hidden_size * RAW[dtype].itemsize), RAW[dtype])
        bits = np.where(np.isfinite(to_float32(bits, dtype)), bits, bits.dtype.type(0))
        rows.append(bits.reshape(length, hidden_size))
    writer = small.writer(folder)
    for number in range(writer.manifest.shards):
        span = writer.rows_of(number)
        parts = [rows[row] for row in span]
        offsets = np.cumsum([0, *map(len, parts)]) if pooling == "tokens" else None
        writer.write(number, ShardData(np.concatenate(parts), offsets, dtype), small.shard(span)[1], truncated=0)
    writer.finish()
    feature_set = FeatureSet(writer.folder, verify=True)
    if pooling == "tokens":
        assert [feature_set.stored(row).tobytes() for row in range(len(rows))] == [row.tobytes() for row in rows]
        assert [feature_set.stored(row).shape for row in range(len(rows))] == [row.shape for row in rows]
        read = [feature_set.tokens(row) for row in range(len(rows))]
    else:
        read = list(feature_set.X[:, None])
        bits = feature_set.to_torch().view(getattr(__import__("torch"), f"int{8 * RAW[dtype].itemsize}")).numpy()
        assert bits.tobytes() == b"".join(row.tobytes() for row in rows)
    assert [row.tobytes() for row in read] == [to_float32(row, dtype).tobytes() for row in rows]
    assert feature_set.index["row"].to_pylist() == list(range(len(rows)))


def test_a_flipped_number_is_refused_when_it_is_read_and_verified_when_it_is_opened(written):
    _, folder = written["mean", "float32"]
    path = shard_paths(folder, 1)[0]
    before = path.read_bytes()
    flip(path, values_of(path)[0].start, 0)
    try:
        opened = FeatureSet(folder)
        with pytest.raises(DamagedFeatureSet, match="bytes that were sealed"):
            _ = opened.X
        with pytest.raises(DamagedFeatureSet, match="not the one that was sealed") as caught:
            FeatureSet(folder, verify=True)
        assert caught.value.where == path
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("suffix", ["h5", "parquet"])
def test_verified_also_what_changes_after_opening_is_refused(corpus, tmp_path, suffix):
    folder = corpus().write(tmp_path).folder
    feature_set = FeatureSet(folder, verify=True)
    path = folder / f"shard-00002.{suffix}"
    content = path.read_bytes()
    flip(path, values_of(path)[0].start if suffix == "h5" else len(content) // 2, 0)
    with pytest.raises(DamagedFeatureSet, match="not the one that was sealed"):
        everything_of(feature_set)


def test_a_file_that_shrinks_between_opening_and_reading_is_an_error(corpus, tmp_path):
    folder = corpus().write(tmp_path).folder
    feature_set = FeatureSet(folder)
    os.truncate(shard_paths(folder, 1)[0], 2048)
    with pytest.raises(DamagedFeatureSet, match="not as long as its seal says"):
        _ = feature_set.X
