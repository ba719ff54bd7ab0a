"""Files are whole or not there; what dead writers left goes, what living ones write stays."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cache.files import DAMAGED, clear_partials, set_aside, whole_file
from pipeline.errors import DiskFull
from pipeline.partials import is_abandoned, this_host

HOST = this_host()


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def partial(folder, name, pid, host=HOST):
    path = folder / f".{name}.{host}.{pid}.0123abcd.partial"
    path.write_text("half")
    return path


def test_a_file_appears_whole_and_its_partial_goes(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as place:
        assert place.parent == tmp_path
        place.write_text("half")
        assert not path.exists()
        place.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_the_name_is_and_the_folder_after(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []

    def note(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    with whole_file(path) as place:
        place.write_text("whole")
    assert synced == [(place, False), (tmp_path, True)]


def test_a_body_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(KeyError), whole_file(path) as place:
        place.write_text("half")
        raise KeyError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_cache_error_that_names_the_file(tmp_path):
    with pytest.raises(DiskFull, match="the disk is full") as caught, whole_file(tmp_path / "file") as place:
        place.write_text("half")
        raise OSError(28, "No space left on device")
    assert caught.value.where == tmp_path / "file"
    assert list(tmp_path.iterdir()) == []


def test_what_was_set_aside_is_forgotten_whatever_it_is(tmp_path):
    path, aside = tmp_path / "shard-00000.json", tmp_path / f"shard-00000.json{DAMAGED}"
    path.mkdir()
    (path / "inner").write_text("odd")
    set_aside(path)
    assert (aside / "inner").read_text() == "odd"
    path.write_text("good")
    for _ in range(2):
        set_aside(path, forget=True)
        assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with whole_file(tmp_path / "file") as one, whole_file(tmp_path / "file") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "file").read_text() == "one"  # the outer one is renamed last


def test_partials_of_dead_processes_go_and_all_others_stay(tmp_path, dead):
    gone = [partial(tmp_path, "shard-00000.h5", dead), partial(tmp_path, "manifest.json", dead)]
    stay = [
        partial(tmp_path, "shard-00001.h5", os.getpid()),
        partial(tmp_path, "shard-00002.h5", os.getppid()),
        partial(tmp_path, "shard-00003.h5", 1),
        partial(tmp_path, "shard-00004.h5", dead, host="another-machine"),
        tmp_path / "shard-00005.h5",
        tmp_path / ".notes.partial",
    ]
    for path in stay[-2:]:
        path.write_text("mine")
    assert clear_partials(tmp_path) == len(gone)
    assert sorted(tmp_path.iterdir()) == sorted(stay)
    assert clear_partials(tmp_path) == 0


def test_another_namespace_of_processes_is_another_host_though_it_has_this_ones_name(tmp_path, dead):
    """Containers of one image: the same name, the same small process ids, none of which is seen from here."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())
    assert this_host().startswith(f"{name}-")
    assert str(Path("/proc/self/ns/pid").stat().st_ino) in this_host()
    assert is_abandoned(partial(tmp_path, "a", dead))
    for other in (name, re.sub(r"\d+$", "1", this_host())):
        assert not is_abandoned(partial(tmp_path, "a", dead, host=other))


def test_whoever_takes_a_shard_clears_what_was_left_of_it(tmp_path, corpus):
    """Under the shard's lock nobody else is writing it, wherever the process ran that left this."""
    small = corpus()
    writer = small.writer(tmp_path)
    small.write_shard(writer, 0)
    gone = [partial(writer.folder, "shard-00001.h5", 1, host="another"), partial(writer.folder, "shard-00001.json", 1)]
    stays = partial(writer.folder, "shard-00002.h5", os.getpid())
    assert writer.claim(1)
    writer.lock.release(1)
    assert ([path.exists() for path in gone], stays.exists()) == ([False, False], True)
    assert small.writer(tmp_path).sealed(0) is not None


def test_a_partial_name_says_whose_it_is(tmp_path):
    with whole_file(tmp_path / "shard-00000.h5") as place:
        place.write_text("half")
        assert place.name.startswith(f".shard-00000.h5.{HOST}.{os.getpid()}.")
        assert clear_partials(tmp_path) == 0
        assert place.exists()
