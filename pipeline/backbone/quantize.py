"""bitsandbytes' quantisation, and undoing its packing once: NF4 with double quantisation, int8, or none."""

from typing import Any

import torch
from torch import nn

from pipeline.backbone.facts import NF4_BLOCK_SIZE
from pipeline.config import Quantization
from pipeline.errors import BackboneError, MissingPackage

INT8_RANGE = 127.0


def bitsandbytes_config(quantization: Quantization, dtype: torch.dtype) -> Any:
    """transformers' `BitsAndBytesConfig` for a kind of quantisation; None for `none` and `checkpoint`.

    NF4 and double quantisation follow QLoRA (Dettmers et al., 2023, arXiv:2305.14314): blocks of 64 weights share an
    absolute maximum, and these maxima are quantised to 8 bits in blocks of 256.

    Raises:
        MissingPackage: bitsandbytes is not installed.
    """
    if quantization in ("none", "checkpoint"):
        return None
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise MissingPackage("bitsandbytes", "extract") from error
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@torch.no_grad()
def dequantize_once(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace every bitsandbytes layer by a plain linear layer with the same, dequantised, weights.

    Args:
        model: changed in place.
        dtype: the weights' dtype; they are dequantised straight to it, without a step in between.

    Raises:
        BackboneError: bitsandbytes quantised in blocks of another size than a feature's identity records.
    """
    import bitsandbytes as bnb

    packed = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt)
    ]
    for name, layer in packed:
        if isinstance(layer, bnb.nn.Linear4bit):
            state = layer.weight.quant_state
            if state.blocksize != NF4_BLOCK_SIZE:
                raise BackboneError("unexpected block size", where=name, expected=NF4_BLOCK_SIZE, found=state.blocksize)
            state.dtype = dtype
            weight = bnb.functional.dequantize_4bit(layer.weight.data, state)
        else:
            scale = (layer.weight.SCB if layer.state.SCB is None else layer.state.SCB).float() / INT8_RANGE
            weight = (layer.weight.data.float() * scale[:, None]).to(dtype)
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
        model.set_submodule(name, plain)
