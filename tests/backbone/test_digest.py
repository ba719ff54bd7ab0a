"""Weights are known by their content: hashed once, and again whenever the file may have changed."""

import json
import os
import shutil
import threading
import time

import pytest

from pipeline.backbone import digest
from pipeline.backbone.digest import MEMORY, DigestMemory, digest_of_tokenizer, digest_of_weights
from pipeline.digests import sha256_of_file, sha256_of_record

AN_HOUR = 3_600_000_000_000


@pytest.fixture
def folder(tmp_path):
    """A model's folder with two weight files that have lain there for an hour."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (folder / name).write_bytes(name.encode() * 50)
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed, in order."""
    names = []

    def note(path):
        names.append(path.name)
        return sha256_of_file(path)

    monkeypatch.setattr(digest, "sha256_of_file", note)
    return names


@pytest.fixture
def an_hour_later(monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + AN_HOUR)


def expected(folder):
    return "sha256:" + sha256_of_record({path.name: sha256_of_file(path) for path in folder.glob("*.safetensors")})


def test_what_was_hashed_once_is_remembered_wherever_it_is_asked_for(folder, tmp_path, hashed, an_hour_later):
    memory = tmp_path / "memory"
    assert digest_of_weights(folder, memory) == expected(folder)
    assert hashed == ["model-1.safetensors", "model-2.safetensors"]
    (tmp_path / "link").symlink_to(folder)
    assert digest_of_weights(folder, memory) == digest_of_weights(tmp_path / "link", memory) == expected(folder)
    assert len(hashed) == 2


def test_hashing_that_takes_long_is_said_once(folder, tmp_path, an_hour_later, monkeypatch, capsys):
    with (folder / "model-1.safetensors").open("r+b") as file:
        file.truncate(3000)
    monkeypatch.setattr(digest, "LARGE_BYTES", 2000)
    for said in (1, 0):
        digest_of_weights(folder, tmp_path)
        assert capsys.readouterr().err.count("hashing model-1.safetensors") == said


def test_a_file_that_changed_just_now_is_not_remembered_yet(folder, tmp_path, hashed):
    memory = tmp_path / "memory"
    for _ in range(2):
        assert digest_of_weights(folder, memory) == expected(folder)
    assert len(hashed) == 4


def replace_in_place(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


def replace_by_rename(path):
    other = path.with_suffix(".new")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.rename(path)


def replace_by_a_link(path):
    other = path.with_suffix(".other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("replace", [replace_in_place, replace_by_rename, replace_by_a_link])
def test_another_content_of_the_same_size_and_time_is_seen(folder, tmp_path, an_hour_later, replace):
    memory = tmp_path / "memory"
    path = folder / "model-2.safetensors"
    first, before = digest_of_weights(folder, memory), path.stat()
    replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert digest_of_weights(folder, memory) == expected(folder) != first


def test_a_file_that_is_written_while_it_is_hashed_is_not_remembered(folder, tmp_path, monkeypatch, an_hour_later):
    path = folder / "model-1.safetensors"

    def slow(asked):
        found = sha256_of_file(asked)
        replace_in_place(asked)
        return found

    monkeypatch.setattr(digest, "sha256_of_file", slow)
    digest_of_weights(folder, tmp_path)
    monkeypatch.setattr(digest, "sha256_of_file", sha256_of_file)
    assert DigestMemory(tmp_path / MEMORY).digests([path])[path] == sha256_of_file(path)


def spoil(record, folder):
    """Ways in which a memory can be wrong, each with a wrong digest for a right file."""
    place = str(folder / "model-1.safetensors")
    lie = json.loads(json.dumps(record))
    lie["files"][place]["sha256"] = "0" * 64
    yield "flipped", json.dumps(lie)
    for name, value in (("sha256", 1), ("sha256", "x" * 64), ("sha256", None), ("state", None), ("state", "x")):
        odd = json.loads(json.dumps(record))
        odd["files"][place][name] = value
        yield f"{name} {value}", json.dumps({**odd, "check": sha256_of_record(odd["files"])})
    for files in ([], "x", {place: "0" * 64}, {place: None}):
        yield f"files {files}", json.dumps({"files": files, "check": sha256_of_record(files)})
    for text in ("", "{", "[]", "null", "[" * 20000, "\0", json.dumps({place: "0" * 64}), json.dumps(record)[:-9]):
        yield text[:9], text
    yield "not a number", '{"files": NaN, "check": NaN}'


def test_a_memory_that_is_damaged_is_not_believed(folder, tmp_path, an_hour_later):
    memory = tmp_path / "memory"
    digest_of_weights(folder, memory)
    cases = list(spoil(json.loads((memory / MEMORY).read_text()), folder))
    assert len(cases) > 15
    for name, text in cases:
        (memory / MEMORY).write_text(text)
        assert digest_of_weights(folder, memory) == expected(folder), name


def test_a_memory_that_is_a_link_or_another_users_is_not_believed(folder, tmp_path, hashed, an_hour_later, monkeypatch):
    memory = tmp_path / "memory"
    digest_of_weights(folder, memory)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    digest_of_weights(folder, memory)
    assert len(hashed) == 4
    monkeypatch.undo()
    (memory / MEMORY).rename(tmp_path / "elsewhere.json")
    (memory / MEMORY).symlink_to(tmp_path / "elsewhere.json")
    kept = (tmp_path / "elsewhere.json").read_bytes()
    assert digest_of_weights(folder, memory) == expected(folder)
    assert (tmp_path / "elsewhere.json").read_bytes() == kept


@pytest.mark.parametrize("obstacle", ["a file", "a folder"])
def test_a_memory_that_cannot_be_written_costs_hashing_and_nothing_else(folder, tmp_path, obstacle, an_hour_later):
    memory = tmp_path / "memory"
    if obstacle == "a file":
        memory.write_text("")
    else:
        (memory / MEMORY).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert digest_of_weights(folder, memory) == expected(folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_many_writers_of_one_memory_leave_it_readable_and_right(tmp_path, an_hour_later):
    files = []
    for number in range(24):
        files.append(tmp_path / f"{number}.safetensors")
        files[-1].write_bytes(bytes([number]) * 100)
    memory = DigestMemory(tmp_path / "memory" / MEMORY)
    workers = [threading.Thread(target=memory.digests, args=(files[n:],)) for n in range(0, 24, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert memory.digests(files) == {path: sha256_of_file(path) for path in files}
    assert [path.name for path in (tmp_path / "memory").iterdir()] == [MEMORY]


def test_what_is_gone_is_forgotten(folder, tmp_path, an_hour_later):
    digest_of_weights(folder, tmp_path)
    shutil.rmtree(folder)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"x")
    DigestMemory(tmp_path / MEMORY).digests([other])
    assert list(json.loads((tmp_path / MEMORY).read_text())["files"]) == [str(other)]


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "spiece.model", "added_tokens.json"]
)
def test_every_file_of_a_tokenizer_decides_its_digest_and_no_other_does(tiny_backbone, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    (folder / name).write_text("{}")
    first = digest_of_tokenizer(folder)
    (folder / name).write_text("{ }")
    assert digest_of_tokenizer(folder) != first
    (folder / name).write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")  # no sentence goes through it
    (folder / "generation_config.json").write_text("{}")
    assert digest_of_tokenizer(folder) == first
