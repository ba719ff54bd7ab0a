"""A backbone is found by name, folder or Hub id, and what cannot be found is said in one message."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.backbone.catalogue import HUB_IDS, find_backbone
from pipeline.backbone.digest import digest_of_files, digest_of_tokenizer
from pipeline.backbone.embedded import EMBEDDED
from pipeline.backbone.facts import read_facts, resolve_device, resolve_dtype
from pipeline.config import CATALOGUE, BackboneConfig
from pipeline.digests import sha256_of_record
from pipeline.errors import BackboneError

ROOT = Path(__file__).parents[2]


def config(name, tmp_path, **settings):
    settings = {"quantization": "none", **settings}
    return BackboneConfig(backbone=str(name), models_dir=tmp_path / "models", **settings)


def test_a_local_folder_is_a_backbone(tiny_backbone, tmp_path):
    source = find_backbone(config(tiny_backbone, tmp_path))
    assert (source.name, source.folder, source.commit) == ("tiny-llama", tiny_backbone, None)


def test_an_unknown_name_lists_what_there_is(tmp_path):
    with pytest.raises(BackboneError, match=r"no such backbone(.|\n)*smollm2-135m(.|\n)*Hub id(.|\n)*nonsense"):
        find_backbone(config("nonsense", tmp_path))
    with pytest.raises(BackboneError, match=r"did you mean smollm2-135m\?"):
        find_backbone(config("SmolLM", tmp_path))
    assert (EMBEDDED, *HUB_IDS) == CATALOGUE


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"no model(.|\n)*config.json"):
        find_backbone(config(tmp_path / "empty", tmp_path))


def test_pickled_weights_are_never_read(tiny_backbone, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_backbone, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="pickled"):
        find_backbone(config(folder, tmp_path))


def test_a_hub_that_cannot_be_reached_is_one_error(tmp_path):
    with pytest.raises(BackboneError, match=r"cannot be reached(.|\n)*org/some-model(.|\n)*HF_HUB_OFFLINE"):
        find_backbone(config("org/some-model", tmp_path))
    with pytest.raises(BackboneError, match=r"DeepSeek-R1-Distill-Llama-8B, revision abc"):
        find_backbone(config("deepseek-r1-distill-llama-8b", tmp_path, revision="abc"))


@pytest.mark.parametrize(
    ("error", "message"),
    [("GatedRepoError", "gated"), ("RepositoryNotFoundError", "no such model"), ("RevisionNotFoundError", "revision")],
)
def test_each_refusal_of_the_hub_has_its_own_message(monkeypatch, tmp_path, error, message):
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*args, **kwargs):
        request = httpx2.Request("GET", "https://example.invalid")
        raise getattr(errors, error)("refused", response=httpx2.Response(403, request=request))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BackboneError, match=message):
        find_backbone(config("org/some-model", tmp_path))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tiny_backbone, tmp_path, monkeypatch):
    """A local Hub cache with one model, laid out as the Hub's own library does: links to blobs by their SHA-256."""
    import huggingface_hub.constants

    repo = tmp_path / "hub" / "models--org--tiny"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (snapshot, repo / "refs", repo / "blobs"):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for path in tiny_backbone.iterdir():
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def weights_from_the_hub(tmp_path):
    source = find_backbone(config("org/tiny", tmp_path))
    assert (source.name, source.commit) == ("tiny", COMMIT)
    return read_facts(source, config("org/tiny", tmp_path), "float32").weights


def test_a_snapshot_in_the_local_hub_cache_is_used_and_its_commit_recorded(hub, tmp_path):
    assert weights_from_the_hub(tmp_path) == f"commit:{COMMIT}"


def test_a_commit_stands_only_for_the_files_that_it_has(hub, tmp_path):
    """A blob that was edited in place, a file put in a link's place, a link to elsewhere: known by their content."""
    weights = hub / "model.safetensors"
    blob = weights.resolve()
    content = blob.read_bytes()
    as_shipped = "sha256:" + sha256_of_record({weights.name: blob.name})
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights_from_the_hub(tmp_path) not in (f"commit:{COMMIT}", as_shipped)
    blob.write_bytes(content)
    assert weights_from_the_hub(tmp_path) == f"commit:{COMMIT}"
    weights.unlink()
    shutil.copy(blob, weights)
    assert weights_from_the_hub(tmp_path) == as_shipped
    weights.unlink()
    elsewhere = tmp_path / blob.name
    shutil.copy(blob, elsewhere)
    weights.symlink_to(elsewhere)
    assert weights_from_the_hub(tmp_path) == as_shipped


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "inner/model.safetensors", "/elsewhere/model.safetensors"]
)
def test_weights_that_lie_elsewhere_are_refused(tiny_backbone, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model.safetensors"}}))
    assert find_backbone(config(folder, tmp_path)).folder == folder
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model.safetensors", "b": name}}))
    with pytest.raises(BackboneError, match=r"do not lie beside(.|\n)*index.json") as caught:
        find_backbone(config(folder, tmp_path))
    assert caught.value.found == name
    index.unlink()
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"transformers_weights": name}))
    with pytest.raises(BackboneError, match="do not lie beside"):
        find_backbone(config(folder, tmp_path))


def test_facts_come_from_the_files_alone(tiny_backbone, tmp_path):
    wanted = config(tiny_backbone, tmp_path, quantization="nf4")
    facts = read_facts(find_backbone(wanted), wanted, "float32")
    assert (facts.num_hidden_layers, facts.hidden_size, facts.max_positions) == (2, 64, 256)
    assert facts.quantization == {"type": "nf4", "compute_dtype": "float32", "double": True, "block_size": 64}
    assert facts.weights.startswith("sha256:")


def test_another_network_has_other_facts_and_where_it_was_written_has_not(tiny_backbone, tmp_path):
    wanted = config(tiny_backbone, tmp_path)
    facts = read_facts(find_backbone(wanted), wanted, "float32")

    def changed(**fields):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_backbone, folder, dirs_exist_ok=True)
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(record | fields))
        other = dataclasses.replace(wanted, backbone=str(folder))
        return read_facts(find_backbone(other), other, "float32")

    assert changed(transformers_version="0.0.0").architecture == facts.architecture
    assert changed(rms_norm_eps=1e-3).architecture != facts.architecture


def test_a_config_that_transformers_does_not_know_is_one_error(tiny_backbone, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(tiny_backbone, folder)
    (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    wanted = config(folder, tmp_path)
    with pytest.raises(BackboneError, match="no model that transformers can load"):
        read_facts(find_backbone(wanted), wanted, "float32")


def test_a_quantised_checkpoint_goes_with_checkpoint_only(tiny_backbone, tmp_path):
    folder = tmp_path / "packed"
    shutil.copytree(tiny_backbone, folder)
    record = json.loads((folder / "config.json").read_text())
    packed = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(record | {"quantization_config": packed}))
    wanted = config(folder, tmp_path, quantization="nf4")
    with pytest.raises(BackboneError, match=r"quantised already(.|\n)*--quantization checkpoint"):
        read_facts(find_backbone(wanted), wanted, "float32")
    kept = dataclasses.replace(wanted, quantization="checkpoint")
    assert read_facts(find_backbone(kept), kept, "float32").quantization["type"] == "checkpoint"


def test_auto_is_bfloat16_on_cuda_and_float32_on_the_cpu():
    assert resolve_dtype("auto", "cpu") == "float32"
    assert resolve_dtype("auto", "cuda:0") == "bfloat16"
    assert resolve_dtype("float16", "cpu") == "float16"


def test_a_device_that_is_not_here_is_said():
    with pytest.raises(BackboneError, match="no such device") as caught:
        resolve_device("cuda:99")
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    assert caught.value.expected == " | ".join(["auto", "cpu", *(["cuda"] if cards else []), *cards])


@pytest.mark.slow
def test_the_embedded_backbones_identity_is_the_same_with_and_without_a_network(tmp_path):
    code = "import pathlib, pipeline.backbone.embedded as e; e.embedded_folder(pathlib.Path('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    offline = find_backbone(BackboneConfig()).folder  # as all tests are
    digests = [(digest_of_tokenizer(each), digest_of_files(each.iterdir())) for each in (folder, offline)]
    assert digests[0] == digests[1]
