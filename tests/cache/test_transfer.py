"""Push and pull between folders: what is chosen, what is refused, and what a place that lies can do (nothing)."""

import dataclasses
import json
import os
import shutil
from collections import namedtuple

import pytest

from pipeline.cache import FeatureSet
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.transfer import pull, push
from pipeline.config import TransferConfig
from pipeline.errors import CacheError, ConfigError, TransferError

ALL = TransferConfig()
REPLACE = dataclasses.replace(ALL, replace=True)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def inodes(folder):
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory, corpus):
    """Three feature sets of two tasks."""
    cache_dir = tmp_path_factory.mktemp("written")
    corpus().write(cache_dir)
    corpus(rows=5, changes={"texts": "sha256:dd"}, facts={"split": "validation"}).write(cache_dir)
    corpus(rows=3, changes={"layer": 3}, facts={"task": "sst2"}).write(cache_dir)
    return cache_dir


@pytest.fixture
def there(written, tmp_path):
    """Another place with these feature sets."""
    return shutil.copytree(written, tmp_path / "there")


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def only(cache_dir, task="cola", split="train"):
    """The folder of the one feature set of a task and split."""
    [folder] = (cache_dir / task / split).iterdir()
    return folder


def names_of(records):
    return [(record["task"], record["split"]) for record in records]


def refused(there, cache_dir, *parts, config=ALL, names=()):
    """Pull, and see one message that has all these parts, and nothing that looks whole."""
    with pytest.raises(CacheError) as caught:
        pull(str(there), names, config, cache_dir)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not list(cache_dir.rglob(MANIFEST)) or config.replace
    return caught.value


# --- which ---


def test_all_are_copied_or_those_of_some_tasks_and_splits(there, cache_dir, tmp_path):
    train = dataclasses.replace(ALL, splits=("train",))
    assert names_of(pull(str(there), (), train, cache_dir)) == [("cola", "train"), ("sst2", "train")]
    assert names_of(pull(str(there), (), dataclasses.replace(train, tasks=("sst2",)), cache_dir)) == [("sst2", "train")]
    assert len(pull(str(there), (), ALL, cache_dir)) == 3
    assert files(cache_dir) == files(there)
    refused(there, tmp_path / "x", "no such feature set", "mnli", "cola/train", config=TransferConfig(tasks=("mnli",)))


def test_a_name_is_a_folders_name_or_the_beginning_of_a_fingerprint(there, cache_dir, tmp_path):
    feature_set = FeatureSet(only(there))
    for name in (feature_set.folder.name, feature_set.fingerprint[:6], feature_set.fingerprint[:20]):
        assert names_of(push(str(tmp_path / name), (name,), ALL, there)) == [("cola", "train")]
    wrong = feature_set.fingerprint[:12] + ("0" if feature_set.fingerprint[12] != "0" else "1")
    for name in (feature_set.fingerprint[:5], wrong, "tiny-nf4", "../cola", "*"):
        refused(there, cache_dir, "no such feature set", name, feature_set.folder.name, names=(name,))


def test_a_set_that_is_not_whole_is_left_out_and_refused_by_name(there, cache_dir, capsys):
    folder = only(there)
    (folder / MANIFEST).unlink()
    refused(there, cache_dir, "is not whole", folder.name, names=(folder.name,))
    assert len(pull(str(there), (), ALL, cache_dir)) == 2
    assert f"left out: cola/train/{folder.name} is not whole" in capsys.readouterr().err
    shutil.rmtree(cache_dir)
    refused(
        there,
        cache_dir,
        "no feature set at this place is whole",
        config=TransferConfig(tasks=("cola",), splits=("train",)),
    )


def test_a_place_that_is_not_there_or_no_cache(tmp_path, cache_dir):
    refused(tmp_path / "nothing", cache_dir, "there is no such place")
    (tmp_path / "empty" / "a" / "b" / "c").mkdir(parents=True)
    refused(tmp_path / "empty", cache_dir, "there are no feature sets", "<task>/<split>/<feature-set>/manifest.json")
    with pytest.raises(TransferError, match="there is no such place"):
        push(str(tmp_path / "x"), (), ALL, cache_dir)


def test_the_cache_itself_is_no_other_place(there):
    (there.parent / "link").symlink_to(there)
    for remote in (str(there), f"file://{there}", str(there.parent / "link")):
        with pytest.raises(ConfigError, match="the cache itself"):
            pull(remote, (), REPLACE, there)


# --- only what is missing ---


def test_only_what_is_missing_is_written(there, cache_dir):
    pull(str(there), (), ALL, cache_dir)
    before = inodes(cache_dir)
    states, _, seal = shard_paths(only(cache_dir), 1)
    content = bytearray(states.read_bytes())
    content[-1] ^= 1
    states.write_bytes(content)  # of the right size: only its bytes tell
    os.utime(states, ns=(0, 0))
    seal.unlink()
    [record, *others] = pull(str(there), (), ALL, cache_dir)
    assert (record["sent"], record["skipped"], record["status"]) == (2, 8, "copied")
    assert record["sent_bytes"] == states.stat().st_size + seal.stat().st_size
    assert [other["status"] for other in others] == ["unchanged", "unchanged"]
    assert files(cache_dir) == files(there)
    after = inodes(cache_dir)
    assert {name for name in after if after[name] != before[name]} <= {
        str(p.relative_to(cache_dir)) for p in (states, seal)
    }


def test_a_files_time_means_nothing(there, cache_dir):
    pull(str(there), (), ALL, cache_dir)
    for path in cache_dir.rglob("*.*"):
        os.utime(path, ns=(0, 0))
    assert {record["sent"] for record in pull(str(there), (), ALL, cache_dir)} == {0}


def test_a_dry_run_says_what_would_be_and_does_nothing(there, cache_dir):
    records = pull(str(there), (), dataclasses.replace(ALL, dry_run=True), cache_dir)
    assert [record["status"] for record in records] == ["to copy"] * 3
    assert sum(record["sent_bytes"] for record in records) == sum(map(len, files(there).values()))
    assert not cache_dir.exists()
    pull(str(there), (), ALL, cache_dir)
    records = pull(str(there), (), dataclasses.replace(ALL, dry_run=True), cache_dir)
    assert [record["status"] for record in records] == ["unchanged"] * 3


PASS = {"backbone_seconds": 1.5, "seconds": 2.0, "shard": 0, "pass": "aa"}


def test_records_of_the_log_of_passes_go_with_a_set_and_nothing_else_of_it(there, cache_dir, tmp_path):
    log = only(there) / "passes.jsonl"
    log.write_text(f"{json.dumps(PASS)}\n{'[' * 100_000}\nnonsense\n{{}}\n{json.dumps({**PASS, 'shard': 1})}\n")
    before = {name: content for name, content in files(there).items() if not name.endswith("passes.jsonl")}
    pull(str(there), (), ALL, cache_dir)
    copied = files(cache_dir)
    name = str((only(cache_dir) / "passes.jsonl").relative_to(cache_dir))
    assert [json.loads(line) for line in copied.pop(name).splitlines()] == [PASS, {**PASS, "shard": 1}]
    assert copied == before
    push(str(tmp_path / "further"), (), ALL, cache_dir)
    assert (only(tmp_path / "further") / "passes.jsonl").read_bytes() == (only(cache_dir) / "passes.jsonl").read_bytes()


def test_a_log_that_is_there_is_kept_and_a_link_is_not_followed(there, cache_dir, tmp_path):
    pull(str(there), (), ALL, cache_dir)
    own = only(cache_dir) / "passes.jsonl"
    own.write_text("mine")
    (only(there) / "passes.jsonl").write_text(json.dumps(PASS))
    (only(cache_dir) / MANIFEST).unlink()
    pull(str(there), (), ALL, cache_dir)
    assert own.read_text() == "mine"
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(PASS))
    (only(there) / "passes.jsonl").unlink()
    (only(there) / "passes.jsonl").symlink_to(secret)
    pull(str(there), (), ALL, tmp_path / "other")
    assert not (only(tmp_path / "other") / "passes.jsonl").exists()


def test_whatever_else_lies_there_stays(there, cache_dir):
    before = files(there)
    for name in ("passes.jsonl", ".lock", "shard-00000.h5.bak", "shard-00000.pickle", "notes.txt"):
        (only(there) / name).write_text("x")
    (there / "cola" / "README").write_text("x")
    (there / "cola" / "train" / "no-feature-set").mkdir()
    pull(str(there), (), ALL, cache_dir)
    assert files(cache_dir) == before


# --- never in silence over something else ---


@pytest.mark.parametrize(
    "how", ["other seals", "other manifest", "damaged manifest", "unfinished", "damaged seal", "more shards"]
)
def test_what_stands_there_already_is_overwritten_on_demand_alone(there, written, corpus, cache_dir, how):
    pull(str(there), (), ALL, cache_dir)
    folder = only(cache_dir)
    if how in ("other seals", "unfinished"):
        shutil.rmtree(folder)
        corpus(shard_rows=3 if how == "other seals" else 2).write(cache_dir)
    if how in ("unfinished", "more shards"):
        (folder / MANIFEST).unlink()
    if how == "more shards":
        shutil.copy(shard_paths(folder, 0)[2], shard_paths(folder, 3)[2])
        shutil.copy(shard_paths(folder, 0)[0], shard_paths(folder, 3)[0])
    if how == "other manifest":
        manifest = dataclasses.replace(FeatureSet(folder).manifest, recorded={"numpy": "1"})
        manifest.write(folder)
    if how == "damaged manifest":
        (folder / MANIFEST).write_text("{")
    if how == "damaged seal":
        shard_paths(folder, 1)[2].write_text("{")
    before = files(cache_dir)
    with pytest.raises(TransferError, match="another feature set stands there") as caught:
        pull(str(there), (), ALL, cache_dir)
    assert str(there) in str(caught.value)
    assert str(cache_dir) in str(caught.value)
    expected = {"other manifest": "recorded.numpy", "damaged manifest": "manifest.json (damaged)"}
    assert expected.get(how, "shard-0000") in str(caught.value.found)
    assert files(cache_dir) == before
    pull(str(there), (), REPLACE, cache_dir)
    assert files(cache_dir) == files(written)


# --- a place that lies ---


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["h5", "parquet", "json", MANIFEST])
@pytest.mark.parametrize(
    "damage", ["flipped", "truncated", "longer", "missing", "empty", "a link", "a pipe", "a folder"]
)
def test_damage_there_never_becomes_a_feature_set_here(there, cache_dir, kind, damage):
    path = only(there) / (kind if kind == MANIFEST else f"shard-00001.{kind}")
    content = path.read_bytes()
    if damage in ("missing", "a link", "a pipe", "a folder"):
        path.unlink()
    if damage == "flipped":
        path.write_bytes(content)
        flip(path)
    elif damage == "truncated":
        path.write_bytes(content[:-7])
    elif damage == "longer":
        path.write_bytes(content + b"x")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "a link":
        (there.parent / "elsewhere").write_bytes(content)
        path.symlink_to(there.parent / "elsewhere")
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "a folder":
        path.mkdir()
    refused(there, cache_dir, only(there).name, names=(only(there).name,))
    if damage != "flipped":  # nothing is fetched first
        assert not cache_dir.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b" " * (2 << 20) + b"{}",
        b"9" * 10_000,
        b'{"rows": 1e999}',
        b"\x80\x03cos\nsystem\n",
    ],
    ids=["nested lists", "nested objects", "too long", "a long number", "infinity", "a pickle"],
)
@pytest.mark.parametrize("name", [MANIFEST, "shard-00002.json"])
def test_json_that_is_made_to_hurt(there, cache_dir, content, name):
    (only(there) / name).write_bytes(content)
    refused(there, cache_dir, "damaged", only(there).name, names=(only(there).name,))


@pytest.mark.parametrize("name", [MANIFEST, "shard-00002.json"])
def test_no_more_of_a_small_file_is_read_than_it_can_have(there, cache_dir, name):
    path = only(there) / name
    path.write_bytes(b" " * (2 << 20) + path.read_bytes())
    refused(there, cache_dir, "damaged", only(there).name, names=(only(there).name,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "../../../etc"),
        ("task", "/etc"),
        ("split", ".."),
        ("backbone", "../tiny"),
        ("backbone", "/elsewhere/tiny"),
        ("rows", 10**18),
        ("shard_rows", 1),
        ("seals", "sha256:" + "0" * 64),
        ("passport", {}),
    ],
)
def test_a_manifest_that_names_another_place_or_size(there, cache_dir, field, value):
    path = only(there) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: value}))
    refused(there, cache_dir, "damaged", only(there).name, names=(only(there).name,))
    assert {p.name for p in cache_dir.parent.iterdir()} == {"there"}


def test_shards_that_are_cut_unlike_the_manifest_says(there, cache_dir):
    """Seals and manifest agree in every digest, and the set could never be opened."""
    folder = only(there)
    paths = [shard_paths(folder, number)[2] for number in range(3)]
    first, second, third = map(Seal.read, paths)
    seals = [dataclasses.replace(first, rows=5), dataclasses.replace(second, first_place=5, rows=3), third]
    for seal, path in zip(seals, paths, strict=True):
        seal.write(path)
    manifest = Manifest.read(folder)
    dataclasses.replace(manifest, seals=digest_of_seals(seals), passport=passport_of_seals(seals)).write(folder)
    refused(there, cache_dir, "damaged", "another number of rows than its place needs", names=(folder.name,))


@pytest.mark.parametrize(
    "name", ["..", "-rf-000000000000", ".hidden-000000000000", "a b-000000000000", "x;y-000000000000", "x-00000000000G"]
)
def test_folders_that_are_called_unlike_a_feature_set_are_passed_over(there, cache_dir, name):
    if name != "..":
        shutil.copytree(only(there), only(there).with_name(name))
    assert len(pull(str(there), (), ALL, cache_dir)) == 3
    assert not list(cache_dir.rglob("*000000000000"))


def test_a_set_under_another_sets_name_is_refused(there, cache_dir):
    other = only(there).with_name("tiny-nf4-L2-mean-000000000000")
    only(there).rename(other)
    refused(there, cache_dir, "it belongs to", other.name, names=(other.name,))


def test_links_to_folders_are_no_feature_sets(there, cache_dir):
    (there / "linked").symlink_to(there / "cola")
    (there / "cola" / "test").symlink_to(there / "cola" / "train")
    assert len(pull(str(there), (), ALL, cache_dir)) == 3
    assert {path.name for path in cache_dir.iterdir()} == {"cola", "sst2"}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nothing_is_written_through_a_link_in_the_cache(there, cache_dir, tmp_path, depth):
    (outside := tmp_path / "outside").mkdir()
    link = cache_dir.joinpath(*only(there).relative_to(there).parts[:depth])
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    refused(there, cache_dir, "is a link", str(link))
    assert not list(outside.iterdir())


def test_a_shard_that_is_damaged_here_is_not_pushed(there, tmp_path):
    flip(shard_paths(only(there), 1)[0])
    with pytest.raises(TransferError, match="not what its seal says") as caught:
        push(str(tmp_path / "x"), (), ALL, there)
    assert "shard-00001.h5" in str(caught.value.where)
    assert not list((tmp_path / "x").rglob(MANIFEST))


# --- what is said meanwhile ---


def test_files_and_bytes_are_counted_on_the_way(there, cache_dir, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.progress.PLAIN_SECONDS", 0.0)
    pull(str(there), (), dataclasses.replace(ALL, tasks=("sst2",)), cache_dir)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("pull: 4 files, 0.0 MB")
    assert len([line for line in lines if "MB/s" in line and "s left" in line]) == 4
    assert lines[-2].startswith("pull: done, 4 files, 0.0 MB in ")
    assert lines[-1] == "pull: 1 feature sets; 0 files were there already"


# --- the disk ---


def test_a_disk_without_room_is_said_before_anything_is_copied(there, cache_dir, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(100, 90, 10))
    needed = sum(map(len, files(there).values()))
    refused(there, cache_dir, "no room", f"{needed:,} bytes", "10 bytes free")
    assert not cache_dir.exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(needed, 0, needed))
    assert len(pull(str(there), (), ALL, cache_dir)) == 3


def test_a_disk_that_fills_up_while_copying_says_how_much_is_needed(there, cache_dir, monkeypatch):
    import errno

    from pipeline.cache.remote.folder import Folder

    original, calls = Folder.fetch, []

    def full(self, name, path, size_bytes, advance):
        calls.append(name)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, name, path, size_bytes, advance)

    monkeypatch.setattr(Folder, "fetch", full)
    refused(there, cache_dir, "no room", f"{sum(map(len, files(there).values())):,} bytes", "make room")
    monkeypatch.setattr(Folder, "fetch", original)
    assert pull(str(there), (), ALL, cache_dir)[0]["skipped"] == 4  # one shard with its seal, and half of the next
    assert files(cache_dir) == files(there)


def test_a_cache_that_may_not_be_written_to(there, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"cannot be locked|cannot be made|denies|answers with an error"):
        pull(str(there), (), ALL, tmp_path / "file" / "cache")
