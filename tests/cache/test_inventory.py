"""What lies in a cache is listed and found by name, whole or not; one damaged set hides no other."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.cache import FeatureCache
from pipeline.cache.inventory import find_entry, find_whole, list_entries
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.errors import CacheError, DamagedFeatureSet, FeatureSetNotFound


@pytest.fixture
def three(corpus, tmp_path):
    """A whole set, one that is unfinished (8 of 11 rows), and one whose manifest is damaged: their folders."""
    whole = corpus().write(tmp_path).folder
    half = corpus(changes={"layer": 3})
    writer = half.writer(tmp_path)
    for number in (0, 1):
        half.write_shard(writer, number)
    damaged = corpus(changes={"layer": 4}).write(tmp_path).folder
    (damaged / MANIFEST).write_text("{")
    return whole, writer.folder, damaged


def test_each_set_is_listed_as_what_it_is(three, tmp_path):
    entries = {entry.folder: entry for entry in list_entries(tmp_path)}
    assert set(entries) == set(three)
    whole, half, damaged = (entries[folder] for folder in three)
    assert [(e.state, e.rows) for e in (whole, half, damaged)] == [("whole", 11), ("unfinished", 8), ("damaged", 11)]
    assert whole.fingerprint == whole.manifest.fingerprint
    assert half.fingerprint == half.name[-12:]
    assert "cannot be read" in damaged.problem
    for entry in entries.values():
        assert entry.size_bytes == sum(path.stat().st_size for path in entry.folder.iterdir())
        assert (entry.task, entry.split, entry.place) == ("cola", "train", f"cola/train/{entry.name}")
    assert whole.changed == (whole.folder / MANIFEST).stat().st_mtime


def test_a_set_with_a_file_of_another_length_is_listed_as_damaged(three, tmp_path):
    states = shard_paths(three[0], 0)[0]
    states.write_bytes(states.read_bytes()[:-1])
    entry = find_entry(tmp_path, three[0].name)
    assert (entry.state, entry.rows) == ("damaged", 7)
    assert entry.problem.startswith("shard-00000.h5: a file of a shard is not as long as its seal says")
    assert entry.problem.endswith(f"{states.stat().st_size} bytes instead of {states.stat().st_size + 1} bytes")
    shard_paths(three[0], 2)[2].unlink()
    assert find_entry(tmp_path, three[0].name).state == "damaged"


def test_only_shards_that_are_whole_count_as_done(three, tmp_path):
    _, half, _ = three
    states, index, _ = shard_paths(half, 1)
    states.write_bytes(states.read_bytes()[:-1])
    assert find_entry(tmp_path, half.name).rows == 4
    shard_paths(half, 0)[2].write_text("{}")
    assert find_entry(tmp_path, half.name).rows == 0
    index.unlink()
    assert find_entry(tmp_path, half.name).rows == 0


def test_links_are_named_as_damage_and_not_followed(three, tmp_path):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    whole = three[0]
    whole.rename(elsewhere / whole.name)
    whole.symlink_to(elsewhere / whole.name)
    (tmp_path / "cola" / "test").symlink_to(elsewhere)
    (tmp_path / "sst2").symlink_to(elsewhere)
    entries = {entry.place: entry for entry in list_entries(tmp_path)}
    assert len(entries) == 5
    for place in (f"cola/train/{whole.name}", "cola/test/*", "sst2/*/*"):
        assert (entries[place].state, entries[place].size_bytes) == ("damaged", 0)
        assert "is a link" in entries[place].problem
    manifest = whole.parent / three[2].name / MANIFEST
    manifest.unlink()
    manifest.symlink_to(elsewhere / "nothing")
    assert find_entry(tmp_path, three[2].name).state == "damaged"


@pytest.mark.parametrize("name", [".shard-00002.h5.host.1.0123abcd.partial", MANIFEST])
def test_what_goes_between_listing_and_looking_does_not_disturb(three, tmp_path, monkeypatch, name):
    """As a writer's partial file does when it gets its name, and a set that is removed meanwhile."""
    going = three[0] / name
    size_bytes = sum(path.stat().st_size for path in three[0].iterdir() if path != going)
    going.write_text("x")
    real = Path.iterdir

    def list_and_lose(folder):
        found = list(real(folder))
        going.unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", list_and_lose)
    entry = find_entry(tmp_path, three[0].name)
    assert (entry.state, entry.size_bytes) == ("unfinished" if name == MANIFEST else "whole", size_bytes)


def test_a_folder_that_goes_while_it_is_looked_at_is_not_there(three, tmp_path, monkeypatch):
    real = Path.is_dir

    def look_and_lose(path):
        was = real(path)
        if path == three[0] and was:
            shutil.rmtree(path)
        return was

    monkeypatch.setattr(Path, "is_dir", look_and_lose)
    assert [entry.folder for entry in list_entries(tmp_path)] == sorted(three[1:])


def test_what_is_no_set_does_not_disturb(three, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "cola" / "README").write_text("mine")
    (tmp_path / ".hidden" / "a" / "b").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "folder").mkdir(parents=True)
    entries = {entry.place: entry for entry in list_entries(tmp_path)}
    assert len(entries) == 4
    assert not entries["other/deep/folder"].is_called_as_a_set
    assert list_entries(tmp_path / "absent") == list_entries(tmp_path / "notes.txt") == []


def test_a_set_is_found_by_name_fingerprint_place_and_path(three, tmp_path, monkeypatch):
    whole, half, _ = three
    fingerprint = find_whole(tmp_path, whole.name)[1].fingerprint
    monkeypatch.chdir(tmp_path.parent)
    relative = os.path.relpath(whole)
    names = (whole.name, fingerprint, fingerprint[:6], f"cola/train/{whole.name}", str(whole), f"{relative}/")
    assert {find_whole(tmp_path, name)[0] for name in names} == {whole}
    assert find_entry(tmp_path, half.name[-12:]).folder == half
    assert find_entry(tmp_path, half.name[-12:-5]).folder == half
    for name in ("", fingerprint[:5], "tiny", "../train", "cola/train", "*", str(tmp_path)):
        with pytest.raises(FeatureSetNotFound, match="no feature set of this name"):
            find_entry(tmp_path, name)


def test_one_identity_in_two_splits_is_told_apart_by_its_place(corpus, tmp_path):
    first = corpus().write(tmp_path)
    twin = corpus(facts={"split": "test"}).write(tmp_path)
    with pytest.raises(CacheError, match="several feature sets begin so") as caught:
        find_entry(tmp_path, twin.manifest.name)
    assert caught.value.found == f"cola/test/{twin.manifest.name}, cola/train/{first.manifest.name}"
    assert find_entry(tmp_path, f"cola/test/{twin.manifest.name}").folder == twin.folder
    assert FeatureCache(tmp_path).open_folder(f"cola/train/{twin.manifest.name}").folder == first.folder


def test_what_is_not_whole_is_said_when_it_is_asked_for(three, tmp_path):
    whole, half, damaged = three
    with pytest.raises(CacheError, match=r"not finished(.|\n)*8 rows"):
        find_whole(tmp_path, half.name)
    with pytest.raises(DamagedFeatureSet, match="cannot be read"):
        find_whole(tmp_path, damaged.name)
    assert FeatureCache(tmp_path).open_folder(whole.name).folder == whole
