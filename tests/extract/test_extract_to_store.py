"""Stage one that writes to a store, killed and run again, and heads that read from there."""

import time

import pytest
from stored_files import files_of

from pipeline.cache import FeatureCache
from pipeline.cache.upload import Upload
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.heads.train import train_heads
from pipeline.store_config import StoreConfig
from tests import forked

HEADS = HeadsConfig(tasks=("cola",), heads=("logreg",), views=("L2-mean",), held_out=0.2)


def files_there(client):
    """Every object of the bucket that is not the log of passes, by its name below the store, with its bytes."""
    keys = [each["Key"] for each in client.list_objects_v2(Bucket="features").get("Contents", [])]
    found = {key: client.get_object(Bucket="features", Key=key)["Body"].read() for key in sorted(keys)}
    return {key.removeprefix("some/"): body for key, body in found.items() if not key.endswith("passes.jsonl")}


def states_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.h5"))


def test_killed_while_it_writes_to_s3_it_goes_on_and_heads_read_from_there(
    tiny_backbone, small_glue, with_s3, tmp_path
):
    command = ["extract", "--tasks", "cola", "--splits", "train", "validation", "--layers", "2", "--poolings", "mean"]
    command += ["--backbone", str(tiny_backbone), "--glue-dir", str(small_glue), "--models-dir", str(tmp_path / "m")]
    command += ["--shard-rows", "8", "--token-budget", "64", "--threads", "1"]
    store = ["--cache-dir", str(tmp_path / "here"), "--store", "s3://features/some", "--local-limit", "10kB"]
    whole = forked.pipeline([*command, "--cache-dir", str(tmp_path / "whole")], tmp_path, {})
    assert whole.returncode == 0, whole.stderr
    expected = files_of(tmp_path / "whole")
    killed = 0
    for seals in (1, 4, 7):
        process, _ = forked.begin([*command, *store], tmp_path, {}, tmp_path)
        while process.is_alive() and sum(name.endswith("h5") for name in files_there(with_s3)) <= seals:
            time.sleep(0.005)
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        there = files_there(with_s3)
        assert there.items() <= expected.items()  # every object has the bytes of the uninterrupted run
        for name in there:
            if name.endswith("manifest.json"):
                folder = name.rpartition("/")[0]
                assert {each for each in there if each.startswith(folder)} == {
                    each for each in expected if each.startswith(folder)
                }
    assert killed
    done = forked.pipeline([*command, *store], tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert "shards are whole already" in done.stderr
    assert files_there(with_s3) == expected
    largest = max(len(content) for name, content in expected.items() if name.endswith(".h5"))
    assert states_bytes(tmp_path / "here") <= 10_000 < largest * 8
    config = StoreConfig(tmp_path / "elsewhere", store="s3://features/some", local_limit="10kB")
    asked = HeadsConfig(**{**HEADS.__dict__, "backbone": str(tiny_backbone)})
    [run] = train_heads(asked, config, RunsConfig(tmp_path / "runs"))
    [same] = train_heads(asked, CacheConfig(tmp_path / "whole"), RunsConfig(tmp_path / "runs"))
    assert run.scores == same.scores
    assert states_bytes(tmp_path / "elsewhere") <= 10_000


def test_what_stands_at_the_store_is_not_computed_again_on_another_machine(stage_one, tmp_path, monkeypatch):
    store = {"store": str(tmp_path / "there"), "local_limit": "1"}
    views = {"tasks": ("cola",), "splits": ("train",), "layers": ("2",)}
    stage_one(tmp_path / "whole", **views)
    assert {record["status"] for record in stage_one(tmp_path / "one", **views, **store)} == {"written"}
    assert files_of(tmp_path / "there") == files_of(tmp_path / "whole")
    assert states_bytes(tmp_path / "one") == 0
    assert not list((tmp_path / "one").glob("*/*/*/manifest.json"))  # nothing that the cache's folder would list
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the model was loaded"))
    assert {record["status"] for record in stage_one(tmp_path / "two", **views, **store)} == {"present"}
    assert states_bytes(tmp_path / "two") == 0
    features = FeatureCache(tmp_path / "two", store=store["store"]).open("cola", "train", layer=2, pooling="mean")
    assert len(features.X) == 60


def test_a_disk_that_has_room_for_the_limit_has_room_enough(stage_one, tmp_path, monkeypatch):
    class Usage:
        free = 300_000

    monkeypatch.setattr("pipeline.extract.preflight.shutil.disk_usage", lambda path: Usage)
    views = {"tasks": ("cola",), "splits": ("train",), "layers": ("all",), "storage_dtype": "float32"}
    with pytest.raises(Exception, match="no room for these features"):
        stage_one(tmp_path / "here", **views)
    store = {"store": str(tmp_path / "there"), "local_limit": "20kB"}
    assert {record["status"] for record in stage_one(tmp_path / "here", **views, **store)} == {"written"}


def test_without_a_store_there_is_no_upload(tmp_path):
    assert Upload.of(CacheConfig(tmp_path)) is None
    assert Upload.of(StoreConfig(tmp_path)) is None
