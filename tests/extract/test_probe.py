"""How many tokens a batch: probed once on a machine, remembered, and settled with a set's cut."""

import json
from dataclasses import replace

import pytest
import torch

from pipeline.backbone.known import KnownBackbone
from pipeline.cache.manifest import Manifest
from pipeline.errors import CacheError
from pipeline.extract import probe


@pytest.mark.parametrize(
    ("seconds", "budget"),
    [
        ({512: 1.0, 1024: 0.5, 2048: 0.6}, 1024),
        ({512: 0.51, 1024: 0.5, 2048: 0.499}, 512),
        ({512: 1.0, 1024: 0.9, 2048: 0.8}, 2048),
        ({4096: 1.0}, 4096),
    ],
)
def test_the_smallest_that_is_nearly_as_fast_as_the_fastest_is_taken(seconds, budget):
    assert probe.choose(seconds) == budget


@pytest.fixture
def probes(monkeypatch, tmp_path):
    """Counts the probes, which find 512, in a user's cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    counted = []
    honest = probe._seconds_a_token

    def count(engine):
        seconds = honest(engine)
        assert set(seconds) == set(probe.CANDIDATES["cpu"])
        assert all(each > 0 for each in seconds.values())
        counted.append(seconds)
        return {512: 1.0, 1024: 2.0}

    monkeypatch.setattr(probe, "_seconds_a_token", count)
    return counted


def budget_of(records, cache_dir):
    (record,) = records
    return Manifest.read(cache_dir / "cola" / "train" / record["name"]).token_budget


ONE = {"tasks": ("cola",), "splits": ("train",), "layers": ("1",), "poolings": ("mean",)}


def test_it_is_probed_once_and_remembered(stage_one, asked_for, probes, tmp_path, capsys):
    assert budget_of(stage_one(**ONE, token_budget=0), tmp_path / "cache") == 512
    assert "batches of 512 tokens from now on" in capsys.readouterr().err
    assert budget_of(stage_one(tmp_path / "other", **ONE, token_budget=0), tmp_path / "other") == 512
    assert len(probes) == 1
    known = KnownBackbone.find(asked_for()[2])
    assert probe.expected_budget(known, torch.get_num_threads()) == (512, True)
    assert probe.expected_budget(known, 97) == (1024, False)
    assert budget_of(stage_one(tmp_path / "third", **ONE, token_budget=64), tmp_path / "third") == 64
    assert len(probes) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"%s": 0}', '{"%s": "512"}', '{"%s": true}'])
def test_a_memory_that_says_nothing_is_none(stage_one, probes, tmp_path, content):
    stage_one(**ONE, token_budget=0)
    memory = tmp_path / "xdg" / "feature-cache-pipeline" / probe.MEMORY
    (key,) = json.loads(memory.read_text())
    memory.write_text(content.replace("%s", key))
    stage_one(tmp_path / "other", **ONE, token_budget=0)
    assert len(probes) == 2
    assert json.loads(memory.read_text()) == {key: 512}


def test_a_set_that_was_begun_keeps_its_budget(stage_one, probes, tmp_path, monkeypatch):
    [record] = stage_one(**ONE, token_budget=64)
    folder = tmp_path / "cache" / "cola" / "train" / record["name"]
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".h5", ".parquet", ".json")}
    for name in ("manifest.json", "shard-00001.json"):
        (folder / name).unlink()
    stage_one(**ONE, token_budget=0)
    assert not probes
    assert whole == {name: (folder / name).read_bytes() for name in whole}


def test_a_single_shard_that_is_damaged_is_written_again_to_the_last_byte(stage_one, tmp_path):
    [record] = stage_one(**ONE, token_budget=64, shard_rows=4096)
    folder = tmp_path / "cache" / "cola" / "train" / record["name"]
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".h5", ".parquet", ".json")}
    states = folder / "shard-00000.h5"
    states.write_bytes(whole[states.name][:-1] + bytes([whole[states.name][-1] ^ 1]))
    stage_one(**ONE, token_budget=1024, shard_rows=4096, verify=True)
    assert whole == {name: (folder / name).read_bytes() for name in whole}


def test_of_two_that_begin_at_once_the_second_takes_the_firsts_budget(corpus_writer, tmp_path):
    first, second = corpus_writer(tmp_path), corpus_writer(tmp_path)
    mine, other = replace(first.cut, token_budget=512), replace(first.cut, token_budget=1024)
    assert first.cut_as(mine).keep_cut(timeout=0.0).cut == mine
    assert second.cut_as(other).keep_cut(timeout=0.0, any_budget=True).cut == mine
    with pytest.raises(CacheError, match="cuts this feature set into other shards"):
        second.cut_as(other).keep_cut(timeout=0.0)
    with pytest.raises(CacheError, match="cuts this feature set into other shards"):
        second.cut_as(replace(other, shard_rows=3)).keep_cut(timeout=0.0, any_budget=True)


@pytest.fixture
def corpus_writer():
    from tests.cache.small_corpus import Corpus

    return lambda cache_dir: Corpus().writer(cache_dir)
