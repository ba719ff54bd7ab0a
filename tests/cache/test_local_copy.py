"""A store is read through a local folder: what is read comes, is checked, and makes way, and is what the set holds."""

import pickle
import shutil
import threading

import numpy as np
import pytest

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.inventory import list_entries
from pipeline.cache.local_copy import LocalCopy
from pipeline.cache.remote import Folder
from pipeline.errors import CacheError, ConfigError, DamagedFeatureSet, FeatureSetNotFound, TransferError
from pipeline.sizes import parse_size

PER_SHARD = 3


def states_in(folder):
    return {path.name: path.stat().st_size for path in folder.rglob("*") if ".h5" in path.name and path.is_file()}


@pytest.fixture
def store(corpus, tmp_path):
    """A store of two feature sets of the same rows, each of four shards, one ordered by its tokens."""
    folder = tmp_path / "there"
    corpus(rows=4 * PER_SHARD, shard_rows=PER_SHARD).write(folder)
    corpus(rows=4 * PER_SHARD, shard_rows=PER_SHARD, order="tokens", changes={"layer": 3}).write(folder)
    return folder


@pytest.fixture
def shard_bytes(store):
    return max(path.stat().st_size for path in store.rglob("*.h5"))


@pytest.fixture
def watched(monkeypatch):
    """Counts the hidden states that are fetched, and the most bytes that lie in the local folder at once."""
    seen = {"fetched": [], "most": 0, "folder": None}
    fetch = Folder.fetch

    def watching(self, name, path, size_bytes, advance):
        sha256 = fetch(self, name, path, size_bytes, advance)
        if name.endswith(".h5"):
            seen["fetched"].append(name.rpartition("/")[2])
            seen["most"] = max(seen["most"], sum(states_in(seen["folder"]).values()))
        return sha256

    monkeypatch.setattr(Folder, "fetch", watching)
    return seen


def test_hidden_states_come_when_they_are_read_and_stay(store, corpus, watched, tmp_path):
    here = watched["folder"] = tmp_path / "here"
    features = FeatureCache(here, store=str(store)).open("cola", "train", layer=2)
    assert (len(features), features.texts[1], features.y.tolist()[:2]) == (12, "sentence number 1", [0, 0])
    assert states_in(here) == {}
    assert np.array_equal(features.take([4]), [corpus().states(4)])
    assert watched["fetched"] == ["shard-00001.h5"]
    corpus(rows=12, shard_rows=PER_SHARD).check(features)
    again = FeatureCache(here, store=str(store)).open("cola", "train", layer=2)
    corpus(rows=12, shard_rows=PER_SHARD).check(again)
    assert sorted(watched["fetched"]) == [f"shard-0000{n}.h5" for n in range(4)]


@pytest.mark.parametrize("layer", [2, 3])
def test_a_set_larger_than_the_limit_is_read_in_every_way_within_the_limit(
    store, corpus, shard_bytes, watched, tmp_path, layer
):
    here, whole = watched["folder"], FeatureCache(store).open("cola", "train", layer=layer)
    here = watched["folder"] = tmp_path / "here"
    limit = 2 * shard_bytes
    features = FeatureCache(here, store=str(store), local_limit=limit).open("cola", "train", layer=layer)
    assert np.array_equal(features.X, whole.X)
    assert np.array_equal(features.to_torch().numpy(), whole.to_torch().numpy())
    rows = [11, 0, 7, 7, 3]
    assert np.array_equal(features.take(rows), whole.take(rows))
    for ours, theirs in zip(
        features.batches(5, shuffle=True, seed=1, block_rows=2),
        whole.batches(5, shuffle=True, seed=1, block_rows=2),
        strict=True,
    ):
        assert all(np.array_equal(our, their) for our, their in zip(ours, theirs, strict=True))
    ours, theirs = (list(each.tables()) for each in (features, whole))
    assert ours == theirs
    copy = pickle.loads(pickle.dumps(features))
    assert np.array_equal(copy.X, whole.X)
    assert len(watched["fetched"]) > 12
    assert shard_bytes < watched["most"] <= limit
    assert shard_bytes < sum(states_in(here).values()) <= limit


def test_what_was_used_longest_ago_makes_way(store, shard_bytes, watched, tmp_path):
    here = watched["folder"] = tmp_path / "here"
    features = FeatureCache(here, store=str(store), local_limit=2 * shard_bytes).open("cola", "train", layer=2)
    for number in (0, 1, 0, 2):
        features.shard(number)
    assert sorted(states_in(here)) == ["shard-00000.h5", "shard-00002.h5"]
    assert watched["fetched"] == [f"shard-0000{number}.h5" for number in (0, 1, 2)]


def test_a_shard_larger_than_the_limit_is_alone_there(store, shard_bytes, watched, corpus, tmp_path):
    here = watched["folder"] = tmp_path / "here"
    corpus(rows=12, shard_rows=PER_SHARD).check(
        FeatureCache(here, store=str(store), local_limit=1).open("cola", "train", layer=2)
    )
    assert watched["most"] <= shard_bytes


def test_what_is_mapped_stays_readable_when_another_process_makes_room(store, tmp_path):
    features = FeatureCache(tmp_path / "here", store=str(store)).open("cola", "train", layer=2)
    held = features.shard(1).hidden_states
    expected = held.copy()
    for path in (tmp_path / "here").rglob("*.h5"):
        path.unlink()
    assert np.array_equal(held, expected)
    assert np.array_equal(features.take([0, 4]), FeatureCache(store).open("cola", "train", layer=2).take([0, 4]))


def test_two_readers_share_the_folder_and_fetch_each_shard_once(store, shard_bytes, watched, corpus, tmp_path):
    here = watched["folder"] = tmp_path / "here"
    sets = [FeatureCache(here, store=str(store)).open("cola", "train", layer=2) for _ in range(3)]
    threads = [threading.Thread(target=lambda each=each: each.X) for each in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(watched["fetched"]) == [f"shard-0000{n}.h5" for n in range(4)]
    for each in sets:
        corpus(rows=12, shard_rows=PER_SHARD).check(each)


def test_a_copy_in_part_looks_whole_to_nobody(store, tmp_path):
    here = tmp_path / "here"
    features = FeatureCache(here, store=str(store)).open("cola", "train", layer=2)
    features.shard(0)
    assert list_entries(here) == []
    assert FeatureCache(here).manifests() == []
    with pytest.raises(DamagedFeatureSet, match="cannot be read"):
        FeatureSet(features.folder)


def test_a_bit_that_flipped_there_gets_no_name_here(store, tmp_path):
    [path, _] = sorted(store.rglob("shard-00002.h5"))
    features = FeatureCache(tmp_path / "here", store=str(store)).open_folder(path.parent.name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert len(features.take([0])) == 1
    with pytest.raises(TransferError, match="not what its seal says"):
        features.take([2 * PER_SHARD] if features.manifest.order == "split" else features.rows_of_shards[2])
    assert [name for name in states_in(tmp_path / "here") if "2.h5" in name] == []


def test_a_set_that_was_written_anew_there_is_read_anew(store, corpus, tmp_path):
    here = tmp_path / "here"
    FeatureCache(here, store=str(store)).open("cola", "train", layer=2).shard(0)
    shutil.rmtree(store)
    other = corpus(rows=12, shard_rows=PER_SHARD, seed=1, relabelled=True)
    other.write(store)
    cache = FeatureCache(here, store=str(store))
    other.check(cache.open("cola", "train", layer=2))
    with pytest.raises(FeatureSetNotFound):
        cache.open("cola", "train", layer=3)  # gone there, and so here
    assert [path.parent.name for path in here.rglob("shard-00000.h5")] == [cache.manifests()[0].name]


def test_a_store_that_goes_away_is_one_message_and_what_is_here_is_whole(store, corpus, tmp_path):
    features = FeatureCache(tmp_path / "here", store=str(store)).open("cola", "train", layer=2)
    features.take([0])
    away = store.rename(tmp_path / "away")
    with pytest.raises(TransferError):
        features.take([11])
    assert sorted(states_in(tmp_path / "here")) == ["shard-00000.h5"]
    away.rename(store)
    corpus(rows=12, shard_rows=PER_SHARD).check(features)


def test_x_that_does_not_fit_into_memory_says_what_streams(store, shard_bytes, tmp_path, monkeypatch):
    features = FeatureCache(tmp_path / "here", store=str(store), local_limit=shard_bytes).open("cola", "train", layer=2)
    monkeypatch.setattr("pipeline.cache.states.free_bytes", lambda: 100)
    with pytest.raises(CacheError, match="larger than the memory") as caught:
        _ = features.X
    assert "batches" in caught.value.remedy
    assert len(features.take([1, 11])) == 2


def test_one_store_has_one_folder_and_no_password_in_its_name(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert LocalCopy("there", tmp_path).folder == LocalCopy(str(tmp_path / "there"), tmp_path).folder
    secret, other, plain = (LocalCopy(f"memory://u{word}@h/x", tmp_path) for word in (":a", ":b", ""))
    assert secret.folder == other.folder
    assert secret.folder != plain.folder
    assert ":a@" not in secret.shown
    with pytest.raises(ConfigError, match="own folder"):
        FeatureCache(tmp_path / "there", store="there").manifests()


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [("20GB", 20 * 10**9), ("1.5 TiB", 3 * 2**39), ("500mb", 5 * 10**8), ("7", 7), (7, 7), ("9B", 9)],
)
def test_sizes_as_people_write_them(size, size_bytes):
    assert parse_size(size) == size_bytes


@pytest.mark.parametrize("size", ["", "0", "GB", "-1GB", "20 bananas", "1e9", "20 Gb/s"])
def test_what_is_no_size(size):
    with pytest.raises(ConfigError, match="this is no size"):
        parse_size(size)
