"""Two processes on one corpus share the work or wait, and what they write is what one alone writes."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from stored_files import files_of

from pipeline.cache import FeatureCache
from pipeline.cache.lock import FeatureSetLock
from pipeline.errors import CacheError
from tests import forked


@pytest.fixture
def worker(tiny_backbone, small_glue, tmp_path):
    """Begin `pipeline extract` into a cache, in a process of its own; with it, the file that it says things in."""
    processes = []

    def start(cache):
        place = tmp_path / f"worker-{len(processes)}"
        place.mkdir()
        views = ("--tasks", "cola", "--layers", "1", "-1", "--poolings", "mean", "tokens")
        places = ("--backbone", tiny_backbone, "--glue-dir", small_glue, "--models-dir", tmp_path / "models")
        cut = ("--shard-rows", 2, "--token-budget", 64, "--threads", 1, "--lock-timeout", 60)
        words = [str(word) for word in ("extract", *views, *places, *cut, "--cache-dir", cache)]
        process, (_, said) = forked.begin(words, tmp_path, {}, place)
        processes.append(process)
        return process, said

    yield start
    for process in processes:
        process.kill()
        process.join()


def passes(folder):
    """Which shard was computed when, of all views."""
    return [json.loads(line) for path in folder.rglob("passes.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_three_processes_compute_each_shard_once_and_write_what_one_writes(worker, tmp_path):
    alone, _ = worker(tmp_path / "alone")
    alone.join()
    assert alone.exitcode == 0
    together = [worker(tmp_path / "together") for _ in range(3)]
    for process, said in together:
        process.join()
        assert process.exitcode == 0, said.read_text()
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")
    computed = passes(tmp_path / "together")
    assert len(computed) == len(passes(tmp_path / "alone"))  # no shard of any view twice


@pytest.mark.slow
def test_a_killed_process_work_is_taken_over_by_the_one_that_waits(worker, tmp_path):
    first, _ = worker(tmp_path / "cache")
    while not list((tmp_path / "cache").rglob("shard-*.json")):
        time.sleep(0.005)
    second, said = worker(tmp_path / "cache")
    time.sleep(0.5)
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL, "it ended before it could be killed"
    second.join()
    assert second.exitcode == 0, said.read_text()
    alone, _ = worker(tmp_path / "alone")
    alone.join()
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "alone")


def test_a_shard_that_another_process_holds_for_too_long_is_a_clear_error(stage_one, tmp_path, monkeypatch):
    """The holder works on one shard and never ends; all the others are written, and the message names it."""
    (record, *_) = stage_one(tasks=("cola",), splits=("train",), layers=("-1",), poolings=("mean",))
    folder = FeatureCache(tmp_path / "cache").open("cola", "train").folder
    for path in folder.glob("*"):
        path.unlink()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from pipeline.cache.lock import FeatureSetLock\n"
            "print(FeatureSetLock(pathlib.Path(sys.argv[1])).try_hold(1), flush=True); sys.stdin.read()",
            folder,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "True\n"
        with pytest.raises(CacheError, match="another process is writing shard 1") as caught:
            stage_one(tasks=("cola",), splits=("train",), layers=("-1",), poolings=("mean",), lock_timeout=0.5)
        assert f"process {holder.pid} on " in caught.value.found
        sealed = {path.name for path in folder.glob("shard-*.json")}
        assert sealed == {"shard-00000.json", "shard-00002.json", "shard-00003.json"}
        ender = threading.Timer(1.0, holder.kill)
        ender.start()
        stage_one(tasks=("cola",), splits=("train",), layers=("-1",), poolings=("mean",), lock_timeout=60.0)
    finally:
        holder.kill()
        holder.communicate()
    assert FeatureCache(tmp_path / "cache").open("cola", "train").fingerprint == record["fingerprint"]
    assert not FeatureSetLock(folder).path.exists()
