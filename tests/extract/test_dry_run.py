"""Stage one planned: nothing is written, what is counted is what a run then does, what is estimated covers it."""

import io
import json
import shutil
import sys
from collections import namedtuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.cache import FeatureCache
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.passes import PASSES, read_passes
from pipeline.config import BackboneConfig
from pipeline.engine_config import PlanConfig
from pipeline.errors import BackboneError, ConfigError
from pipeline.extract.dry_run import plan_extract
from pipeline.extract.forecast import Sampling
from pipeline.extract.plan_table import plan_tables

SAMPLED = Sampling(counted_rows=500, blocks=24, block_rows=16, planned_rows=6 * 128)


@pytest.fixture(autouse=True)
def own_memory(monkeypatch, tmp_path):
    """A user's cache of its own, where what was measured of files is noted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-notes"))


@pytest.fixture
def planned(asked_for):
    """Plan stage one on the tiny backbone, with any setting changed; nothing is loaded, and nothing locked."""

    def plan(*cache_dir, sampling=Sampling(), speed=None, **changed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "bitsandbytes", None)
            patch.setattr(
                "pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the weights were loaded")
            )
            patch.setattr(FeatureSetLock, "try_hold", lambda *a, **k: pytest.fail("something was locked"))
            config = PlanConfig(dry_run=True, tokens_per_second=speed)
            return plan_extract(*asked_for(*cache_dir, **changed), config, sampling)

    return plan


def snapshot(folder):
    """Everything below a folder, with its bytes and when it was changed."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def passes_of(cache_dir):
    """Every pass that computed a shard, once."""
    return {each["pass"]: each for path in cache_dir.rglob(PASSES) for each in read_passes(path.parent)}.values()


def raw_bytes(cache_dir, task, split, view):
    features = FeatureCache(cache_dir).open(task, split, layer=int(view[1]), pooling=view[3:])
    return sum(shard.hidden_states.nbytes for shard in features.shards)


EVERY = {"layers": ("1", "-1"), "poolings": ("mean", "tokens")}


@pytest.mark.parametrize(("order", "storage_dtype"), [("split", "float32"), ("tokens", "bfloat16")])
def test_what_is_counted_is_what_a_run_then_does(stage_one, planned, tmp_path, order, storage_dtype):
    asked = {**EVERY, "order": order, "storage_dtype": storage_dtype, "tasks": ("cola",)}
    plan = planned(**asked)
    records = {(each["task"], each["split"]): each for each in stage_one(**asked)}
    cache = tmp_path / "cache"
    for line in plan.to_dict()["splits"]:
        task, split = line["task"], line["split"]
        assert line["rows"] == line["rows_left"] == line["rows_looked_at"] == records[task, split]["rows"]
        assert line["shards"] == line["shards_left"] == -(-line["rows"] // 16)
        assert line["tokens"] == records[task, split]["tokens"]
        assert line["computed_tokens"] == sum(each["computed_tokens"] for each in passes_of(cache / task / split))
        assert (
            line["own_tokens"] * 64 * (4 if storage_dtype == "float32" else 2) == line["raw_bytes_by_view"]["L1-tokens"]
        )
        assert {line[f"{name}_error"] for name in ("tokens", "own_tokens", "computed_tokens", "raw_bytes")} == {0}
        for view, size_bytes in line["raw_bytes_by_view"].items():
            assert size_bytes == raw_bytes(cache, task, split, view)
        assert len(line["raw_bytes_by_view"]) == line["views"] == 4
    written = sum(path.stat().st_size for path in cache.rglob("shard-*"))
    total = plan.total.to_dict()
    assert total["raw_bytes"] < written <= total["raw_bytes"] + total["beside_bytes"] + 50_000
    assert plan.disk.needed_bytes.value == total["raw_bytes"] + total["beside_bytes"]


def test_nothing_is_written_and_no_folder_made(planned, tmp_path, tiny_backbone):
    backbone = tmp_path / "moved" / "tiny"
    shutil.copytree(tiny_backbone, backbone)
    asked = {"backbone": str(backbone), "verify": True, "store": str(tmp_path / "there")}
    before = snapshot(tmp_path)
    planned(**asked)
    planned(tmp_path / "a" / "b", backbone=str(backbone))
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "cache").exists()


def test_shards_that_are_whole_are_not_counted_again(stage_one, planned, tmp_path):
    asked = {"tasks": ("cola",), "splits": ("train",)}
    whole = planned(**asked)
    stage_one(only_shards="0::3", **asked)
    done = {each["shard"]: each for each in passes_of(tmp_path / "cache")}
    before = snapshot(tmp_path)
    left = planned(**asked)
    assert snapshot(tmp_path) == before
    [line] = left.to_dict()["splits"]
    assert (line["shards"], line["whole_shards"], line["shards_left"]) == (4, 2, 2)
    assert line["rows_left"] == 60 - sum(each["rows"] for each in done.values())
    assert line["computed_tokens"] == whole.total.computed_tokens.value - sum(
        each["computed_tokens"] for each in done.values()
    )
    assert planned(only_shards="1::3", **asked).total.shards == 1
    assert planned(only_shards="0::3", **asked).total.shards == 0
    stage_one(**asked)
    nothing = planned(**asked)
    assert nothing.total.to_dict() | {"seconds": 0, "device_hours": 0} == nothing.total.to_dict()
    assert (nothing.total.rows, nothing.splits[0].whole_shards, nothing.splits[0].whole_views) == (0, 4, 4)


def test_a_view_added_later_is_all_that_is_left(stage_one, planned):
    asked = {"tasks": ("cola",), "splits": ("train",)}
    stage_one(layers=("1",), poolings=("mean",), **asked)
    plan = planned(layers=("1", "2"), poolings=("mean",), **asked)
    assert set(plan.total.view_bytes) == {"L2-mean"}
    assert (plan.splits[0].views, plan.splits[0].whole_views, plan.total.rows) == (2, 1, 60)


def test_a_damaged_shard_counts_as_work(stage_one, planned, tmp_path):
    asked = {"tasks": ("cola",), "splits": ("train",)}
    stage_one(**asked)
    path = next(iter((tmp_path / "cache").rglob("shard-00001.h5")))
    path.write_bytes(path.read_bytes()[:-1])
    before = snapshot(tmp_path)
    plan = planned(**asked)
    assert (plan.total.shards, plan.total.rows, len(plan.total.view_bytes)) == (1, 16, 1)
    assert snapshot(tmp_path) == before


def test_what_stands_at_a_store_is_whole_and_neither_end_is_touched(stage_one, planned, tmp_path):
    store = {"store": str(tmp_path / "there"), "local_limit": "30kB"}
    asked = {"tasks": ("cola",), "splits": ("train",), **store}
    stage_one(tmp_path / "one", only_shards="1::2", **asked)
    before = snapshot(tmp_path)
    elsewhere, here = planned(tmp_path / "two", **asked), planned(tmp_path / "one", **asked)
    assert snapshot(tmp_path) == before
    for plan in (elsewhere, here):
        assert (plan.splits[0].shards, plan.splits[0].whole_shards, plan.total.rows) == (4, 2, 32)
    assert here.speed is not None
    assert elsewhere.disk.needed_bytes.value < elsewhere.total.raw_bytes.value + elsewhere.total.beside_bytes.value
    stage_one(tmp_path / "one", **asked)
    assert planned(tmp_path / "three", **asked).total.shards == 0


WORDS = [f"w{number:02d}" for number in range(40)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A stream whose rows grow longer from one end to the other, in lumps, and of which neighbours begin alike."""
    folder, random = tmp_path_factory.mktemp("corpus"), np.random.default_rng(3)
    texts = []
    for lump in range(80):
        begins = " ".join(random.choice(WORDS, 1 + lump // 20))
        lengths = random.poisson(2 + lump / 10 + 4 * random.random(), 40)
        texts += [f"{begins} {' '.join(random.choice(WORDS, length + 1))}" for length in lengths]
    pq.write_table(
        pa.table({"sentence": texts, "label": [0] * len(texts)}), folder / "train.parquet", row_group_size=100
    )
    return folder


def covers(estimate, truth):
    return abs(estimate.value - truth.value) <= estimate.error


@pytest.mark.parametrize("stream", [True, False])
def test_an_estimate_covers_what_is_counted(planned, corpus, stream):
    asked = {"data": str(corpus), "stream": stream, "tasks": ("cola",), "splits": ("train",), "shard_rows": 128}
    asked |= {"poolings": ("mean", "tokens")}
    truth = planned(**asked).total
    assert (truth.rows, truth.looked_at, truth.computed_tokens.error) == (3200, 3200, 0)
    estimated = [planned(sampling=Sampling(**{**SAMPLED.__dict__, "seed": seed}), **asked) for seed in range(3)]
    for plan in estimated:
        total = plan.total
        assert total.looked_at == 24 * 16 + 6 * 128
        assert (total.rows, total.shards) == (truth.rows, truth.shards)
        for name in ("tokens", "own_tokens", "computed_tokens", "raw_bytes"):
            found, true = getattr(total, name), getattr(truth, name)
            assert covers(found, true), name
            assert 0 < found.error < 0.25 * true.value
        assert total.view_bytes["L1-mean"] == truth.view_bytes["L1-mean"]
        assert covers(total.beside_bytes, truth.beside_bytes)
    assert len({plan.total.tokens.value for plan in estimated}) == 3


def test_rows_in_memory_that_are_ordered_are_estimated_so(planned, tmp_path):
    """Rows that begin alike stand far apart: ordered, they meet, and far less is computed."""
    random = np.random.default_rng(0)
    beginnings = [" ".join(random.choice(WORDS, 12)) for _ in range(40)]
    texts = [f"{beginnings[row % 40]} {random.choice(WORDS)} {row}" for row in range(1200)]
    (tmp_path / "own").mkdir()
    pq.write_table(pa.table({"sentence": texts, "label": [0] * len(texts)}), tmp_path / "own" / "train.parquet")
    asked = {"data": str(tmp_path / "own"), "tasks": ("cola",), "splits": ("train",), "shard_rows": 40}
    truth, as_it_stands = planned(**asked).total, planned(order="split", **asked).total
    assert truth.computed_tokens.value < 0.6 * as_it_stands.computed_tokens.value
    plan = planned(sampling=Sampling(counted_rows=500, blocks=24, block_rows=8, planned_rows=400), **asked)
    assert abs(plan.total.computed_tokens.value / truth.computed_tokens.value - 1) < 0.1
    assert any("ordered by their words" in note for note in plan.notes)


def test_the_speed_is_that_of_the_passes_that_are_there(stage_one, planned, tmp_path):
    assert planned().speed is None
    assert planned().total.seconds is None
    stage_one(tasks=("cola",), splits=("train",))
    before = snapshot(tmp_path)
    plan = planned(tasks=("sst2",))
    assert snapshot(tmp_path) == before
    passes = passes_of(tmp_path / "cache")
    computed, seconds = (sum(each[name] for each in passes) for name in ("computed_tokens", "seconds"))
    assert (plan.speed.passes, plan.speed.blocks) == (4, 2)
    assert plan.speed.tokens_per_second == pytest.approx(computed / seconds)
    assert next(iter(passes))["host"] in plan.speed.where
    total = plan.total.to_dict()
    assert total["seconds"] == pytest.approx(total["computed_tokens"] / plan.speed.tokens_per_second)
    assert total["device_hours"] == pytest.approx(total["seconds"] / 3600)
    assert sum(each["seconds"] for each in plan.to_dict()["splits"]) == pytest.approx(total["seconds"])
    lower = planned(tasks=("sst2",), layers=("1",))
    assert lower.total.computed_tokens == plan.total.computed_tokens
    assert lower.total.seconds.value == pytest.approx(total["seconds"] / 2)
    for other in ({"quantization": "none"}, {"compute_dtype": "bfloat16"}, {"device": "cuda"}):
        assert planned(tasks=("sst2",), **other).speed is None
    begun = planned(tmp_path / "other", tasks=("cola",))
    assert begun.speed is None


def test_the_passes_of_a_set_that_is_begun_tell_its_speed(stage_one, planned):
    asked = {"tasks": ("cola",), "splits": ("train",)}
    stage_one(only_shards="0::4", **asked)
    assert planned(**asked).speed.passes == 1


def test_a_speed_that_is_given_is_of_each_worker(planned, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    asked = {"tasks": ("cola",), "splits": ("train",), "layers": ("1",)}
    one = planned(speed=100.0, **asked)
    assert one.total.seconds.value == pytest.approx(one.total.computed_tokens.value / 100)
    many = planned(speed=100.0, engine="ray", workers=2, address="10.0.0.1:6379", **asked)
    assert many.total.seconds.value == pytest.approx(one.total.seconds.value / 2)
    assert many.total.device_seconds == one.total.device_seconds
    more = planned(speed=100.0, engine="ray", workers=50, **asked)  # than there are shards
    assert more.total.seconds.value == pytest.approx(one.total.seconds.value / 4)
    assert any("--workers" in note for note in planned(engine="ray", **asked).notes)


def test_weights_and_a_gpu_are_not_needed(planned, tiny_backbone, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_backbone, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    asked = {"tasks": ("cola",), "splits": ("train",)}
    plan, with_weights = planned(backbone=str(bare), device="cuda", **asked), planned(**asked)
    assert plan.total.computed_tokens == with_weights.total.computed_tokens
    assert 2 * plan.total.raw_bytes.value == with_weights.total.raw_bytes.value  # bfloat16, as on CUDA
    assert any("weights are not here" in note for note in plan.notes)
    assert not any("weights are not here" in note for note in with_weights.notes)
    with pytest.raises(BackboneError, match="no device"):
        planned(device="abacus")


def test_of_the_hub_no_weights_are_fetched(planned, tiny_backbone, tmp_path, monkeypatch):
    import huggingface_hub

    commit = "c" * 40
    snapshot_folder = tmp_path / "models--org--tiny" / "snapshots" / commit
    asked = []

    def fetch(hub_id, *, ignore_patterns, **_):
        asked.extend(ignore_patterns)
        shutil.copytree(tiny_backbone, snapshot_folder, ignore=shutil.ignore_patterns(*ignore_patterns[-1:]))
        return str(snapshot_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    plan = planned(backbone="org/tiny", tasks=("cola",), splits=("train",))
    assert "*.safetensors" in asked
    assert not list(snapshot_folder.glob("*.safetensors"))
    assert plan.total.rows == 60
    assert not any("weights" in note for note in plan.notes)  # known by the commit


@pytest.mark.slow
def test_the_embedded_backbone_is_not_converted(planned, tmp_path):
    models = tmp_path / "models"
    plan = planned(backbone=BackboneConfig().backbone, models_dir=models, tasks=("cola",), splits=("test",))
    assert plan.total.rows == 10
    assert not models.exists()


def test_a_disk_without_room_is_said_and_raises_nothing(planned, monkeypatch):
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    plan = planned()
    assert not plan.disk.fits
    assert "there is no room" in as_text(plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9))
    assert planned().disk.fits


def as_text(plan, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(plan_tables(plan))
    return console.export_text()


def test_a_terminal_of_80_columns_shows_every_number(planned, corpus):
    asked = {"data": str(corpus), "stream": True, "tasks": ("cola",), "splits": ("train",), "shard_rows": 128}
    text = as_text(planned(sampling=SAMPLED, speed=50.0, **asked))
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in (
        "rows",
        "shards",
        "tokens",
        "own tokens",
        "computed",
        "hidden states",
        "index",
        "time",
        "machine hours",
    ):
        assert f" {name} " in text
    for said in ("3,200", "±", "L1-mean", "rows looked at: 1,152 of 3,200", "50 computed tokens/s, as given", "min"):
        assert said in text
    assert "left out" not in text


def test_the_command_prints_records_and_refuses_what_is_no_plan(
    tiny_backbone, small_glue, tmp_path, monkeypatch, capsys
):
    from pipeline import cli

    def command(*words):
        common = ("extract", "--backbone", tiny_backbone, "--glue-dir", small_glue, "--cache-dir", tmp_path / "cache")
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, (*common, "--tasks", "cola", *words))])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    code, out, _ = command("--dry-run", "--json", "--layers", "1", "--poolings", "mean", "--tokens-per-second", "10")
    assert code == 0
    record = json.loads(out)
    assert [each["split"] for each in record["splits"]] == ["train", "validation", "test"]
    assert record["total"]["rows_left"] == 100
    assert record["speed"]["tokens_per_second"] == 10
    assert record["total"]["raw_bytes_by_view"] == {"L1-mean": 100 * 64 * 4}
    code, out, _ = command("--dry-run")
    assert code == 0
    assert "no speed is known" in out
    assert not (tmp_path / "cache").exists()
    for words, said in (
        (("--tokens-per-second", "10"), "it is of --dry-run"),
        (("--dry-run", "--tokens-per-second", "0"), "above 0"),
        (("--dry-run", "--finish"), "--finish computes nothing"),
    ):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert said in err
    with pytest.raises(ConfigError):
        PlanConfig(tokens_per_second=1.0)
