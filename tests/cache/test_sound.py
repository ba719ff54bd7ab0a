"""What a machine noted of its own files: it spares a look at every byte, and nothing else."""

import json
import mmap
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.cache import FeatureSet, states
from pipeline.cache.finite import examine
from pipeline.cache.sound import SOUND, settled_key
from pipeline.cache.verify import verify_feature_set
from pipeline.digests import xxh3_of_file
from pipeline.errors import DamagedFeatureSet


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
    note = folder / SOUND
    lines = [json.loads(line) for line in note.read_text().splitlines()]
    note.write_text("".join(json.dumps({**line, "xxh3": "0" * 32}) + "\n" for line in lines))
    FeatureSet(folder).X.sum()
    assert len(examined) == len(lines)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"{}\n[]\n3\n", b'{"file": 3, "xxh3": 4}\n', b'{"file": [' * 10000]
)
def test_a_damaged_note_only_costs_time(folder, examined, content):
    expected = np.array(FeatureSet(folder).X)
    (folder / SOUND).write_bytes(content)
    assert np.array_equal(FeatureSet(folder).X, expected)
    assert len(examined) == FeatureSet(folder).manifest.shards


def test_neither_note_nor_log_is_written_through_a_link(tmp_path, corpus):
    small = corpus()
    folder = small.writer(tmp_path).folder
    folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    (folder / SOUND).symlink_to(outside)
    FeatureSet(small.write(tmp_path).folder).X.sum()
    assert outside.read_text() == "mine\n"


def test_a_file_system_that_hides_writes_is_not_believed(corpus, examined):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("no tmpfs here")
    root = memory / f"feature-cache-{os.getpid()}"
    root.mkdir()
    try:
        folder = corpus().write(root).folder
        assert not (folder / SOUND).exists()
        path = shard(folder)
        key = settled_key(path, touch=folder / "manifest.json")
        assert key is not None
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
            pages[-5] ^= 4
        assert path.stat().st_ctime_ns == key.ctime_ns, "it hides no writes: the note could be believed"
        with pytest.raises(DamagedFeatureSet):
            FeatureSet(folder).X.sum()
    finally:
        shutil.rmtree(root)


def test_settled_means_that_the_next_write_shows(tmp_path):
    for _ in range(50):
        path, after = tmp_path / "a", tmp_path / "b"
        path.write_bytes(b"a" * 10)
        after.write_bytes(b"b")
        key = settled_key(path, touch=after)
        path.write_bytes(b"c" * 10)
        assert path.stat().st_ctime_ns > key.ctime_ns


def test_what_is_noted_is_what_is_there(folder):
    noted = {line["xxh3"] for line in map(json.loads, (folder / SOUND).read_text().splitlines())}
    assert noted == {xxh3_of_file(path) for path in folder.glob("*.h5")}
