"""Norms and gated MLPs with cheaper gradients: the same numbers, forward and backward, under the same names."""

import pytest
import torch
from torch import nn
from transformers import AutoModel
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from pipeline.backbone.light_gradients import LightGatedMLP, LightRMSNorm, _Gated, _Normalise, lighten_gradients


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x, y, weight = torch.randn(5, 7).double(), torch.randn(5, 7).double(), torch.rand(7).double()
    for trains in (False, True):
        weight.requires_grad_(trains)
        assert torch.autograd.gradcheck(_Normalise.apply, (x.requires_grad_(), weight, 1e-5))
    assert torch.autograd.gradcheck(_Gated.apply, (x, y.requires_grad_()))


@pytest.fixture
def pair(tiny_backbone):
    """The model, and the same with these modules in it, all frozen."""
    usual, light = (AutoModel.from_pretrained(tiny_backbone).requires_grad_(False) for _ in range(2))
    for module in usual.modules():
        if isinstance(module, LlamaRMSNorm):
            nn.init.uniform_(module.weight, 0.5, 2.0)
    light.load_state_dict(usual.state_dict())
    lighten_gradients(light)
    return usual, light


def test_a_model_gives_the_same_with_them_and_so_do_its_gradients(pair):
    found = []
    for model in pair:
        torch.manual_seed(1)
        embeds = (torch.randn(2, 9, 64) / 10).requires_grad_()
        states = model(inputs_embeds=embeds).last_hidden_state
        found.append((states.detach(), *torch.autograd.grad((states * torch.randn(64)).sum(), embeds)))
    for usual, light in zip(*found, strict=True):
        torch.testing.assert_close(light, usual, rtol=1e-5, atol=1e-5)


def test_they_stand_in_every_block_under_the_same_names(pair):
    usual, light = pair
    assert light.state_dict().keys() == usual.state_dict().keys()
    kinds = [type(module) for module in light.modules()]
    assert (kinds.count(LightRMSNorm), kinds.count(LightGatedMLP)) == (5, 2)
    assert not {LlamaRMSNorm, LlamaMLP} & set(kinds)


def test_a_norm_that_trains_gets_its_gradient(pair):
    norm = next(module for module in pair[1].modules() if isinstance(module, LightRMSNorm))
    norm.weight.requires_grad_()
    norm(torch.randn(3, 64)).sum().backward()
    assert norm.weight.grad.abs().max() > 0


def test_an_mlp_that_does_more_or_something_else_stays(tiny_backbone):
    model = AutoModel.from_pretrained(tiny_backbone, hidden_act="gelu")
    lighten_gradients(model)
    assert not any(isinstance(module, LightGatedMLP) for module in model.modules())
