"""Quantised weights are bitsandbytes' own, dequantised to the last digit."""

import pytest
import torch
from torch import nn

from pipeline import kernels
from pipeline.backbone import facts
from pipeline.backbone import load as loading
from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.load import load_backbone
from pipeline.config import BackboneConfig
from pipeline.errors import BackboneError
from pipeline.kernels import exact_float32


def load(folder, quantization, dtype="float32"):
    config = BackboneConfig(backbone=str(folder), quantization=quantization)
    return load_backbone(BackboneSource("tiny", folder), config, device="cpu", compute_dtype=dtype)


def weights(backbone):
    return {name: m.weight for name, m in backbone.model.named_modules() if isinstance(m, nn.Linear)}


def test_nf4_weights_are_what_bitsandbytes_packs_and_unpacks(tiny_backbone):
    import bitsandbytes.functional as bnb

    plain, packed = weights(load(tiny_backbone, "none")), weights(load(tiny_backbone, "nf4"))
    assert plain.keys() == packed.keys() and plain
    for name, weight in plain.items():
        data, state = bnb.quantize_4bit(weight.data, blocksize=64, compress_statistics=True, quant_type="nf4")
        assert torch.equal(bnb.dequantize_4bit(data, state), packed[name]), name
        assert len(packed[name].unique()) > 16  # blocks have scales of their own
        assert not torch.equal(weight, packed[name])


def test_int8_weights_are_within_about_half_a_step_of_the_plain_ones(tiny_backbone):
    plain, packed = weights(load(tiny_backbone, "none")), weights(load(tiny_backbone, "int8"))
    for name, weight in plain.items():
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        assert ((weight - packed[name]).abs() <= step * 0.55).all(), name
        assert not torch.equal(weight, packed[name])


def test_checkpoint_is_the_files_to_the_last_digit(tiny_backbone):
    from safetensors.torch import load_file

    stored = load_file(tiny_backbone / "model.safetensors")
    for name, weight in weights(load(tiny_backbone, "checkpoint")).items():
        assert torch.equal(weight, stored[f"model.{name}.weight"])


def test_dequantising_goes_straight_to_the_compute_dtype(tiny_backbone):
    import bitsandbytes.functional as bnb

    plain, packed = weights(load(tiny_backbone, "none", "bfloat16")), weights(load(tiny_backbone, "nf4", "bfloat16"))
    for name, weight in plain.items():
        data, state = bnb.quantize_4bit(weight.data, blocksize=64, compress_statistics=True, quant_type="nf4")
        assert packed[name].dtype == torch.bfloat16
        assert torch.equal(bnb.dequantize_4bit(data, state), packed[name])


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_a_loaded_backbone_is_frozen_and_has_no_lm_head(tiny_backbone, quantization):
    backbone = load(tiny_backbone, quantization)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert not hasattr(backbone.model, "lm_head")


def test_damaged_weights_are_one_error(tiny_backbone, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(tiny_backbone, folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load(folder, "none")


def test_the_fast_float32_kernel_is_exact_or_not_taken():
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(64, 300), torch.randn(300, 80)
    with exact_float32("cpu") as setting:
        assert setting in ("medium", "highest")
        error = ((a @ b).double() - a.double() @ b.double()).abs().max() / (a.double() @ b.double()).abs().max()
        assert error < 1e-5
    assert torch.get_float32_matmul_precision() == before


def test_a_fast_float32_kernel_that_is_not_exact_is_not_taken(monkeypatch):
    monkeypatch.setattr(kernels, "relative_error", lambda: 1e-3)
    with exact_float32("cpu") as setting:
        assert setting == "highest"


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_weights_that_memory_does_not_hold_dequantised_are_refused_on_a_cpu(tiny_backbone, monkeypatch, quantization):
    monkeypatch.setattr(loading, "_free_bytes", lambda device: 1000)
    with pytest.raises(BackboneError, match=f"too little free memory for {quantization}"):
        load(tiny_backbone, quantization)


def test_bfloat16_on_a_cpu_without_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": False})
    assert facts.resolve_dtype("bfloat16", "cpu") == "bfloat16"
    assert "no bfloat16 arithmetic" in capsys.readouterr().err
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": True})
    facts.resolve_dtype("bfloat16", "cpu")
    assert not capsys.readouterr().err


def test_a_cpu_is_a_cpu_however_it_is_numbered():
    assert facts.resolve_device("cpu:0") == "cpu"
