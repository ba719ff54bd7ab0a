"""Stage one end to end on a tiny real backbone: right values, right rows, resumed after SIGKILL, found again."""

import json
import random
import time

import numpy as np
import pytest
import torch
from stored_files import files_of

from pipeline.cache import FeatureCache
from pipeline.errors import CacheError, ConfigError
from pipeline.tasks.spec import COLA, SST2
from tests import forked


def reference(tiny_backbone, prompt, text, layer, pooling):
    """One unpadded sentence through transformers' own forward pass of the same NF4 weights."""
    from transformers import AutoModel, AutoTokenizer

    from pipeline.backbone.quantize import bitsandbytes_config, dequantize_once

    packed = bitsandbytes_config("nf4", torch.float32)
    model = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32, quantization_config=packed).eval()
    dequantize_once(model, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    encoded = tokenizer(prompt.replace("{}", text), return_offsets_mapping=True, return_tensors="pt")
    before = prompt.index("{}")
    spans = encoded.pop("offset_mapping")[0].tolist()
    own = [i for i, (left, right) in enumerate(spans) if right > before and left < before + len(text)]
    with torch.inference_mode():
        states = model(**encoded, output_hidden_states=True, use_cache=False).hidden_states[layer][0]
    return {"last": states[-1], "mean": states[own].mean(0), "first": states[own[0]], "tokens": states[own[0] :]}[
        pooling
    ]


AROUND = "Review: {}\nSentiment:"


@pytest.mark.parametrize(("task", "prompt"), [(COLA, COLA.prompt), (SST2, AROUND)], ids=["before", "around"])
def test_every_view_equals_an_unpadded_forward_pass_of_the_same_weights(
    stage_one, tiny_backbone, tmp_path, task, prompt
):
    every = {"layers": ("0", "1", "-1"), "poolings": ("last", "mean", "first", "tokens")}
    stage_one(tasks=(task.name,), prompt=prompt, **every)
    rows = np.random.default_rng(0).choice(30, 5, replace=False)
    for layer in (0, 1, 2):
        for pooling in ("last", "mean", "first", "tokens"):
            features = FeatureCache(tmp_path / "cache").open(task.name, "validation", layer=layer, pooling=pooling)
            for row in rows:
                found = features.tokens(row) if pooling == "tokens" else features.X[row]
                expected = reference(tiny_backbone, prompt, features.texts[row], layer, pooling).numpy()
                assert found.shape == expected.shape
                assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


def test_rows_stand_in_data_set_order_with_their_labels_and_tokens(stage_one, tmp_path, small_glue):
    stage_one(tasks=("cola",))
    features = FeatureCache(tmp_path / "cache").open("cola", "train", layer=-1, pooling="mean")
    lines = [line.split("\t") for line in (small_glue / "CoLA" / "train.tsv").read_text("utf-8").splitlines()]
    assert features.texts == [line[3] for line in lines]
    assert features.y.tolist() == [int(line[1]) for line in lines]
    assert features.index["source"].to_pylist() == [line[0] for line in lines]
    assert (features.index["n_pooled"].to_numpy() < features.index["n_tokens"].to_numpy()).all()


def test_the_prompts_own_tokens_never_enter_the_mean(stage_one, tiny_backbone, tmp_path):
    stage_one(tasks=("sst2",), splits=("test",), layers=("-1",), poolings=("mean", "tokens"), prompt=AROUND)
    cache = FeatureCache(tmp_path / "cache")
    mean, tokens = (cache.open("sst2", "test", layer=-1, pooling=p) for p in ("mean", "tokens"))
    for row in range(len(mean)):
        own = mean.index["n_pooled"][row].as_py()
        assert len(tokens.tokens(row)) > own  # what follows the sentence is kept in `tokens`, and not in the mean
        assert np.allclose(mean.X[row], tokens.tokens(row)[:own].mean(0), atol=1e-5)


def test_what_is_there_is_found_without_loading_the_model(stage_one, monkeypatch):
    first = stage_one()
    assert {record["status"] for record in first} == {"written"}
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the model was loaded"))
    monkeypatch.setattr("pipeline.extract.run.load_tokenizer", lambda *a, **k: pytest.fail("it was tokenised again"))
    second = stage_one()
    assert {record["status"] for record in second} == {"present"}
    assert [record["fingerprint"] for record in second] == [record["fingerprint"] for record in first]


@pytest.mark.parametrize(
    "changed",
    [
        {"quantization": "none"}, {"compute_dtype": "bfloat16"}, {"storage_dtype": "float16"}, {"max_length": 200},
        {"truncation": True}, {"prompt": "{}"}, {"special_tokens": False},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_another_setting_is_another_feature_set(stage_one, changed):
    before = {record["fingerprint"] for record in stage_one(tasks=("cola",), splits=("test",))}
    after = stage_one(tasks=("cola",), splits=("test",), **changed)
    assert {record["status"] for record in after} == {"written"}
    assert before.isdisjoint(record["fingerprint"] for record in after)


def test_a_view_added_later_is_the_one_that_a_single_pass_would_write(stage_one, tmp_path):
    stage_one(tasks=("cola",), layers=("1",), poolings=("mean",))
    stage_one(tasks=("cola",), layers=("1", "2"), poolings=("mean",))
    stage_one(tmp_path / "at-once", tasks=("cola",), layers=("1", "2"), poolings=("mean",))
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "at-once")


def test_the_size_of_batches_does_not_change_float32_features(stage_one, tmp_path):
    stage_one(tasks=("cola",), splits=("train",))
    stage_one(tmp_path / "single", tasks=("cola",), splits=("train",), token_budget=1)
    first, second = (
        FeatureCache(tmp_path / n).open("cola", "train", layer=-1, pooling="mean").X for n in ("cache", "single")
    )
    assert np.abs(first - second).max() < 1e-4 * np.abs(first).max()


@pytest.mark.slow
def test_killed_at_any_instant_and_run_again_gives_the_same_bytes(tiny_backbone, small_glue, tmp_path):
    """SIGKILL, again and again, at random instants of stage one: then one run to the end."""

    views = ("--layers", "1", "-1", "--poolings", "mean", "tokens")
    places = ("--backbone", tiny_backbone, "--glue-dir", small_glue, "--models-dir", tmp_path / "models")
    cut = ("--shard-rows", "4", "--token-budget", "64", "--threads", "1")
    command = [str(word) for word in ("extract", *views, *places, *cut)]

    def whole(cache):
        done = forked.pipeline([*command, "--cache-dir", str(cache)], tmp_path, {})
        assert done.returncode == 0, done.stderr
        return done.stderr

    whole(tmp_path / "whole")
    draw = random.Random(5)
    kills = 0
    killed = tmp_path / "killed"
    while kills < 3:
        process, _ = forked.begin([*command, "--cache-dir", str(killed)], tmp_path, {}, tmp_path)
        sealed = len(list(killed.rglob("shard-*.json")))
        while process.is_alive() and len(list(killed.rglob("shard-*.json"))) <= sealed:
            time.sleep(0.005)  # until it has got somewhere
        time.sleep(draw.random() * 0.15)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        manifests = list(killed.rglob("manifest.json"))
        for manifest in manifests:  # what looks whole is whole
            from pipeline.cache import FeatureSet

            assert len(FeatureSet(manifest.parent).index) == json.loads(manifest.read_text())["rows"]
        if len(manifests) == len(list((tmp_path / "whole").rglob("manifest.json"))):
            break
    assert kills >= 2
    assert "are whole already" in whole(killed) or kills == 0
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_a_damaged_shard_is_said_and_computed_again(stage_one, tmp_path, capsys):
    stage_one(tasks=("cola",))
    whole = files_of(tmp_path / "cache")
    path = next((tmp_path / "cache" / "cola" / "train").rglob("shard-00001.h5"))
    path.write_bytes(path.read_bytes()[:-100])
    records = stage_one(tasks=("cola",))
    assert sorted({record["status"] for record in records}) == ["present", "resumed"]
    assert "shard-00001.h5" in capsys.readouterr().err
    assert files_of(tmp_path / "cache") == whole


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_storage_dtypes_hold_the_float32_values_rounded(stage_one, tmp_path, dtype):
    stage_one(tasks=("cola",), splits=("test",))
    stage_one(tasks=("cola",), splits=("test",), storage_dtype=dtype)
    cache = FeatureCache(tmp_path / "cache")
    wide, narrow = (
        cache.open("cola", "test", layer=-1, pooling="mean", identity={"storage_dtype": name})
        for name in ("float32", dtype)
    )
    expected = torch.from_numpy(np.array(wide.X)).to(getattr(torch, dtype))
    assert torch.equal(narrow.to_torch(), expected)


def test_float16_is_refused_where_a_value_does_not_fit():
    from pipeline.extract.shard_pass import to_shard_data

    states = torch.tensor([[1.0, 70000.0]])
    with pytest.raises(CacheError, match=r"float16 cannot hold(.|\n)*70000(.|\n)*--storage-dtype"):
        to_shard_data(states, "mean", "float16", where="here")
    assert to_shard_data(states, "mean", "float32", where="here").hidden_states[0, 1] == 70000.0


def test_truncation_is_counted_in_the_result_and_the_manifest(stage_one, capsys):
    records = stage_one(tasks=("cola",), splits=("train",), max_length=200, truncation=True, prompt="Say: {}")
    assert {record["truncated"] for record in records} == {0}
    records = stage_one(tasks=("cola",), splits=("train",), max_length=16, truncation=True, prompt="Say: {}")
    assert len({record["truncated"] for record in records}) == 1
    assert 0 < records[0]["truncated"] < 60
    assert f"{records[0]['truncated']} of 60 sentences cut to 16 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": ("9",)}, "no such layer"), ({"layers": ("x",)}, "not a number"),
        ({"poolings": ("max",)}, "no such pooling"),
        ({"tasks": ("mnli",)}, "no such task"), ({"max_length": 100000}, "beyond what the backbone was made for"),
    ],
    ids=["layer", "layer-text", "pooling", "task", "length"],
)  # fmt: skip
def test_what_does_not_exist_is_refused_before_anything_is_written(stage_one, tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        stage_one(**changed)
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_all_layers_are_all_layers(stage_one):
    records = stage_one(tasks=("cola",), splits=("test",), layers=("all",), poolings=("last",))
    assert [record["name"].split("-")[3] for record in records] == ["L0", "L1", "L2"]


def test_shards_of_another_size_are_never_taken_for_these(stage_one, tmp_path):
    """30 rows in shards of 26 leave a second shard of 4 rows, as many as shards of 4 have: not the same rows."""
    stage_one(tasks=("cola",), splits=("validation",), shard_rows=26)
    for path in [*(tmp_path / "cache").rglob("manifest.json"), *(tmp_path / "cache").rglob("shard-00000.json")]:
        path.unlink()
    stage_one(tasks=("cola",), splits=("validation",), shard_rows=4)
    stage_one(tmp_path / "fresh", tasks=("cola",), splits=("validation",), shard_rows=4)
    found, expected = (
        FeatureCache(tmp_path / n).open("cola", "validation", layer=-1, pooling="mean") for n in ("cache", "fresh")
    )
    assert (found.manifest.shard_rows, expected.manifest.shard_rows) == (26, 4)  # what was begun is gone on with
    assert found.texts == expected.texts
    assert np.allclose(found.X, expected.X, atol=1e-5)


def test_a_corrected_label_reaches_the_index_and_no_feature_is_computed_again(
    stage_one, tmp_path, small_glue, monkeypatch, capsys
):
    stage_one(tasks=("cola",))
    before = FeatureCache(tmp_path / "cache").open("cola", "train", layer=-1, pooling="mean")
    labels, states = before.y.copy(), np.array(before.X)
    path = small_glue / "CoLA" / "train.tsv"
    lines = path.read_text("utf-8").split("\n")
    source, label, mark, text = lines[20].split("\t")
    lines[20] = "\t".join((source, str(1 - int(label)), mark, text))
    path.write_text("\n".join(lines), "utf-8")
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the model was loaded"))
    assert {record["status"] for record in stage_one(tasks=("cola",))} == {"present"}
    assert "labels changed since" in capsys.readouterr().err
    after = FeatureCache(tmp_path / "cache").open("cola", "train", layer=-1, pooling="mean")
    assert np.flatnonzero(after.y != labels).tolist() == [20]
    assert np.array_equal(after.X, states)
