"""Features of an adapted backbone: peft's own numbers, under an identity of their own."""

import warnings

import numpy as np
import pytest
import torch

from pipeline.cache import FeatureCache
from pipeline.cache.identity import flatten
from pipeline.config import BackboneConfig, HeadsConfig
from pipeline.errors import BackboneError, ConfigError, FeatureSetNotFound
from pipeline.extract.recheck import recheck
from pipeline.heads.features import load_features
from pipeline.tasks.spec import COLA, SST2
from pipeline.views import View


def of_peft(backbone, adapter, features, prompt, pooling):
    """One unpadded sentence after another through peft's forward pass, the adapter beside the plain weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows = []
    for row in features.index.to_pylist():
        encoded = tokenizer(prompt.replace("{}", row["text"]), return_tensors="pt")
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True).hidden_states[-1][0]
        rows.append(states[row["position"] : row["position"] + row["n_pooled"]].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("task", [COLA, SST2], ids=lambda task: task.name)
def test_adapted_features_are_pefts_own(stage_one, make_adapter, tiny_backbone, tmp_path, capsys, task, pooling):
    adapter = make_adapter()
    common = {"tasks": (task.name,), "splits": ("test",), "layers": ("-1",), "poolings": (pooling,)}
    [record] = stage_one(adapter=adapter, quantization="none", **common)
    features = FeatureCache(tmp_path / "cache").open_folder(record["name"])
    digits = features.manifest.identity.adapter.removeprefix("sha256:")[:8]
    assert (
        f"--adapter {digits} asks for its features" in capsys.readouterr().err and f"-lora-{digits}-" in record["name"]
    )
    expected = of_peft(tiny_backbone, adapter, features, task.prompt, pooling)
    norms = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(features.X - expected, axis=1) <= 1e-4 * norms).all()
    [record] = stage_one(quantization="none", **common)
    plain = FeatureCache(tmp_path / "cache").open_folder(record["name"])
    assert (np.linalg.norm(plain.X - expected, axis=1) > 1e-2 * norms).all()


@pytest.fixture
def both(stage_one, make_adapter):
    """The records of the plain backbone's features and of those with each of two adapters, in one cache."""
    one, two = make_adapter("one"), make_adapter("two", seed=1)
    return [
        stage_one(tasks=("cola",), splits=("train", "validation"), layers=("1",), poolings=("mean",), adapter=adapter)
        for adapter in (None, one, two)
    ]


def test_each_adapter_has_features_of_its_own_whose_name_says_so(both, stage_one, tmp_path):
    assert {record["status"] for records in both for record in records} == {"written"}
    assert len({record["fingerprint"] for records in both for record in records}) == 6
    cache = FeatureCache(tmp_path / "cache")
    identities = [flatten(cache.open_folder(records[0]["name"]).manifest.identity.to_dict()) for records in both]
    for identity, records in zip(identities[1:], both[1:], strict=True):
        assert {name for name in identity if identity[name] != identities[0][name]} == {"adapter"}
        assert f"-nf4-lora-{identity['adapter'].removeprefix('sha256:')[:8]}-L1-mean-" in records[0]["name"]
    assert "lora" not in both[0][0]["name"]
    again = stage_one(
        tasks=("cola",), splits=("train", "validation"), layers=("1",), poolings=("mean",), adapter=tmp_path / "one"
    )
    assert [(r["status"], r["fingerprint"]) for r in again] == [("present", r["fingerprint"]) for r in both[1]]


def heads_config(**changed):
    return HeadsConfig(tasks=("cola",), backbone="tiny-llama", **changed)


def loaded(cache_dir, **changed):
    features = load_features(FeatureCache(cache_dir), COLA, (View(1, "mean"),), heads_config(**changed))
    return [features[split].fingerprints[0] for split in ("train", "validation")]


def test_heads_train_on_the_plain_features_unless_an_adapter_is_named(both, tmp_path):
    digests = [records[0]["name"].split("-lora-")[1][:8] for records in both[1:]]
    assert loaded(tmp_path / "cache") == [record["fingerprint"] for record in both[0]]
    for digest, records in zip(digests, both[1:], strict=True):
        assert loaded(tmp_path / "cache", adapter=digest) == [record["fingerprint"] for record in records]
    whole = FeatureCache(tmp_path / "cache").open_folder(both[2][0]["name"]).manifest.identity.adapter
    assert loaded(tmp_path / "cache", adapter=whole) == [record["fingerprint"] for record in both[2]]


@pytest.mark.parametrize("there", ["plain", "adapted"])
def test_neither_is_served_for_the_other_and_the_error_names_the_adapter(stage_one, make_adapter, tmp_path, there):
    adapter = make_adapter() if there == "adapted" else None
    stage_one(tasks=("cola",), layers=("1",), poolings=("mean",), adapter=adapter)
    asked = None if there == "adapted" else "abcdef"
    with pytest.raises(FeatureSetNotFound) as caught:
        loaded(tmp_path / "cache", adapter=asked)
    table = str(caught.value).split("\n")[2:]
    assert table[0].split()[:2] == ["adapter", asked or "null"]
    assert "--adapter" in caught.value.remedy


def test_canaries_are_computed_again_with_the_adapter_and_never_without(both, tiny_backbone, tmp_path):
    sets = [FeatureCache(tmp_path / "cache").open_folder(records[0]["name"]) for records in both[:2]]
    for own, other in (sets, sets[::-1]):
        adapter = tmp_path / "one" if own.manifest.identity.adapter else None
        config = BackboneConfig(backbone=str(tiny_backbone), adapter=adapter, models_dir=tmp_path / "models")
        [report] = recheck([own.folder], config)
        assert report.damages == ()
        with pytest.raises(BackboneError, match=r"did not come from this backbone(.|\n)*adapter"):
            recheck([other.folder], config)


def test_python_gets_the_plain_features_unless_it_names_an_adapter(both, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    assert cache.open("cola", "train").fingerprint == both[0][0]["fingerprint"]
    for records in both[1:]:
        digest = cache.open_folder(records[0]["fingerprint"]).manifest.identity.adapter
        for name in (digest, digest.removeprefix("sha256:")[:6]):
            assert cache.open("cola", "train", adapter=name).fingerprint == records[0]["fingerprint"]
            assert cache.open("cola", "train", identity={"adapter": name}).fingerprint == records[0]["fingerprint"]
        with pytest.raises(FeatureSetNotFound, match="adapter"):
            cache.open("cola", "train", adapter=digest.removeprefix("sha256:")[:5])


@pytest.mark.parametrize("adapter", ["abcde", "my-adapter", "", "ABCDEF"])
def test_what_is_no_digest_is_refused(adapter):
    with pytest.raises(ConfigError, match="six or more hex digits"):
        heads_config(adapter=adapter)


def test_a_folder_that_is_no_adapter_is_refused_before_the_model_loads(stage_one, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", lambda *a, **k: pytest.fail("the model was loaded"))
    with pytest.raises(BackboneError, match="holds no adapter"):
        stage_one(tasks=("cola",), adapter=tmp_path)
    assert not (tmp_path / "cache").exists()
