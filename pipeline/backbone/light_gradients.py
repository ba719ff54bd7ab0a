"""Norms and gated MLPs of a frozen backbone whose gradients take fewer passes over memory than autograd's own.

A live training on a CPU spends a fifth of its time in elementwise work; the numbers are the same but for rounding.
"""

from typing import Any

import torch
from torch import nn

from pipeline.backbone.parts import agree, gated_mlps, plain_norms


class _Normalise(torch.autograd.Function):
    """`x / rms(x) * weight`."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        mean_square = torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_().div_(states.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
        normal = states * scale
        ctx.save_for_backward(normal, scale, weight)
        output: torch.Tensor = normal * weight
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        normal, scale, weight = ctx.saved_tensors
        trains = ctx.needs_input_grad[1]  # an option of peft's may train norms
        of_weight = (gradients[0] * normal).flatten(0, -2).sum(dim=0) if trains else None
        gradient = gradients[0] * weight
        along = torch.linalg.vecdot(gradient, normal).unsqueeze(-1).div_(-normal.shape[-1])
        return gradient.addcmul_(normal, along).mul_(scale), of_weight, None


class _Gated(torch.autograd.Function):
    """`silu(gate) * up`, as one step of the graph."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        opened = nn.functional.silu(gate)
        ctx.save_for_backward(gate, up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up, opened = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradients[0] * up, gate), gradients[0] * opened


class LightRMSNorm(nn.Module):
    """A root-mean-square norm over the last axis.

    Args:
        norm: torch's; its weight is shared.
    """

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, float(norm.eps or 0.0)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`[…, d]` float32, alike."""
        normal: torch.Tensor = _Normalise.apply(states, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normal


class LightGatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`.

    Args:
        mlp: the module whose layers it has, under their names.
    """

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, d]` to `[…, d]`."""
        gated = _Gated.apply(self.gate_proj(inputs), self.up_proj(inputs))  # type: ignore[no-untyped-call]
        output: torch.Tensor = self.down_proj(gated)
        return output


def lighten_gradients(model: nn.Module) -> None:
    """Put these in the place of a frozen model's own, where they give the same; nothing else changes, not even a name.

    Everything is in place: the parameters are the model's.
    """
    for name, norm in plain_norms(model):
        model.set_submodule(name, LightRMSNorm(norm))
    for name, module in gated_mlps(model, nn.Linear, but=LightGatedMLP):
        light = LightGatedMLP(module)
        if agree(module, light, module.gate_proj.in_features, module.gate_proj.weight.dtype):
            model.set_submodule(name, light)
