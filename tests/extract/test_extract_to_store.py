"""Stage one that writes to a store, killed and run again, and heads that read from there."""

import os
import time
from datetime import UTC, datetime

import pytest
from stored_files import files_of

from pipeline.cache import FeatureCache
from pipeline.cache.upload import Upload
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.heads.train import train_heads
from pipeline.store_config import StoreConfig
from tests import forked

HEADS = HeadsConfig(tasks=("cola",), heads=("logreg",), views=("L2-mean",), held_out=0.2)


def listed(client):
    """When every object of the bucket that is not the log of passes was written, by its name below the store."""
    entries = client.list_objects_v2(Bucket="features").get("Contents", [])
    found = {each["Key"].removeprefix("some/"): each["LastModified"] for each in entries}
    return {name: when for name, when in found.items() if not name.endswith("passes.jsonl")}


def files_there(client):
    """The same objects with their bytes."""
    return {name: client.get_object(Bucket="features", Key=f"some/{name}")["Body"].read() for name in listed(client)}


def states_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.h5"))


@pytest.mark.slow
def test_killed_while_it_writes_to_s3_it_goes_on_and_heads_read_from_there(
    tiny_backbone, small_glue, with_s3, tmp_path
):
    command = ["extract", "--tasks", "cola", "--splits", "train", "validation", "--layers", "2", "--poolings", "mean"]
    command += ["--backbone", str(tiny_backbone), "--glue-dir", str(small_glue), "--models-dir", str(tmp_path / "m")]
    command += ["--shard-rows", "8", "--token-budget", "64", "--threads", "1"]
    store = ["--cache-dir", str(tmp_path / "here"), "--store", "s3://features/some", "--local-limit", "30kB"]
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    whole = forked.pipeline([*command, "--cache-dir", str(tmp_path / "whole")], tmp_path, {})
    assert whole.returncode == 0, whole.stderr
    expected = files_of(tmp_path / "whole")
    process, _ = forked.begin([*command, *store], tmp_path, credentials, tmp_path)
    while process.is_alive() and sum(name.endswith(".h5") for name in listed(with_s3)) < 3:
        time.sleep(0.02)
    process.kill()
    process.join()
    before, there = listed(with_s3), files_there(with_s3)
    assert 3 <= sum(name.endswith(".h5") for name in there) < 11  # it was stopped on its way
    assert there.items() <= expected.items()  # every object has the bytes of the uninterrupted run
    assert not [name for name in there if name.endswith("manifest.json")]
    time.sleep(max(0.0, 1.01 - (datetime.now(UTC) - max(before.values())).total_seconds()))
    done = forked.pipeline([*command, *store], tmp_path, credentials)
    assert done.returncode == 0, done.stderr
    assert files_there(with_s3) == expected
    assert before.items() <= listed(with_s3).items()  # what stood there was not written again
    largest = max(len(content) for name, content in expected.items() if name.endswith(".h5"))
    assert states_bytes(tmp_path / "here") <= 30_000 < 12 * largest
    config = StoreConfig(tmp_path / "elsewhere", store="s3://features/some", local_limit="30kB")
    asked = HeadsConfig(**{**HEADS.__dict__, "backbone": str(tiny_backbone)})
    [run] = train_heads(asked, config, RunsConfig(tmp_path / "runs"))
    [same] = train_heads(asked, CacheConfig(tmp_path / "whole"), RunsConfig(tmp_path / "runs"))
    assert run.scores == same.scores
    assert states_bytes(tmp_path / "elsewhere") <= 30_000


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
