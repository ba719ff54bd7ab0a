"""Quantised weights are stored once, read the next time, and never where they are damaged."""

import json

import pytest
import torch

from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.facts import read_facts
from pipeline.backbone.load import load_backbone
from pipeline.backbone.stored import RECORD
from pipeline.config import BackboneConfig

MiB = 2**20


@pytest.fixture
def load(tiny_backbone, tmp_path):
    def load_it(quantization="nf4", dtype="float32", models_dir=tmp_path / "models"):
        config = BackboneConfig(backbone=str(tiny_backbone), quantization=quantization, models_dir=models_dir)
        source = BackboneSource("tiny", tiny_backbone)
        facts = read_facts(source, config, dtype)
        return load_backbone(source, config, device="cpu", compute_dtype=dtype, facts=facts)

    return load_it


def stored_in(models_dir):
    return sorted(path for path in models_dir.iterdir() if path.is_dir())


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_second_start_reads_what_the_first_stored_to_the_last_bit(load, tmp_path, capsys, quantization, dtype):
    first = load(quantization, dtype)
    assert "stored" not in first.note
    assert "the next start reads them there" in capsys.readouterr().err
    (folder,) = stored_in(tmp_path / "models")
    assert folder.name.startswith(f"tiny-{quantization}-")
    second = load(quantization, dtype)
    assert "as stored" in second.note
    assert capsys.readouterr().err == ""
    before, after = first.model.state_dict(), second.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_other_numbers_are_stored_apart(load, tmp_path):
    for quantization, dtype in (("nf4", "float32"), ("nf4", "bfloat16"), ("int8", "float32")):
        load(quantization, dtype)
    assert len(stored_in(tmp_path / "models")) == 3
    load("none")
    load("checkpoint")
    assert len(stored_in(tmp_path / "models")) == 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "added", "no record", "edited record"])
def test_damaged_weights_are_never_read(load, tmp_path, capsys, damage):
    whole = load()
    (folder,) = stored_in(tmp_path / "models")
    weights, record = folder / "model.safetensors", folder / RECORD
    content = weights.read_bytes()
    place = len(content) // 2
    match damage:
        case "flipped":
            weights.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        case "cut":
            weights.write_bytes(content[:-1])
        case "missing":
            weights.unlink()
        case "added":
            (folder / "model-2.safetensors").write_bytes(content)
        case "no record":
            record.unlink()
        case "edited record":
            record.write_text(json.dumps({**json.loads(record.read_text()), "made_of": {}}))
    capsys.readouterr()
    again = load()
    assert "are damaged: quantising again" in capsys.readouterr().err
    assert "as stored" not in again.note
    assert torch.equal(whole.model.layers[0].mlp.up_proj.weight, again.model.layers[0].mlp.up_proj.weight)
    assert "as stored" in load().note  # and they are mended


def test_where_nothing_can_be_stored_the_backbone_loads_all_the_same(load, tmp_path, capsys):
    (tmp_path / "models").mkdir()
    blocked = tmp_path / "models" / "file"
    blocked.write_text("")
    assert load(models_dir=blocked / "below").model is not None
    assert "could not be stored" in capsys.readouterr().err


def test_nothing_is_stored_of_files_that_changed_while_they_were_loaded(tiny_backbone, tmp_path, monkeypatch):
    from pipeline.backbone import load as loading
    from pipeline.errors import BackboneError

    def changed(*args):
        raise BackboneError("files changed while they were loaded")

    monkeypatch.setattr(loading, "check_unchanged", changed)
    config = BackboneConfig(backbone=str(tiny_backbone), models_dir=tmp_path / "models")
    source = BackboneSource("tiny", tiny_backbone)
    facts = read_facts(source, config, "float32")
    with pytest.raises(BackboneError, match="changed"):
        load_backbone(source, config, device="cpu", compute_dtype="float32", facts=facts)
    assert not stored_in(tmp_path / "models")
