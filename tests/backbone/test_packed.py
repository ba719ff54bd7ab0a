"""Packed layers give what the layers gave, in fewer steps."""

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from pipeline.backbone.packed import PackedGatedMLP, PackedLinear, can_pack, pack_linears


class GatedMLP(nn.Module):
    def __init__(self, activation, bias):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
        self.down_proj = nn.Linear(40, 24, bias=bias)
        self.act_fn = ACT2FN[activation]

    def forward(self, inputs):
        return self.down_proj(self.act_fn(self.gate_proj(inputs)) * self.up_proj(inputs))


def model_of(activation="silu", bias=False, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 24, bias=bias), GatedMLP(activation, bias)).to(dtype).eval()


def relative(found, expected):
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 5, 24), (2, 700, 24)])
def test_packing_changes_no_number(bias, dtype, exact, shape):
    if not can_pack(torch.device("cpu"), dtype):
        assert dtype == torch.bfloat16
        pytest.skip("this CPU lacks the instructions that oneDNN packs bfloat16 weights with")
    model = model_of(bias=bias, dtype=dtype)
    inputs = torch.randn(shape).to(dtype)
    with torch.inference_mode():
        expected = model(inputs)
        pack_linears(model)
        found = model(inputs)
    assert isinstance(model[0], PackedLinear)
    assert isinstance(model[1], PackedGatedMLP)
    assert found.shape == expected.shape
    assert relative(found, expected) < exact


def test_a_gate_with_another_activation_keeps_its_own_forward():
    model = model_of("gelu")
    inputs = torch.randn(7, 24)
    with torch.inference_mode():
        expected = model(inputs)
        pack_linears(model)
        assert relative(model(inputs), expected) < 1e-6
    assert isinstance(model[1], GatedMLP)
    assert isinstance(model[1].gate_proj, PackedLinear)


def test_packing_twice_is_packing_once():
    model = model_of()
    pack_linears(model)
    modules = list(map(id, model.modules()))
    pack_linears(model)
    assert list(map(id, model.modules())) == modules


def test_only_the_cpus_two_dtypes_are_packed():
    before = torch.get_rng_state()
    assert can_pack(torch.device("cpu"), torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert not can_pack(torch.device("cuda"), torch.float32)
    assert not can_pack(torch.device("cpu"), torch.float16)


def test_packed_products_are_float32_to_the_last_digits():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(576, 1536), torch.randn(256, 576)
    exact = torch.nn.functional.linear(inputs.double(), linear.weight.double(), linear.bias.double())
    with torch.inference_mode():
        assert relative(PackedLinear(linear)(inputs), exact) < 1e-6


class RMSNorm(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.weight, self.variance_epsilon, self.shift = nn.Parameter(torch.randn(24)), 1e-5, shift

    def forward(self, states):
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight + self.shift) * states


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_plain_norm_becomes_torchs_and_another_stays(shift):
    torch.manual_seed(0)
    model = nn.Sequential(RMSNorm(shift), nn.Linear(24, 24)).requires_grad_(False)
    inputs = torch.randn(3, 5, 24)
    with torch.inference_mode():
        expected = model(inputs)
        pack_linears(model)
        assert relative(model(inputs), expected) < 1e-6
    assert isinstance(model[0], nn.RMSNorm) == (not shift)
