"""A writer killed at any instant leaves nothing that looks whole and is not, and the next one goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from write_shards import ROWS, SHARD_ROWS, hidden_states

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.cache.manifest import MANIFEST, shard_paths
from pipeline.cache.seal import Seal
from pipeline.digests import sha256_of_file
from pipeline.errors import DamagedFeatureSet, FeatureSetNotFound

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("write_shards.py")
KILLS = 6


def start(cache_dir, *arguments):
    """Start the writer and give it when it begins to write."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, cache_dir, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process):
    """Wait for the writer's end; whether it came to its own."""
    rest, _ = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL)
    return rest == "done\n"


def files(cache_dir):
    return {path.relative_to(cache_dir): path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The cache of a writer that nobody killed: its files, and the seconds that the writing took."""
    cache_dir = tmp_path_factory.mktemp("uninterrupted")
    process = start(cache_dir)
    began = time.monotonic()
    assert finish(process)
    return files(cache_dir), time.monotonic() - began


def folder_of(cache_dir):
    [folder] = (cache_dir / "cola" / "train").iterdir()
    return folder


def whole_shards(folder):
    """The numbers of the sealed shards, each checked byte for byte against its seal."""
    numbers = [int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.json")]
    for number in numbers:
        states, index, seal_path = shard_paths(folder, number)
        seal = Seal.read(seal_path)
        assert (sha256_of_file(states), sha256_of_file(index)) == (seal.states_sha256, seal.index_sha256)
    return numbers


def is_right(feature_set):
    assert np.array_equal(feature_set.X, np.stack([hidden_states(row) for row in range(ROWS)]))
    assert feature_set.y.tolist() == [row % 2 for row in range(ROWS)]
    assert feature_set.texts == [f"sentence {row}" for row in range(ROWS)]
    return True


def test_the_uninterrupted_writer_is_right(uninterrupted, tmp_path):
    for path, content in uninterrupted[0].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    assert is_right(FeatureCache(tmp_path).open("cola", "train"))
    assert len(whole_shards(folder_of(tmp_path))) == -(-ROWS // SHARD_ROWS)


def test_killed_again_and_again_it_ends_with_the_same_bytes(uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    instants = random.Random(0)
    killed, before = 0, []
    for _ in range(KILLS):
        process = start(tmp_path)
        time.sleep(instants.uniform(0, seconds / KILLS))
        process.kill()
        came_to_its_end = finish(process)
        folder = folder_of(tmp_path)
        whole = whole_shards(folder)
        assert set(before) <= set(whole)
        if (folder / MANIFEST).exists():
            assert is_right(FeatureCache(tmp_path).open("cola", "train"))
        else:
            assert not came_to_its_end
            killed += 1
            with pytest.raises(FeatureSetNotFound):
                FeatureCache(tmp_path).open("cola", "train")
            with pytest.raises(DamagedFeatureSet):
                FeatureSet(folder)
        before = whole
    assert killed >= KILLS // 2  # otherwise this test did not test
    assert finish(start(tmp_path))
    assert files(tmp_path) == expected


def test_killed_while_it_writes_over_a_whole_set_nothing_wrong_is_read(uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    for path, content in expected.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    instants = random.Random(1)
    for _ in range(2):
        process = start(tmp_path, "again")
        time.sleep(instants.uniform(0, seconds))
        process.kill()
        finish(process)
        whole_shards(folder_of(tmp_path))
        try:
            assert is_right(FeatureCache(tmp_path).open("cola", "train"))
        except DamagedFeatureSet as error:
            assert "seal" in str(error)  # the shard that was being written has none
    assert finish(start(tmp_path))
    assert files(tmp_path) == expected
