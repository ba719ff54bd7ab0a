"""Rows of token ids through the backbone: the prefix that all rows share is computed once, the rest right-padded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.backbone.load import Backbone
from pipeline.backbone.shared_prefix import NO_PREFIX, Prefix
from pipeline.errors import BackboneError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Largest relative difference, by compute dtype, between a row alone and the same row in a padded batch."""


def common_prefix_length(rows: Sequence[np.ndarray], most: int) -> int:
    """How many leading ids all `rows` share, `most` at most: the ids decide, never the prompt's text."""
    length = min(most, *(len(row) for row in rows))
    for row in rows[1:]:
        differ = np.flatnonzero(rows[0][:length] != row[:length])
        length = int(differ[0]) if len(differ) else length
    return length


def _has_window(config: Any) -> bool:
    """Whether some block sees only the tokens of a window, so that what a prefix means depends on the distance."""
    text_config = config.get_text_config(decoder=True)
    kinds = getattr(text_config, "layer_types", None) or ()
    return any(kind != "full_attention" for kind in kinds) or (
        not kinds and getattr(text_config, "sliding_window", None) is not None
    )


class PrefillEngine:
    """Computes the hidden states of chosen layers for batches of rows.

    Right padding needs no mask in a causal backbone: no row's token sees what stands after it. Whether the backbone is
    causal, and whether its cache can hold a prefix, is tried at the start, on two rows.

    Args:
        backbone: the frozen LLM.
        layers: layer numbers, non-negative, as transformers' `hidden_states` counts them.

    Raises:
        BackboneError: rows of a padded batch do not come out as they do alone.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[int]) -> None:
        self.backbone = backbone
        self.layers = tuple(layers)
        self.shares_prefix = self._try_out()

    @torch.inference_mode()
    def prefix(self, ids: np.ndarray) -> Prefix:
        """Compute a prefix `[p]` once; an empty one where the backbone cannot share it."""
        if not len(ids) or not self.shares_prefix:
            return NO_PREFIX
        return self._compute_prefix(ids)

    @torch.inference_mode()
    def hidden_states(self, prefix: Prefix, rows: Sequence[np.ndarray]) -> dict[int, torch.Tensor]:
        """The hidden states of rows that all begin with `prefix`, from its end on.

        Args:
            rows: `b` arrays of ids, each longer than the prefix and beginning with it.

        Returns:
            by layer, `[b, t, d]` in the compute dtype; row i holds
            `len(rows[i]) - len(prefix)` positions, then padding.
        """
        own = [row[len(prefix) :] for row in rows]
        input_ids = np.zeros((len(own), max(map(len, own))), dtype=np.int64)
        for place, ids in zip(input_ids, own, strict=True):
            place[: len(ids)] = ids
        shared = {}
        if len(prefix):
            positions = torch.arange(len(prefix), len(prefix) + input_ids.shape[1], device=self.backbone.device)
            shared = {"prefix": prefix, "position_ids": positions[None]}
        output = self.backbone.model(
            input_ids=torch.from_numpy(input_ids).to(self.backbone.device),
            use_cache=False,
            output_hidden_states=True,
            **shared,
        )
        return {layer: output.hidden_states[layer] for layer in self.layers}

    def _compute_prefix(self, ids: np.ndarray) -> Prefix:
        from transformers import DynamicCache

        memory = DynamicCache()
        input_ids = torch.from_numpy(ids.astype(np.int64)[None]).to(self.backbone.device)
        self.backbone.model(input_ids=input_ids, past_key_values=memory, use_cache=True)
        return Prefix(ids, tuple(b.keys for b in memory.layers), tuple(b.values for b in memory.layers))

    def _try_out(self) -> bool:
        """Whether a prefix can be shared.

        Raises:
            BackboneError: a padded batch changes its rows even without a shared prefix.
        """
        vocabulary = self.backbone.model.get_input_embeddings().num_embeddings
        ids = np.random.default_rng(0).integers(0, vocabulary, 12).astype(np.int32)
        rows = [ids, ids[:7]]
        with torch.inference_mode():
            try:
                alone = [self.hidden_states(NO_PREFIX, [row]) for row in rows]
            except (AttributeError, TypeError, RuntimeError, ValueError, KeyError) as error:
                raise BackboneError(
                    "this model cannot be read as a causal decoder",
                    where=self.backbone.name,
                    expected="a decoder with causal self-attention, such as Llama, Qwen or GPT-2",
                    found=f"{type(self.backbone.model).__name__}: {type(error).__name__}: {error}",
                ) from error
            if _has_window(self.backbone.model.config):
                return False
            if (worst := self._largest_difference(NO_PREFIX, rows, alone)) > TOLERANCE[self.backbone.dtype]:
                raise BackboneError(
                    "a row's hidden states depend on the padding after it",
                    where=self.backbone.name,
                    expected=f"a causal decoder (relative difference at most {TOLERANCE[self.backbone.dtype]:g})",
                    found=f"{type(self.backbone.model).__name__}, relative difference {worst:.2g}",
                )
            try:
                shared = self._largest_difference(self._compute_prefix(ids[:4]), rows, alone)
            except (AttributeError, TypeError, RuntimeError, ValueError):
                return False  # its attention is not plain, or takes no prefix
            return shared <= TOLERANCE[self.backbone.dtype]

    def _largest_difference(
        self, prefix: Prefix, rows: list[np.ndarray], alone: list[dict[int, torch.Tensor]]
    ) -> float:
        together = self.hidden_states(prefix, rows)
        worst = 0.0
        for row, ids in enumerate(rows):
            for layer in self.layers:
                expected = alone[row][layer][0, len(prefix) :].float()
                found = together[layer][row, : len(ids) - len(prefix)].float()
                worst = max(worst, float((found - expected).norm() / expected.norm().clamp_min(1e-30)))
        return worst
