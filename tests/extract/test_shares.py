"""Shares of array jobs: any number of them, overlapping or killed, write what one process writes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stored_files import files_of

from pipeline.cache.manifest import MANIFEST
from pipeline.engine_config import ShareConfig
from pipeline.errors import CacheError, ConfigError
from pipeline.extract.finish import in_short
from pipeline.shard_choice import ALL_SHARDS, ShardChoice, parse_choice
from tests.forked import SECONDS, begin

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shares", [1, 3, 8])
def test_shares_hold_every_shard_once(shares):
    choices = [parse_choice(f"{share}::{shares}") for share in range(shares)]
    for number in range(30):
        assert sum(number in choice for choice in choices) == 1
    assert parse_choice(None) == ALL_SHARDS == ShardChoice(0, 1)


@pytest.mark.parametrize("text", ["", "3", "8::8", "a::2", "1::0", "-1::2", "1::2::3", "1:2"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ConfigError, match="only_shards"):
        ShareConfig(only_shards=text)


def test_finishing_goes_without_a_share():
    with pytest.raises(ConfigError, match="finish"):
        ShareConfig(only_shards="0::2", finish=True)


def test_runs_of_numbers_are_drawn_together():
    assert in_short([9, 0, 3, 4, 5]) == "0, 3-5, 9"
    assert in_short(range(0, 100, 2)).endswith("38 and 30 more runs")


def test_shares_leave_the_manifest_to_the_finish(stage_one, tmp_path):
    stage_one(tasks=("cola",))
    shared = tmp_path / "shared"
    (first, *_) = stage_one(shared, tasks=("cola",), only_shards="1::2")
    assert first["status"] == "shared: 2 of 4 shards" and first["tokens"] > 0
    assert not list(shared.rglob(MANIFEST))
    with pytest.raises(CacheError, match="not whole yet") as caught:
        stage_one(shared, tasks=("cola",), finish=True)
    assert "shards 0, 2 of 4" in str(caught.value)
    stage_one(shared, tasks=("cola",), only_shards="0::2")
    assert not list(shared.rglob(MANIFEST))
    assert {record["status"] for record in stage_one(shared, tasks=("cola",), finish=True)} == {"finished"}
    assert files_of(shared) == files_of(tmp_path / "cache")
    assert {record["status"] for record in stage_one(shared, tasks=("cola",), finish=True)} == {"present"}


def test_what_nobody_has_begun_is_named(stage_one, tmp_path):
    stage_one(tasks=("cola",))
    with pytest.raises(CacheError, match="nobody has begun it") as caught:
        stage_one(finish=True)
    assert "sst2/" in str(caught.value) and "cola/" not in str(caught.value)


def test_the_array_script_gives_each_job_its_share():
    script = ROOT / "data/examples/slurm_array.sh"
    environment = {**os.environ, "PIPELINE": "echo", "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8"}

    def said(**more: str) -> str:
        run = [str(script), "--tasks", "cola"]
        return subprocess.run(run, env=environment | more, capture_output=True, text=True, check=True).stdout.strip()

    assert said() == "extract --tasks cola --only-shards 5::8"
    assert said(FINISH="1") == "extract --tasks cola --finish"
    assert said(SLURM_ARRAY_TASK_COUNT="1", JOBS="8").endswith("5::8")  # one that is sent again alone
    del environment["SLURM_ARRAY_TASK_COUNT"]
    assert subprocess.run([str(script)], env=environment, capture_output=True).returncode != 0


def test_eight_array_jobs_two_overlapping_and_one_killed(stage_one, tiny_backbone, small_glue, tmp_path):
    """Job 5 is killed, job 2 runs twice at once; the finish names what job 5 owes."""
    asked = {"tasks": ("cola",), "splits": ("train",), "shard_rows": 4, "layers": ("1",), "poolings": ("mean",)}
    cache = tmp_path / "cache"

    def start(share: str):
        words = ["extract", "--tasks", "cola", "--splits", "train", "--shard-rows", "4", "--layers", "1"]
        words += ["--poolings", "mean", "--token-budget", "256", "--glue-dir", str(small_glue)]
        words += ["--backbone", str(tiny_backbone), "--models-dir", "models", "--only-shards", share]
        (tmp_path / (place := f"said-{len(list(tmp_path.glob('said-*')))}")).mkdir()
        process, _ = begin([*words, "--cache-dir", str(cache)], tmp_path, {}, tmp_path / place)
        return process

    stage_one(tmp_path / "alone", **asked)
    numbers = range(len(list((tmp_path / "alone").rglob("shard-*.json"))))
    assert len(numbers) > 13
    killed = start("5::8")
    while not list(cache.glob("*/*/*/*shard-00005*")):
        assert killed.is_alive()
        time.sleep(0.002)
    killed.kill()
    twice = [start("2::8") for _ in range(2)]
    for job in (0, 1, 3, 4, 6, 7):
        stage_one(cache, only_shards=f"{job}::8", **asked)
    for process in (killed, *twice):
        process.join(SECONDS)
    assert [process.exitcode for process in (killed, *twice)] == [-signal.SIGKILL, 0, 0]
    sealed = {path.name for path in cache.rglob("shard-*.json")}
    missing = [number for number in numbers if f"shard-{number:05d}.json" not in sealed]
    assert 13 in missing and set(missing) <= {5, 13}
    with pytest.raises(CacheError, match=f"shards {', '.join(map(str, missing))} of {len(numbers)}"):
        stage_one(cache, finish=True, **asked)
    stage_one(cache, only_shards="5::8", **asked)
    stage_one(cache, finish=True, **asked)
    assert files_of(cache) == files_of(tmp_path / "alone")
