"""Each fact of the identity changed for real: other features are computed, and the old ones stay what they were."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pipeline.backbone.load import load_backbone
from pipeline.cache import FeatureCache
from pipeline.cache.identity import Identity, flatten
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, ExtractConfig, PassConfig, TokensConfig
from pipeline.errors import BackboneError, FeatureSetNotFound
from pipeline.extract.run import extract

ONE = {"tasks": ("cola",), "splits": ("test",), "layers": ("1",), "poolings": ("mean",)}


class Other:
    """Ways to make another backbone or corpus; each gives the settings that lead to it."""

    def __init__(self, tiny_backbone, small_glue, make_adapter, tmp_path):
        self.corpus = small_glue / "CoLA" / "test.tsv"
        self.make_adapter = make_adapter
        self.folder = tmp_path / "other" / tiny_backbone.name  # of the same name: only content tells them apart
        shutil.copytree(tiny_backbone, self.folder)

    def config(self, **fields):
        path = self.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return {"backbone": str(self.folder)}

    def weight(self):
        path = self.folder / "model.safetensors"
        tensors = load_file(path)
        value = tensors["model.layers.0.mlp.up_proj.weight"][3, 5]
        value += 1e-3
        save_file(tensors, path, metadata={"format": "pt"})
        return {"backbone": str(self.folder)}

    def norm(self):
        return self.config(rms_norm_eps=1e-3)

    def rope_theta(self):
        rope = json.loads((self.folder / "config.json").read_text())["rope_parameters"]
        return self.config(rope_parameters=rope | {"rope_theta": 500.0})

    def rope_scaling(self):
        rope = json.loads((self.folder / "config.json").read_text())["rope_parameters"]
        return self.config(rope_parameters=rope | {"rope_type": "linear", "factor": 2.0})

    def added_token(self):
        path = self.folder / "tokenizer.json"
        record = json.loads(path.read_text())
        record["added_tokens"].append({**record["added_tokens"][0], "id": 599, "content": "cat", "special": False})
        path.write_text(json.dumps(record))
        return {"backbone": str(self.folder)}

    def tokenizer_config(self):
        path = self.folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 99}))
        return {"backbone": str(self.folder)}

    def text(self):
        content = self.corpus.read_text("utf-8")
        self.corpus.write_text(content.replace(".", " .", 1), "utf-8")
        return {}

    def order(self):
        lines = self.corpus.read_text("utf-8").split("\n")
        lines[1], lines[2] = lines[2], lines[1]
        self.corpus.write_text("\n".join(lines), "utf-8")
        return {}

    def adapter(self):
        return {"adapter": self.make_adapter()}


CHANGES = {
    "weight": ["weights"],
    "norm": ["architecture.config"],
    "rope_theta": ["architecture.config"],
    "rope_scaling": ["architecture.config"],
    "added_token": ["tokenizer"],
    "tokenizer_config": ["tokenizer"],
    "text": ["texts"],
    "order": ["texts"],
    "adapter": ["adapter"],
}
SETTINGS = [
    ({"quantization": "int8"}, ["quantization.type", "quantization.double", "quantization.block_size"]),
    ({"quantization": "none"}, ["quantization.type", "quantization.double", "quantization.block_size"]),
    ({"compute_dtype": "bfloat16", "storage_dtype": "float32"}, ["quantization.compute_dtype"]),
    ({"storage_dtype": "bfloat16"}, ["storage_dtype"]),
    ({"prompt": "Sentence: {} "}, ["prompt"]),
    ({"special_tokens": False}, ["special_tokens"]),
    ({"max_length": 255}, ["max_length"]),
    ({"truncation": True}, ["truncation"]),
    ({"layers": ("0",)}, ["layer"]),
    ({"layers": ("2",)}, ["layer", "layer_norm"]),
    ({"poolings": ("last",)}, ["pooling"]),
]


WRONG = {
    "weights": "sha256:0", "architecture.model_type": "qwen2", "architecture.num_hidden_layers": 3,
    "architecture.hidden_size": 65, "architecture.config": "sha256:0", "adapter": "sha256:0",
    "quantization.type": "int8",
    "quantization.compute_dtype": "float16", "quantization.double": False, "quantization.block_size": 128,
    "tokenizer": "sha256:0", "prompt": "{}", "special_tokens": False, "max_length": 8, "truncation": True, "layer": 2,
    "layer_norm": "final", "pooling": "first", "storage_dtype": "float16", "texts": "sha256:0",
}  # fmt: skip
"""Another value of each field that an extraction writes."""


def table_of_the_error(cache, wanted):
    """The lines of the error's table when nothing in the cache is what is wanted."""
    with pytest.raises(FeatureSetNotFound) as caught:
        cache.open("cola", "test", identity=wanted)
    header, *lines = [line for line in str(caught.value).split("\n") if line.startswith("    ")]
    assert header.split() == ["field", "wanted", "found"]
    return lines


def nested(flat):
    record = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        (record.setdefault(outer[0], {}) if outer else record)[last] = value
    return record


@pytest.fixture(scope="module")
def cache_of_one(tmp_path_factory, tiny_backbone, sample_dir):
    """A cache with one real feature set, and the facts of its identity by dotted name."""
    place = tmp_path_factory.mktemp("one")
    [record] = extract(
        ExtractConfig(**ONE),
        DataConfig(data="sample", sample_dir=sample_dir),
        BackboneConfig(backbone=str(tiny_backbone), models_dir=place / "models"),
        TokensConfig(),
        PassConfig(),
        CacheConfig(place / "cache"),
    )
    cache = FeatureCache(place / "cache")
    return cache, facts_of(cache, record["fingerprint"])


def test_every_field_that_an_extraction_writes_has_its_change(cache_of_one):
    cache, facts = cache_of_one
    assert set(facts) == set(WRONG)
    assert cache.open("cola", "test", identity=facts).fingerprint == Identity.from_dict(nested(facts)).fingerprint


@pytest.mark.parametrize("field", WRONG)
def test_any_one_field_changed_alone_misses_the_cache_and_is_named(cache_of_one, field):
    cache, facts = cache_of_one
    changed = {**facts, field: WRONG[field]}
    assert Identity.from_dict(nested(changed)).fingerprint != Identity.from_dict(nested(facts)).fingerprint
    for wanted in (changed, {field: WRONG[field]}):
        [line] = table_of_the_error(cache, wanted)
        shown = [json.dumps(value).strip('"')[:56] for value in (WRONG[field], facts[field])]
        assert line.split()[0] == field
        assert all(value in line for value in shown)


@pytest.fixture
def other(tiny_backbone, small_glue, make_adapter, tmp_path):
    return Other(tiny_backbone, small_glue, make_adapter, tmp_path)


def facts_of(cache, fingerprint):
    return flatten(cache.open_folder(fingerprint).manifest.identity.to_dict())


@pytest.mark.parametrize(
    ("change", "fields"),
    [*CHANGES.items(), *SETTINGS],
    ids=lambda value: value if isinstance(value, str) else ",".join(value) if isinstance(value, dict) else "",
)
def test_a_changed_fact_is_other_features_and_the_old_ones_stay(stage_one, other, tmp_path, change, fields):
    [before] = stage_one(**ONE)
    cache = FeatureCache(tmp_path / "cache")
    old, states = facts_of(cache, before["fingerprint"]), np.array(cache.open_folder(before["fingerprint"]).X)
    settings = getattr(other, change)() if isinstance(change, str) else change
    [after] = stage_one(**{**ONE, **settings})
    assert after["status"] == "written"
    assert after["fingerprint"] != before["fingerprint"]
    new = facts_of(cache, after["fingerprint"])
    assert sorted(name for name in old | new if old.get(name) != new.get(name)) == sorted(fields)

    with_old = cache.open("cola", "test", identity=old)
    assert with_old.fingerprint == before["fingerprint"]
    assert np.array_equal(with_old.X, states)
    assert cache.open("cola", "test", identity=new).fingerprint == after["fingerprint"]

    shutil.rmtree(with_old.folder)
    assert sorted(line.split()[0] for line in table_of_the_error(cache, old)) == sorted(fields)


@pytest.mark.parametrize("field", ["transformers_version", "torch_dtype", "_name_or_path", "use_cache"])
def test_what_decides_no_value_finds_the_old_features(stage_one, other, field):
    [before] = stage_one(**ONE)
    [after] = stage_one(**{**ONE, **other.config(**{field: "float16" if field == "torch_dtype" else False})})
    assert (after["status"], after["fingerprint"]) == ("present", before["fingerprint"])


def test_a_chat_template_a_label_and_another_folder_name_no_feature(stage_one, other, small_glue):
    [before] = stage_one(**{**ONE, "splits": ("validation",)})
    (other.folder / "chat_template.jinja").write_text("{{ messages }}")
    (other.folder / "generation_config.json").write_text('{"temperature": 0.1}')
    path = small_glue / "CoLA" / "dev.tsv"
    source, label, rest = path.read_text("utf-8").split("\t", 2)
    path.write_text("\t".join((source, str(1 - int(label)), rest)), "utf-8")
    [after] = stage_one(**{**ONE, "splits": ("validation",), "backbone": str(other.folder)})
    assert (after["status"], after["fingerprint"]) == ("present", before["fingerprint"])


@pytest.mark.parametrize(
    ("change", "named"), [("weight", "weights"), ("norm", "architecture"), ("tokenizer_config", "tokenizer")]
)
def test_files_that_change_while_they_are_loaded_make_no_feature(
    stage_one, other, tmp_path, monkeypatch, change, named
):
    def load_and_change(*args, **kwargs):
        loaded = load_backbone(*args, **kwargs)
        getattr(other, change)()
        return loaded

    monkeypatch.setattr("pipeline.backbone.known.load_backbone", load_and_change)
    with pytest.raises(BackboneError, match=f"changed while they were loaded(.|\\n)*another {named}"):
        stage_one(**ONE, backbone=str(other.folder))
    assert not list(tmp_path.rglob("*.h5"))
    monkeypatch.setattr("pipeline.backbone.known.load_backbone", load_backbone)
    assert [record["status"] for record in stage_one(**ONE, backbone=str(other.folder))] == ["written"]
