"""What is done beside the compute is done in order, once, and its errors are heard."""

import threading
import time

import pytest

from pipeline.extract import here, shard_work
from pipeline.extract.beside import Ahead, Behind


@pytest.mark.parametrize("in_thread", [False, True])
def test_one_thing_after_another_and_all_of_them(in_thread):
    done, threads = [], set()

    def work(number):
        threads.add(threading.get_ident())
        time.sleep(0.01)
        done.append(number)

    with Behind(in_thread=in_thread) as behind:
        for number in range(5):
            behind.do(lambda number=number: work(number))
            assert len(done) >= number  # no more than one waits
        behind.wait()
        assert done == [0, 1, 2, 3, 4]
        behind.do(lambda: work(5))
    assert done == [0, 1, 2, 3, 4, 5]
    assert (threads == {threading.get_ident()}) is not in_thread


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("then", ["do", "wait", "leave"])
def test_an_error_is_raised_before_anything_else_is_done(in_thread, then):
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), Behind(in_thread=in_thread) as behind:
        behind.do(fail)
        if then == "do":
            behind.do(lambda: pytest.fail("this must not be begun"))
        elif then == "wait":
            behind.wait()


def test_of_two_errors_the_callers_own_is_raised_when_the_other_work_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt), Behind(in_thread=True) as behind:
        behind.do(lambda: (time.sleep(0.05), done.append(1)))
        raise KeyboardInterrupt
    assert done == [1]


def test_the_next_is_made_while_one_is_used():
    made = []

    def make(number):
        made.append(number)
        return number * 10

    with Ahead(make, [1, 2, 4, 7]) as ahead:
        assert ahead.get(1) == 10
        assert ahead.get(2) == 20
        assert ahead.get(7) == 70  # somebody else took 4
        assert ahead.get(1) == 10
    assert made[:3] == [1, 2, 4]


def test_an_error_in_the_making_is_the_askers():
    def make(number):
        raise ValueError(f"no {number}")

    with Ahead(make, [1, 2]) as ahead, pytest.raises(ValueError, match="no 1"):
        ahead.get(1)


def test_written_behind_the_files_are_the_same(stage_one, tmp_path, monkeypatch):
    from stored_files import files_of

    stage_one()
    monkeypatch.setattr(here, "Behind", lambda in_thread: Behind(in_thread=not in_thread))
    stage_one(tmp_path / "behind")
    assert files_of(tmp_path / "behind") == files_of(tmp_path / "cache")


def test_what_fails_behind_stops_the_run_and_frees_the_shards(stage_one, tmp_path, monkeypatch):
    honest = shard_work.index_of

    def full_once(*args):
        monkeypatch.setattr(shard_work, "index_of", honest)
        raise OSError("full")

    monkeypatch.setattr(here, "Behind", lambda in_thread: Behind(in_thread=True))
    monkeypatch.setattr(shard_work, "index_of", full_once)
    with pytest.raises(OSError, match="full"):
        stage_one(tasks=("cola",))
    assert {record["status"] for record in stage_one(tasks=("cola",))} <= {"written", "resumed"}
