"""Locks: one writer a shard, whoever holds one is named, and a dead process holds nothing."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.cache.lock import LOCK_FILE, SET, FeatureSetLock
from pipeline.errors import CacheError

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, pathlib
from pipeline.cache.lock import FeatureSetLock
lock = FeatureSetLock(pathlib.Path(sys.argv[1]))
print(*(lock.try_hold(int(shard)) for shard in sys.argv[2:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that holds locks of a folder; gives the process and what it got."""
    processes = []

    def start(*shards, folder=tmp_path / "set"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, folder, *map(str, shards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        processes.append(process)
        return process, [word == "True" for word in process.stdout.readline().split()]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def lock(tmp_path):
    return FeatureSetLock(tmp_path / "set")


def test_a_shard_is_held_once_and_others_are_free(hold, lock):
    _, got = hold(0, 1, 0)
    assert got == [True, True, False]
    assert [lock.try_hold(shard) for shard in (0, 1, 2, SET)] == [False, False, True, True]
    _, got = hold(0, 1, 2, SET, 3)
    assert got == [False, False, False, False, True]


def test_a_killed_process_holds_nothing(hold, lock):
    process, _ = hold(0, SET)
    assert not lock.try_hold(0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock.try_hold(0)
    assert lock.try_hold(SET)


def test_threads_of_a_process_exclude_each_other(lock):
    assert lock.try_hold(4)
    got = []
    thread = threading.Thread(target=lambda: got.append(FeatureSetLock(lock.folder).try_hold(4)))
    thread.start()
    thread.join()
    assert got == [False]
    lock.release(4)
    assert FeatureSetLock(lock.folder).try_hold(4)


def test_giving_one_back_keeps_the_others(hold, lock):
    for shard in range(3):
        assert lock.try_hold(shard)
    lock.release(1)
    assert lock.is_held(0)
    assert not lock.is_held(1)
    _, got = hold(0, 1, 2)
    assert got == [False, True, False]


def test_asking_who_holds_a_lock_does_not_give_back_ones_own(hold, lock):
    """POSIX locks go when any descriptor of the file is closed."""
    process, _ = hold(7)
    assert lock.try_hold(0)
    assert f"process {process.pid} on " in lock.holder(7)
    assert f"process {os.getpid()} on " in lock.holder(0)
    _, got = hold(0)
    assert got == [False]


def test_waiting_ends_with_an_error_that_names_the_holder(hold, lock):
    process, _ = hold(3)
    with pytest.raises(CacheError, match="another process is writing shard 3") as caught, lock.held(3, timeout=0.2):
        pass
    assert f"process {process.pid} on " in str(caught.value.found)
    assert "--lock-timeout" in caught.value.remedy


def test_waiting_ends_when_the_holder_does(hold, lock):
    process, _ = hold(3)
    threading.Timer(0.3, process.kill).start()
    with lock.held(3, timeout=30.0):
        assert lock.is_held(3)
    assert not lock.is_held(3)


def test_the_last_one_to_leave_removes_the_file(hold, lock):
    process, _ = hold(0)
    assert lock.try_hold(1)
    lock.release(1)
    assert lock.path.exists()  # the other one is still there
    process.kill()
    process.wait()
    (lock.folder / "file").write_text("kept")
    assert lock.try_hold(1)
    lock.release(1)
    assert [path.name for path in lock.folder.iterdir()] == ["file"]


def test_a_folder_in_which_nothing_was_written_goes(lock):
    with lock.held(0, timeout=0.0):
        assert lock.path.exists()
    assert not lock.folder.exists()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(hold, lock):
    """Between opening and locking, the last holder may remove the file: whoever locked the removed one must see it."""
    process, _ = hold(0)
    lock.path.unlink()
    assert lock.try_hold(0)  # of the file that stands there now
    _, got = hold(0)
    assert got == [False]
    process.kill()


def test_everything_is_held_only_if_nobody_is_there(hold, lock):
    with lock.all_held() as free:
        assert free
        _, got = hold(0, 1, SET)
        assert got == [False, False, False]
    process, _ = hold(5)
    with lock.all_held() as free:
        assert not free
    process.kill()
    process.wait()
    with lock.all_held() as free:
        assert free


def test_to_be_alone_is_waited_for(hold, lock):
    process, _ = hold(5)
    with pytest.raises(CacheError, match="another process is writing the feature set"), lock.alone(timeout=0.2):
        pass
    threading.Timer(0.3, process.kill).start()
    with lock.alone(timeout=30.0):
        _, got = hold(0, 5, SET)
        assert got == [False, False, False]


def test_a_link_in_the_lock_files_place_is_not_followed(tmp_path, lock):
    lock.folder.mkdir()
    (tmp_path / "precious").write_text("precious")
    lock.path.symlink_to(tmp_path / "precious")
    with pytest.raises(CacheError, match="cannot be locked"):
        lock.try_hold(0)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "set").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be locked for writing"):
        FeatureSetLock(tmp_path / "set").try_hold(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_think_it_holds_what_its_parent_holds(lock):
    assert lock.try_hold(0)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"yes" if lock.is_held(0) else b"no!")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 3) == b"no!"
    os.close(read)
    os.close(write)
    assert LOCK_FILE in [path.name for path in lock.folder.iterdir()]
