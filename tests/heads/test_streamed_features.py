"""Heads on features of a store, more of them than may stay here: every number as on the same features at hand."""

from dataclasses import replace

import pytest
from cyclopts import UnknownOptionError

from pipeline import cli
from pipeline.cache.remote import Folder
from pipeline.config import CacheConfig, RunsConfig
from pipeline.errors import ConfigError, FeatureSetNotFound
from pipeline.heads.fused import stream
from pipeline.heads.sweep import sweep
from pipeline.heads.train import train_heads
from pipeline.heads_config import SweepConfig
from pipeline.store_config import StoreConfig


class Streamed:
    """A cache, to be read as a store through a folder that holds no more than its largest shard.

    Args:
        cache: where the features are.
        here: the local folder.
    """

    def __init__(self, cache, here) -> None:
        self.here, self.fetched, self.most = here, 0, 0
        shards = [path.stat().st_size for path in cache.cache_dir.rglob("*.h5")]
        self.limit = max(shards)
        self.config = StoreConfig(here, store=str(cache.cache_dir), local_limit=str(self.limit))

    def watch(self, monkeypatch):
        fetch = Folder.fetch

        def watching(place, name, path, size_bytes, advance):
            sha256 = fetch(place, name, path, size_bytes, advance)
            self.fetched += name.endswith(".h5")
            self.most = max(self.most, sum(each.stat().st_size for each in self.here.rglob("*.h5*")))
            return sha256

        monkeypatch.setattr(Folder, "fetch", watching)
        return self


def files(run, runs):
    """What a run stored, but its record."""
    folder = runs.runs_dir / run.run
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


@pytest.mark.parametrize("views", ["L2-mean+L2-last", "L2-tokens"])
def test_heads_on_more_than_may_stay_here_are_the_same_to_the_bit(tokens_cache, config, views, tmp_path, monkeypatch):
    heads, params = (("attention",), ("max_epochs=3",)) if "tokens" in views else (("logreg",), ())
    asked = replace(config, heads=heads, views=(views,), params=params)
    expected = train_heads(asked, tokens_cache, RunsConfig(tmp_path / "at hand"))
    streamed = Streamed(tokens_cache, tmp_path / "here").watch(monkeypatch)
    found = train_heads(asked, streamed.config, RunsConfig(tmp_path / "streamed"))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.scores == theirs.scores
        assert files(ours, RunsConfig(tmp_path / "streamed")) == files(theirs, RunsConfig(tmp_path / "at hand"))
        assert ours.config["store"] == str(tokens_cache.cache_dir)
        assert "store" not in theirs.config
    assert streamed.fetched >= 5 * len(views.split("+"))  # train is three shards, validation and test one each
    assert 0 < streamed.most <= streamed.limit


@pytest.mark.parametrize("held_in_memory", [True, False])
def test_a_sweep_over_more_than_may_stay_here_is_the_same_to_the_bit(cache, tmp_path, monkeypatch, held_in_memory):
    few = SweepConfig(tasks=("cola",), heads=("logreg", "lda"), strengths=(0.1,), seeds=2, side_by_side=0)
    asked = replace(few, views=("all",) if held_in_memory else ("L1-mean",))
    if not held_in_memory:
        monkeypatch.setattr(stream, "MEMORY_SHARE", 0.0)
    [expected] = sweep(asked, cache, RunsConfig(tmp_path / "at hand"))
    streamed = Streamed(cache, tmp_path / "here").watch(monkeypatch)
    [found] = sweep(asked, streamed.config, RunsConfig(tmp_path / "streamed"))
    assert found.standings == expected.standings
    assert found.run.scores == expected.run.scores
    assert 0 < streamed.most <= streamed.limit
    assert streamed.fetched in range(9, 15) if held_in_memory else streamed.fetched > 30  # each pass brings them again


def test_what_a_store_does_not_hold_is_said_with_its_name(cache, config, tmp_path):
    where = StoreConfig(tmp_path, store=str(cache.cache_dir))
    with pytest.raises(FeatureSetNotFound) as caught:
        train_heads(replace(config, views=("L0-mean",)), where, RunsConfig(tmp_path / "runs"))
    assert caught.value.where == str(cache.cache_dir)
    assert f"--store {cache.cache_dir}" in caught.value.remedy


def test_a_limit_without_a_store_and_what_is_no_size_are_refused_together():
    with pytest.raises(ConfigError, match=r"no store is named[\s\S]*'20 bananas'"):
        StoreConfig(local_limit="20 bananas")
    assert StoreConfig().cache_dir == CacheConfig().cache_dir


def test_commands_that_go_through_a_store_take_its_options_and_others_do_not():
    words = ["--store", "s3://bucket/x", "--local-limit", "20GB"]
    for command in (["extract"], ["heads"], ["sweep"], ["joint"], ["baselines"], ["adapt", "lora"]):
        _, bound, _ = cli.app.parse_args([*command, *words], exit_on_error=False, print_error=False)
        assert bound.arguments["cache"] == StoreConfig(store="s3://bucket/x", local_limit="20GB")
    for command in (["cache", "ls"], ["cache", "verify"], ["cache", "push", "there"], ["backbones"], ["report"]):
        with pytest.raises(UnknownOptionError, match="--store"):
            cli.app.parse_args([*command, *words], exit_on_error=False, print_error=False)
