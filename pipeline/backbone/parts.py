"""Parts of a block that are the same in Llama, Qwen, Mistral and their kin, whatever their classes are called."""

from typing import Any

import torch
from torch import nn


def plain_norms(model: nn.Module) -> list[tuple[str, nn.RMSNorm]]:
    """The root-mean-square norms in float32 that do nothing else (Zhang and Sennrich, 2019, arXiv:1910.07467).

    Returns:
        the name of each, and torch's own norm with its weight.
    """
    found = []
    for name, module in model.named_modules():
        weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(epsilon, float):
            continue
        if isinstance(weight, nn.Parameter) and weight.dtype == torch.float32:
            norm = nn.RMSNorm(len(weight), eps=epsilon, device="meta")
            norm.weight = weight
            if agree(module, norm, len(weight), torch.float32):
                found.append((name, norm))
    return found


def gated_mlps(model: nn.Module, linear: type[nn.Module], *, but: type[nn.Module]) -> list[tuple[str, Any]]:
    """The modules with layers `gate_proj`, `up_proj` and `down_proj` of a class, by name, but those of a class."""
    parts = ("gate_proj", "up_proj", "down_proj")
    return [
        (name, module)
        for name, module in model.named_modules()
        if not isinstance(module, but) and all(type(getattr(module, part, None)) is linear for part in parts)
    ]


@torch.inference_mode()
def agree(module: nn.Module, other: nn.Module, in_features: int, dtype: torch.dtype) -> bool:
    """Whether two modules give the same, but for rounding."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    inputs = torch.randn(8, in_features, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    expected, found = module(inputs).float(), other(inputs).float()
    exact = 1e-5 if dtype == torch.float32 else 2e-2
    return bool((found - expected).norm() <= exact * expected.norm())
