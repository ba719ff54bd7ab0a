"""Two processes on one corpus share the work or wait, and what they write is what one alone writes."""

import json
import os
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

WORKER = """
import sys
from pathlib import Path
from pipeline.config import *
from pipeline.extract.run import extract
backbone, glue, models, cache = map(Path, sys.argv[1:5])
extract(
    ExtractConfig(tasks=("cola",), layers=("1", "-1"), poolings=("mean", "tokens")), DataConfig(glue_dir=glue),
    BackboneConfig(backbone=str(backbone), models_dir=models), TokensConfig(),
    PassConfig(shard_rows=2, token_budget=64, threads=1, lock_timeout=float(sys.argv[5])), CacheConfig(cache),
)
"""


@pytest.fixture
def worker(tiny_backbone, small_glue, tmp_path):
    processes = []

    def start(cache, timeout=60.0):
        arguments = [sys.executable, "-c", WORKER, tiny_backbone, small_glue, tmp_path / "models", cache, str(timeout)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def passes(folder):
    """Which shard was computed when, of all views."""
    return [json.loads(line) for path in folder.rglob("passes.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_three_processes_compute_each_shard_once_and_write_what_one_writes(worker, tmp_path):
    alone = worker(tmp_path / "alone")
    alone.communicate()
    assert alone.returncode == 0
    together = [worker(tmp_path / "together") for _ in range(3)]
    said = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], said
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")
    computed = passes(tmp_path / "together")
    assert len(computed) == len(passes(tmp_path / "alone"))  # no shard of any view twice


@pytest.mark.slow
def test_a_killed_process_work_is_taken_over_by_the_one_that_waits(worker, tmp_path):
    first = worker(tmp_path / "cache")
    while not list((tmp_path / "cache").rglob("shard-*.json")):
        time.sleep(0.005)
    second = worker(tmp_path / "cache")
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    said = second.communicate()[1]
    assert second.returncode == 0, said
    alone = worker(tmp_path / "alone")
    alone.communicate()
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "alone")


def test_a_shard_that_another_process_holds_for_too_long_is_a_clear_error(stage_one, worker, tmp_path, monkeypatch):
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
