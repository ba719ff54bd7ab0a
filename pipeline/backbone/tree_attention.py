"""Attention within a tree of tokens, behind a prefix that all trees share.

Each token attends to the prefix, to itself and to what stands before it in its rows: the numbers are those of attention
over each whole row, though what rows share is computed once. The prefix's keys and values are put before those of every
slot; a slot is many rows, so that is little. A pass that is trained through computes what its rows share itself, and
has no padding but in here. Registered with transformers' `AttentionInterface`; called without a
`Prefix` (one of no tokens is one) it is transformers' own SDPA.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pipeline.backbone.tree import Prefix, Row

NAME = "tree"


def tree_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    prefix: Prefix | None = None,
    row: Row | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the shared prefix and to what the mask lets each token of a slot see.

    Args:
        module: the attention block; its `layer_idx` says which of the prefix's keys are its own.
        query: `[b, query_heads, t, head_size]`; of a row `[1, query_heads, p + n + padding, head_size]`.
        key, value: `[b, heads, t, head_size]` of the slots, without the prefix; of a row alike.
        attention_mask: with a prefix or a row, that of `tree_mask`; with neither, as transformers makes it.
        scaling: of the scores; by default one over the square root of the head size.
        prefix: the shared tokens, perhaps none; None for plain SDPA.
        row: how the tokens stand, where they do not stand in slots.

    Returns:
        `[b, t, query_heads, head_size]`, or `[1, p + n + padding, …]`, and no attention weights.

    Raises:
        ValueError: the backbone wants more than masked attention (sinks, a window, a bias, a cap).
    """
    if kwargs.get("s_aux") is not None:
        raise ValueError("attention sinks are not supported")
    if prefix is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    if any(kwargs.get(name) is not None for name in ("sliding_window", "softcap", "position_bias")):
        raise ValueError("a tree goes with plain attention only")
    if row is not None:
        return _attend_in_a_row(query, key, value, attention_mask, scaling, row), None
    batch, _, length, _ = query.shape
    if attention_mask is None or attention_mask.shape != (batch, 1, length, len(prefix) + length):
        raise ValueError("the backbone makes a mask of its own")
    if len(prefix):
        key = torch.cat((prefix.keys[module.layer_idx].expand(batch, -1, -1, -1), key), dim=2)
        value = torch.cat((prefix.values[module.layer_idx].expand(batch, -1, -1, -1), value), dim=2)
    return _attend(query, key, value, attention_mask, scaling), None


def _attend_in_a_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    row: Row,
) -> torch.Tensor:
    """`[1, p + n + padding, query_heads, head_size]`: the trunk attends to itself, and each slot to it and itself."""
    if mask is None or mask.shape[3] != row.trunk + mask.shape[2] or mask.shape[0] * mask.shape[2] != len(row.tokens):
        raise ValueError("the backbone makes a mask of its own")
    slots = mask.shape[0]

    def in_slots(states: torch.Tensor) -> torch.Tensor:
        placed = states[0].index_select(1, row.tokens)
        return placed.view(len(placed), slots, -1, placed.shape[2]).transpose(0, 1)

    first_query, *first = (states[:, :, : row.trunk] for states in (query, key, value))
    keys, values = (
        torch.cat((shared.expand(slots, -1, -1, -1), in_slots(states)), dim=2)
        for shared, states in zip(first, (key, value), strict=True)
    )
    output = _attend(in_slots(query), keys, values, mask, scaling).flatten(0, 1).index_select(0, row.places)[None]
    parts = [_attend(first_query, first[0], first[1], row.causal, scaling)] if row.trunk else []
    return torch.cat((*parts, output, output.new_zeros(1, row.padding, *output.shape[2:])), dim=1)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """`[b, t, query_heads, head_size]`, for a mask `[b, 1, t, s]` and keys of as many heads or fewer."""
    batch, query_heads, length, size = query.shape
    heads = key.shape[1]
    group = query_heads // heads  # queries of one key stand under each other: grouped-query attention without copies
    attend = _attend_by_products if query.device.type == "cpu" else _attend_by_sdpa
    output = attend(query.reshape(batch, heads, group * length, size), key, value, mask, scaling)
    return output.reshape(batch, query_heads, length, size).transpose(1, 2).contiguous()


def _attend_by_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """`[b, heads, group * t, head_size]`, for a mask `[b, 1, t, s]` of one group."""
    group = query.shape[2] // mask.shape[2]
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask.repeat(1, 1, group, 1), scale=scaling
    )


def _attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """The same by two batched products: for slots this short almost twice as fast as torch's fused kernel on a CPU."""
    batch, heads, queries, size = query.shape
    query = query * (size**-0.5 if scaling is None else scaling)
    scores = torch.bmm(query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2))
    by_query = scores.view(batch, -1, mask.shape[2], mask.shape[3])
    by_query += mask
    return torch.bmm(torch.softmax(scores, dim=-1), value.flatten(0, 1)).view(batch, heads, queries, size)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
