"""A frozen backbone's matrix products on the CPU, by oneDNN: weights packed once, what follows a product fused in.

These are the operators that PyTorch's own compiler puts in place of linear layers when it freezes a model.
"""

from typing import cast

import torch
from torch import nn

from pipeline.backbone.parts import agree, gated_mlps, plain_norms

ROWS = 1024
"""For how many rows of a product oneDNN chooses the layout; it is right for any number."""


class PackedLinear(nn.Module):
    """A linear layer whose weights lie as oneDNN wants them.

    Args:
        linear: the layer; its weights are copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` to `[…, out]`."""
        return self.then(inputs, "none")

    def then(self, inputs: torch.Tensor, function: str) -> torch.Tensor:
        """The product, and an elementwise function of it (`swish`, `gelu`…)."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, function, [], "")
        return output

    def times(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The product, times another tensor of its shape."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, other, self.packed, self.bias, "mul")
        return output


class PackedGatedMLP(nn.Module):
    """The gated perceptron of Llama, Qwen and their kin: `down(silu(gate(x)) * up(x))`, in three products.

    Args:
        gate, up, down: its layers, packed.
    """

    def __init__(self, gate: PackedLinear, up: PackedLinear, down: PackedLinear) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate, up, down

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, d]` to `[…, d]`."""
        gated = self.up_proj.times(inputs, self.gate_proj.then(inputs, "swish"))
        return self.down_proj.then(gated, "none")


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, for this device and dtype: one product is tried."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        linear = nn.utils.skip_init(nn.Linear, 2, 2, dtype=dtype)  # type: ignore[no-untyped-call]
        PackedLinear(linear)(torch.zeros(1, 2, dtype=dtype))
    except (AttributeError, RuntimeError):  # no such operator; a CPU that lacks the instructions for bfloat16
        return False
    return True


@torch.inference_mode()
def pack_linears(model: nn.Module) -> None:
    """Replace every linear layer of a model, in place; it can then compute but neither train nor be saved.

    So are the float32 norms that are plain ones: torch's own takes one pass over the hidden states where theirs takes
    five, with the same numbers.
    """
    for name in [name for name, module in model.named_modules() if type(module) is nn.Linear]:
        model.set_submodule(name, PackedLinear(cast(nn.Linear, model.get_submodule(name))))  # one layer is held twice
    for name, module in gated_mlps(model, PackedLinear, but=PackedGatedMLP):
        packed = PackedGatedMLP(module.gate_proj, module.up_proj, module.down_proj)
        weights = packed.gate_proj
        if agree(module, packed, weights.in_features, weights.dtype):  # else more is done in it, and it stays as it is
            model.set_submodule(name, packed)
    for name, norm in plain_norms(model):
        model.set_submodule(name, norm)
