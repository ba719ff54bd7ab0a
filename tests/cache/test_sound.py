"""What a machine noted of its own files: it spares a look at every byte, and nothing else."""

import contextlib
import json
import mmap
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.cache import FeatureSet, states
from pipeline.cache.finite import examine
from pipeline.cache.inventory import list_entries
from pipeline.cache.lock import LOCK_FILE
from pipeline.cache.remove import remove_set
from pipeline.cache.sound import note_on, settled_key
from pipeline.cache.transfer import pull
from pipeline.cache.verify import verify_feature_set
from pipeline.config import TransferConfig
from pipeline.digests import xxh3_of_file
from pipeline.errors import CacheError, DamagedFeatureSet

REAL_FSYNC = os.fsync


@pytest.fixture
def examined(monkeypatch):
    """Which shards' bytes were looked at, by their first number; as a new process, nothing is remembered."""
    seen = []

    def look(before, bits, after, dtype):
        seen.append(bits.ravel()[0])
        return examine(before, bits, after, dtype)

    monkeypatch.setattr(states, "examine", look)
    states._SOUND.forget()
    states._LAYOUTS.forget()
    return seen


@pytest.fixture
def folder(tmp_path, corpus):
    return corpus().write(tmp_path).folder


def shard(folder):
    return folder / "shard-00001.h5"


def test_what_was_written_here_is_not_looked_at_again(folder, examined):
    FeatureSet(folder).X.sum()
    assert not examined


def test_a_copy_is_looked_at_and_once_verified_no_more(folder, tmp_path, examined, monkeypatch):
    copy = tmp_path / "elsewhere" / "cola" / "train" / folder.name
    shutil.copytree(folder, copy)
    expected = np.array(FeatureSet(folder).X)
    assert np.array_equal(FeatureSet(copy).X, expected)
    shards = FeatureSet(copy).manifest.shards
    assert len(examined) == shards
    monkeypatch.setattr("pipeline.cache.reading.SETTLED_NS", 0)  # it was copied just now
    assert verify_feature_set(copy, deep=True).status == "sound"
    states._SOUND.forget()
    assert np.array_equal(FeatureSet(copy).X, expected)
    assert len(examined) == shards


def flip(folder):
    flip_a_bit_of(shard(folder))


def flip_a_bit_of(path):
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 4]))


def flip_in_a_map(folder):
    with shard(folder).open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[-5] ^= 4


def flip_and_set_the_time_back(folder):
    before = shard(folder).stat()
    flip(folder)
    os.utime(shard(folder), ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(folder):
    other = shard(folder).with_suffix(".other")
    shutil.copy2(shard(folder), other)
    flip_a_bit_of(other)
    other.replace(shard(folder))


@pytest.mark.parametrize("damage", [flip, flip_in_a_map, flip_and_set_the_time_back, put_another_in_its_place])
def test_any_change_after_it_was_written_shows(folder, examined, damage):
    damage(folder)
    with pytest.raises(DamagedFeatureSet, match=r"shard-00001\.h5"):
        FeatureSet(folder).X.sum()
    assert len(examined) == 1


def test_a_note_speaks_of_the_content_that_the_seal_is_about(folder, examined):
    note = note_on(folder)
    lines = [json.loads(line) for line in note.read_text().splitlines()]
    note.write_text("".join(json.dumps({**line, "xxh3": "0" * 32}) + "\n" for line in lines))
    FeatureSet(folder).X.sum()
    assert len(examined) == len(lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"{}\n[]\n3\n",
        b'{"name": "a", "file": 3, "xxh3": 4}\n',
        b'{"name": "a", "file": [[1]], "xxh3": "a"}\n',
        b'{"file": [' * 10000,
        b'{"name": "a", "file": [1], "xxh3": "a"}\n' * 50_000,
    ],
)
def test_a_damaged_note_only_costs_time(folder, examined, corpus, content):
    expected = np.array(FeatureSet(folder).X)
    note_on(folder).write_bytes(content)
    assert np.array_equal(FeatureSet(folder).X, expected)
    assert len(examined) == FeatureSet(folder).manifest.shards
    assert verify_feature_set(folder, deep=True).status == "sound"
    small = corpus()
    small.write_shard(small.writer(folder.parents[2]), 1)


def test_a_shard_that_is_written_again_has_one_line(folder, corpus):
    small = corpus()
    before = len(note_on(folder).read_text().splitlines())
    for _ in range(5):
        small.write_shard(small.writer(folder.parents[2]), 1)
    assert len(note_on(folder).read_text().splitlines()) == before


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", ["note", "passes.jsonl", LOCK_FILE])
def test_neither_note_nor_log_nor_lock_is_written_through_a_link(tmp_path, corpus, make, name):
    small = corpus()
    folder = small.writer(tmp_path).folder
    folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    place = note_on(folder) if name == "note" else folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    make(place, outside)
    with contextlib.suppress(CacheError):
        small.write(tmp_path)
    with contextlib.suppress(CacheError):
        small.writer(tmp_path).note_pass({"shard": 0})
    assert outside.read_text() == "mine\n"


def test_a_file_system_that_hides_writes_is_not_believed(corpus, examined, monkeypatch):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("no tmpfs here")
    monkeypatch.setattr("pipeline.cache.reading.SETTLED_NS", 0)
    root = memory / f"feature-cache-{os.getpid()}"
    root.mkdir()
    try:
        folder = corpus().write(root).folder
        assert not note_on(folder).exists()
        FeatureSet(folder).X.sum()
        before = shard(folder).stat()
        flip_in_a_map(folder)
        assert shard(folder).stat().st_ctime_ns == before.st_ctime_ns, "it hides no writes: it could be believed"
        with pytest.raises(DamagedFeatureSet):
            FeatureSet(folder).X.sum()
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("verified", [True, False])
def test_a_write_through_a_map_that_was_written_to_before_shows(folder, examined, monkeypatch, verified):
    """A page that waits to be written back takes another write without a sign."""
    monkeypatch.setattr(os, "fsync", REAL_FSYNC)
    monkeypatch.setattr("pipeline.cache.reading.SETTLED_NS", 0)
    with shard(folder).open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[-5] = pages[-5]
        if verified:
            assert verify_feature_set(folder, deep=True).status == "sound"
        FeatureSet(folder).X.sum()
        time.sleep(0.05)
        pages[-5] ^= 4
        with pytest.raises(DamagedFeatureSet):
            FeatureSet(folder).X.sum()


def test_settled_means_that_the_next_write_shows(tmp_path):
    for _ in range(50):
        path, after = tmp_path / "a", tmp_path / "b"
        path.write_bytes(b"a" * 10)
        after.write_bytes(b"b")
        key = settled_key(path, touch=after)
        path.write_bytes(b"c" * 10)
        assert path.stat().st_ctime_ns > key.ctime_ns


def test_what_is_noted_is_what_is_there(folder):
    noted = {line["xxh3"] for line in map(json.loads, note_on(folder).read_text().splitlines())}
    assert noted == {xxh3_of_file(path) for path in folder.glob("*.h5")}


def test_a_set_that_is_removed_takes_its_note_along(folder):
    assert note_on(folder).exists()
    remove_set(next(entry for entry in list_entries(folder.parents[2])))
    assert not note_on(folder).exists()


def test_where_no_note_can_be_kept_everything_is_looked_at(tmp_path, corpus, examined, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    small = corpus()
    small.check(small.write(tmp_path / "cache"))
    assert len(examined) == 3


def test_what_was_pulled_was_looked_at_on_its_way(folder, tmp_path, examined):
    pull(str(folder.parents[2]), (), TransferConfig(), tmp_path / "here")
    pulled = tmp_path / "here" / "cola" / "train" / folder.name
    assert np.array_equal(FeatureSet(pulled).X, FeatureSet(folder).X)
    assert not examined
    flip(pulled)
    with pytest.raises(DamagedFeatureSet):
        FeatureSet(pulled).X.sum()
