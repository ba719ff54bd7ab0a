"""Stretches of files as one array: joined without a copy where pages allow, and never beyond a file's end."""

import gc
import mmap
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache import mapping
from pipeline.cache.mapping import Extent, can_join, map_extents
from pipeline.cache.reading import open_to_read

PAGE = mmap.PAGESIZE
U8 = np.dtype(np.uint8)


def extent(path, place, size_bytes):
    return Extent(partial(open_to_read, path), place, size_bytes)


@pytest.fixture
def parts(tmp_path):
    """Files of random bytes, and stretches of whole pages of them but for the last; and what they hold."""

    def make(count=4, last=PAGE + 77, place=PAGE):
        sizes = [2 * PAGE] * (count - 1) + [last]
        found, content = [], b""
        for number, size in enumerate(sizes):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(np.random.default_rng(number).bytes(place + size))
            content += path.read_bytes()[place:]
            found.append(extent(path, place, size))
        return found, np.frombuffer(content, np.uint8)

    return make


def maps_of(folder):
    """The lines of this process's address space that are files of the folder."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


def test_joined_stretches_are_one_array_over_the_files_themselves(tmp_path, parts):
    extents, content = parts()
    assert can_join(extents)
    joined = map_extents(extents, U8, content.shape)
    assert np.array_equal(joined, content)
    assert len(maps_of(tmp_path)) == 4
    with (tmp_path / "2.bin").open("r+b") as file:  # no copy: what changes in the file changes in the array
        file.seek(PAGE + 5)
        file.write(bytes([content[4 * PAGE + 5] ^ 255]))
    assert np.flatnonzero(joined != content).tolist() == [4 * PAGE + 5]


def test_the_end_of_the_array_unmaps_everything_and_no_file_stays_open(tmp_path, parts):
    extents, content = parts()
    before = len(list(Path("/proc/self/fd").iterdir()))
    joined = map_extents(extents, U8, content.shape)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    view = joined[3 * PAGE : 3 * PAGE + 9]
    del joined
    gc.collect()
    assert np.array_equal(view, content[3 * PAGE : 3 * PAGE + 9])  # a view keeps the whole
    assert maps_of(tmp_path)
    del view
    gc.collect()
    assert not maps_of(tmp_path)


def test_a_shared_map_is_read_only_and_a_private_one_never_reaches_the_file(tmp_path, parts):
    extents, content = parts()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    shared = map_extents(extents, U8, content.shape)
    with pytest.raises(ValueError, match="read-only"):
        shared[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        shared.flags.writeable = True
    private = map_extents(extents, U8, content.shape, private=True)
    private[:] = 7
    assert (private == 7).all()
    assert np.array_equal(shared, content)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3 * PAGE), min_size=1, max_size=4),
    place=st.sampled_from([0, 1, 512, PAGE, PAGE + 8]),
    private=st.booleans(),
)
def test_any_stretches_give_their_bytes_joined_or_not(tmp_path_factory, sizes, place, private):
    folder = tmp_path_factory.mktemp("any")
    extents, content = [], b""
    for number, size in enumerate(sizes):
        path = folder / f"{number}.bin"
        path.write_bytes(np.random.default_rng(number).bytes(place + size + 3))
        content += path.read_bytes()[place : place + size]
        extents.append(extent(path, place, size))
    array = map_extents(extents, U8, (len(content),), private=private)
    assert array.tobytes() == content
    assert array.flags.writeable == private


@pytest.mark.parametrize("which", ["not on a page", "not whole pages", "no system map"])
def test_what_cannot_be_joined_is_copied_together(tmp_path, parts, monkeypatch, which):
    extents, content = parts(place=PAGE + 8 if which == "not on a page" else PAGE)
    if which == "not whole pages":
        extents = [extents[-1], *extents[:-1]]
        content = np.concatenate([content[-extents[0].size_bytes :], content[: -extents[0].size_bytes]])
    if which == "no system map":
        monkeypatch.setattr(mapping, "SYSTEM_MAP", None)
    assert not can_join(extents)
    array = map_extents(extents, U8, content.shape)
    assert np.array_equal(array, content)
    assert not array.flags.writeable
    gc.collect()
    assert not maps_of(tmp_path)
    one = map_extents(extents[:1], U8, (extents[0].size_bytes,))
    assert len(maps_of(tmp_path)) == 1
    assert np.array_equal(one, content[: extents[0].size_bytes])


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("joined", [True, False])
def test_a_file_that_ends_too_soon_is_an_error_and_not_a_dead_process(tmp_path, parts, monkeypatch, number, joined):
    """Touching a page beyond a file's end kills with SIGBUS: the end is looked up in the very file that is mapped."""
    extents, content = parts()
    if not joined:
        monkeypatch.setattr(mapping, "SYSTEM_MAP", None)
    os.truncate(tmp_path / f"{number}.bin", PAGE + 1)
    with pytest.raises(ValueError, match=f"at {PAGE} of a file of {PAGE + 1}"):
        map_extents(extents, U8, content.shape)
    gc.collect()
    assert not maps_of(tmp_path)


def test_stretches_that_are_not_the_arrays_size_are_refused(parts):
    extents, content = parts()
    for wrong in (len(content) - 1, len(content) + 1, 2**62):
        with pytest.raises(ValueError, match="are no array"):
            map_extents(extents, U8, (wrong,))


def test_a_range_that_the_system_refuses_is_an_error(parts, monkeypatch):
    extents, content = parts()
    monkeypatch.setattr(mapping, "SYSTEM_MAP", lambda *words: -1)
    with pytest.raises(OSError):
        map_extents(extents, U8, content.shape)
