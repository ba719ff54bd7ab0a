"""Attention over a prefix that all rows share, without copying its keys and values to every row.

Each row attends to the prefix and, causally, to itself. The prefix's keys stand once: the queries of all rows meet them
in one matrix product, and one softmax runs over both parts, so the numbers are those of attention over the whole row.
Registered with transformers' `AttentionInterface`; without a prefix it is transformers' own SDPA.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "shared_prefix"


@dataclass(frozen=True)
class Prefix:
    """Tokens that rows share, and what the backbone remembers of them.

    Args:
        ids: `[p]`.
        keys, values: one `[1, heads, p, head_size]` a block.
    """

    ids: np.ndarray
    keys: tuple[torch.Tensor, ...] = ()
    values: tuple[torch.Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


NO_PREFIX = Prefix(np.zeros(0, dtype=np.int32))


def shared_prefix_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    prefix: Prefix | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the shared prefix and causally to the row itself.

    Args:
        module: the attention block; its `layer_idx` says which of the prefix's keys are its own.
        query: `[b, query_heads, t, head_size]`.
        key, value: `[b, heads, t, head_size]` of the rows without their prefix.
        attention_mask: as transformers makes it; with a prefix there must be none (causality is all it could say).
        scaling: of the scores; by default one over the square root of the head size.
        prefix: the shared tokens, or None for plain SDPA.

    Returns:
        `[b, t, query_heads, head_size]`, and no attention weights.

    Raises:
        ValueError: the backbone wants more than causal attention (sinks, a window, a bias, a cap).
    """
    if kwargs.get("s_aux") is not None:
        raise ValueError("attention sinks are not supported")
    if prefix is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    if (
        attention_mask is not None
        or kwargs.get("sliding_window") is not None
        or kwargs.get("softcap") is not None
        or kwargs.get("position_bias") is not None
    ):
        raise ValueError("a shared prefix goes with plain causal attention only")
    batch, query_heads, length, size = query.shape
    heads = key.shape[1]
    rows = query_heads // heads * length
    scaling = size**-0.5 if scaling is None else scaling
    query = (query * scaling).reshape(batch, heads, rows, size)
    before_key, before_value = prefix.keys[module.layer_idx][0], prefix.values[module.layer_idx][0]
    together = query.transpose(0, 1).reshape(heads, batch * rows, size)
    to_prefix = (together @ before_key.transpose(1, 2)).view(heads, batch, rows, -1).transpose(0, 1)
    to_self = query @ key.transpose(2, 3)
    ahead = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    to_self.view(batch, heads, -1, length, length).masked_fill_(ahead, float("-inf"))
    weights = torch.cat((to_prefix, to_self), dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    on_prefix, on_self = weights[..., : len(prefix)], weights[..., len(prefix) :]
    output = on_self @ value
    shared = on_prefix.transpose(0, 1).reshape(heads, batch * rows, -1) @ before_value
    output += shared.view(heads, batch, rows, size).transpose(0, 1)
    return output.reshape(batch, query_heads, length, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
