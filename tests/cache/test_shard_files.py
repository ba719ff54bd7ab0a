"""A shard's file: what is written is read, byte for byte, whatever its shape and dtype."""

import mmap
import re
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.shard import PAGE_BYTES, RAW, ShardData, map_shard, to_float32, write_shard
from pipeline.errors import DamagedFeatureSet


@st.composite
def shards(draw, pooling=None):
    """Shards of any bits: NaN, infinities and signed zeros included, since a file stores bits."""
    dtype = draw(st.sampled_from(sorted(RAW)))
    hidden_size = draw(st.integers(1, 40))
    pooling = pooling or draw(st.sampled_from(["pooled", "tokens"]))
    rows = draw(st.integers(1, 9))
    offsets = None
    total = rows
    if pooling == "tokens":
        lengths = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
        offsets = np.cumsum([0, *lengths])
        total = int(offsets[-1])
    bits = np.random.default_rng(draw(st.integers(0, 2**32))).bytes(total * hidden_size * RAW[dtype].itemsize)
    return ShardData(np.frombuffer(bits, RAW[dtype]).reshape(total, hidden_size), offsets, dtype)


def place_of(path):
    with h5py.File(path, "r") as file:
        return {name: file[name].id.get_offset() for name in file}


@settings(max_examples=80, deadline=None)
@given(data=shards())
def test_a_shard_reads_back_bit_for_bit(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.h5"
        write_shard(path, data)
        again = map_shard(path, data.dtype, data.hidden_states.shape[1])
        assert again.hidden_states.dtype == RAW[data.dtype]
        assert again.hidden_states.shape == data.hidden_states.shape
        assert again.hidden_states.tobytes() == data.hidden_states.tobytes()
        assert again.rows == data.rows
        assert (again.offsets is None) == (data.offsets is None)
        assert data.offsets is None or again.offsets.tolist() == data.offsets.tolist()


@settings(max_examples=40, deadline=None)
@given(data=shards())
def test_every_array_begins_on_a_page_and_the_same_data_gives_the_same_bytes(data):
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.h5", Path(folder) / "b.h5"
        write_shard(first, data)
        write_shard(second, data)
        places = place_of(first)
        assert set(places) == ({"hidden_states"} if data.offsets is None else {"hidden_states", "offsets"})
        if data.hidden_states.nbytes >= PAGE_BYTES:
            assert places["hidden_states"] % PAGE_BYTES == 0
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", sorted(RAW))
@pytest.mark.parametrize("rows", [1, 3, 700])
def test_hidden_states_begin_on_a_page(tmp_path, dtype, rows):
    data = ShardData(np.ones((rows, 576), RAW[dtype]), None, dtype)
    write_shard(tmp_path / "a.h5", data)
    place = place_of(tmp_path / "a.h5")["hidden_states"]
    assert place > 0
    assert place % PAGE_BYTES == 0


def test_other_data_gives_other_bytes(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_shard(tmp_path / "a.h5", ShardData(values, None, "float32"))
    write_shard(tmp_path / "b.h5", ShardData(np.nextafter(values, np.float32(99)), None, "float32"))
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "b.h5").read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=shards(pooling="pooled"))
def test_plain_h5py_reads_the_right_numbers(data):
    """bfloat16 too: not raw bits under an integer type, but a 16-bit float that HDF5 knows how to convert."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.h5"
        numbers = to_float32(data.hidden_states, data.dtype)
        finite = np.isfinite(numbers)
        clean = ShardData(np.where(finite, data.hidden_states, 0).astype(RAW[data.dtype]), None, data.dtype)
        write_shard(path, clean)
        with h5py.File(path, "r") as file:
            kind = file["hidden_states"].id.get_type()
            assert kind.get_class() == h5py.h5t.FLOAT
            assert kind.get_size() == RAW[data.dtype].itemsize
            read = file["hidden_states"].astype(np.float32)[()]
        assert np.array_equal(read, np.where(finite, numbers, 0).astype(np.float32))


def test_known_bfloat16_bits_are_known_numbers(tmp_path):
    bits = np.array([[0x3F80, 0xC020, 0x0001, 0x7F7F, 0x8000, 0x4049]], np.uint16)
    numbers = np.array([[1.0, -2.5, 2.0**-133, 3.3895313892515355e38, -0.0, 3.140625]], np.float32)
    write_shard(tmp_path / "a.h5", ShardData(bits, None, "bfloat16"))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file["hidden_states"][()].astype(np.float32).tobytes() == numbers.tobytes()
    assert to_float32(map_shard(tmp_path / "a.h5", "bfloat16", 6).hidden_states, "bfloat16").tobytes() == (
        numbers.tobytes()
    )
    assert bits.view(np.float16).astype(np.float32).tobytes() != numbers.tobytes()


def test_bfloat16_agrees_with_torch():
    import torch

    bits = np.arange(2**16, dtype=np.uint16)
    numbers = torch.from_numpy(bits.copy()).view(torch.bfloat16).float().numpy()
    assert np.array_equal(to_float32(bits, "bfloat16"), numbers, equal_nan=True)


def test_a_mapped_shard_is_a_map_that_cannot_be_written_to(tmp_path):
    write_shard(tmp_path / "a.h5", ShardData(np.ones((3, 4), np.float32), None, "float32"))
    mapped = map_shard(tmp_path / "a.h5", "float32", 4).hidden_states
    assert isinstance(mapped.base.base.obj if isinstance(mapped.base.base, memoryview) else mapped.base.base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0] = 2


def test_an_array_in_another_memory_order_is_written_by_its_values(tmp_path):
    values = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    write_shard(tmp_path / "a.h5", ShardData(values, None, "float32"))
    write_shard(tmp_path / "b.h5", ShardData(np.ascontiguousarray(values), None, "float32"))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_file_that_exists_is_never_written_over(tmp_path):
    data = ShardData(np.ones((3, 4), np.float32), None, "float32")
    write_shard(tmp_path / "a.h5", data)
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(FileExistsError):
        write_shard(tmp_path / "a.h5", ShardData(data.hidden_states * 2, None, "float32"))
    assert (tmp_path / "a.h5").read_bytes() == before


@pytest.mark.parametrize(("dtype", "hidden_size"), [("float16", 4), ("bfloat16", 4), ("float32", 3), ("float32", 8)])
def test_a_shard_is_not_read_as_what_it_is_not(tmp_path, dtype, hidden_size):
    write_shard(tmp_path / "a.h5", ShardData(np.ones((3, 4), np.float32), None, "float32"))
    assert map_shard(tmp_path / "a.h5", "float32", 4).rows == 3
    with pytest.raises(DamagedFeatureSet, match="does not hold what its manifest says"):
        map_shard(tmp_path / "a.h5", dtype, hidden_size)


def test_float16_and_bfloat16_are_not_taken_for_each_other(tmp_path):
    for dtype, other in (("float16", "bfloat16"), ("bfloat16", "float16")):
        write_shard(tmp_path / f"{dtype}.h5", ShardData(np.ones((3, 4), RAW[dtype]), None, dtype))
        with pytest.raises(DamagedFeatureSet):
            map_shard(tmp_path / f"{dtype}.h5", other, 4)


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 2, 1, 3], [0, 4], []])
def test_offsets_that_do_not_cover_the_tokens_in_order_are_refused(tmp_path, offsets):
    values = np.ones((3, 4), np.float32)
    write_shard(tmp_path / "good.h5", ShardData(values, np.array([0, 0, 3]), "float32"))
    assert map_shard(tmp_path / "good.h5", "float32", 4).rows == 2
    write_shard(tmp_path / "bad.h5", ShardData(values, np.array(offsets, np.int64), "float32"))
    with pytest.raises(DamagedFeatureSet):
        map_shard(tmp_path / "bad.h5", "float32", 4)


@pytest.mark.parametrize("layout", [{"chunks": (1, 4)}, {"chunks": (1, 4), "compression": "gzip"}, {"external": "raw"}])
def test_a_shard_that_cannot_be_mapped_is_refused(tmp_path, layout):
    values = np.ones((3, 4), np.float32)
    if "external" in layout:
        (tmp_path / "raw.bin").write_bytes(values.tobytes())
        layout = {"external": [(str(tmp_path / "raw.bin"), 0, values.nbytes)]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("hidden_states", (3, 4), "<f4", data=None if "external" in layout else values, **layout)
    with pytest.raises(DamagedFeatureSet):
        map_shard(tmp_path / "a.h5", "float32", 4)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"no HDF5 at all" * 1000])
def test_a_file_that_is_not_hdf5_is_refused_by_its_path(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DamagedFeatureSet) as caught:
        map_shard(tmp_path / "a.h5", "float32", 4)
    assert caught.value.where == tmp_path / "a.h5"


def test_a_file_with_other_contents_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("hidden_states")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["other"] = np.ones((3, 4), np.float32)
    for name in ("a.h5", "b.h5", "absent.h5"):
        with pytest.raises(DamagedFeatureSet):
            map_shard(tmp_path / name, "float32", 4)


@pytest.mark.parametrize("dtype", sorted(RAW))
def test_the_readmes_example_reads_every_storage_dtype_with_h5py_alone(tmp_path, corpus, dtype, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if "import h5py" in code]
    assert "pipeline" not in example
    small = corpus(changes={"storage_dtype": dtype})
    small.write(tmp_path / "data" / "cache")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert np.array_equal(names["numbers"], np.stack([small.states(row) for row in range(4)]))
