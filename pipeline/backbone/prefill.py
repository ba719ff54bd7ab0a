"""Batches of token ids through the backbone: what rows share is computed once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipeline.backbone.batch import Batch, common_prefix_length, plain_batch
from pipeline.backbone.blocks import Take, blocks_of, only_where_read, watching
from pipeline.backbone.facts import has_window
from pipeline.backbone.light_gradients import lighten_gradients
from pipeline.backbone.load import Backbone
from pipeline.backbone.packed import can_pack, pack_linears
from pipeline.backbone.tree import NO_PREFIX, Prefix, Row, tree_mask
from pipeline.errors import BackboneError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Largest relative difference, by compute dtype, between a row alone and the same row in a batch."""
LIVE_TOKENS = 32
"""A live pass has a multiple of so many tokens: for a product of a shape that is new, a library makes code first."""


class PrefillEngine:
    """Computes the hidden states of chosen layers for batches of rows.

    Rows that begin alike share what they begin with: the prefix of all rows is computed once, and a batch is a tree. In
    a causal backbone with plain attention the numbers are those of each row alone. Whether it is one is tried at the
    start, on a few rows: a backbone whose attention is not plain (a window, for one) gets each row by itself,
    right-padded, which needs no mask where no token sees what stands after it; one that is not causal is refused.

    Args:
        backbone: the frozen LLM; on the CPU its weights are packed, in place, for computing alone.
        layers: layer numbers, non-negative, as transformers' `hidden_states` counts them. Blocks above the highest are
            not computed.
        pack: hold the weights on the CPU as oneDNN wants them: faster, but nothing can be trained through them. Where
            that is not wanted, norms and MLPs get cheaper gradients.

    Raises:
        BackboneError: rows of a padded batch do not come out as they do alone, or the model's blocks are not found.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[int], *, pack: bool = True) -> None:
        self.backbone = backbone
        self.layers = tuple(sorted(set(layers)))
        rows = self._trial_rows()
        alone = [self._as_transformers_does(row) for row in rows]
        if pack and can_pack(backbone.device, backbone.dtype):
            pack_linears(backbone.model)
            self._check_same(rows, alone, "packed for this CPU")
        elif not pack:
            lighten_gradients(backbone.model)
            self._check_same(rows, alone, "with other norms and MLPs")
        self.blocks = blocks_of(backbone.model, backbone.num_hidden_layers)
        self._computed_again = 0
        self.shares = self._try_out(rows, alone)

    @torch.inference_mode()
    def prefix(self, ids: np.ndarray) -> Prefix:
        """Compute a prefix `[p]` once; an empty one where the backbone cannot share it."""
        if not len(ids) or not self.shares:
            return NO_PREFIX
        return self._compute_prefix(ids)

    @torch.inference_mode()
    def run(self, prefix: Prefix, batch: Batch, take: Take) -> None:
        """Compute a batch behind a prefix, and hand each wanted layer out as soon as it is there, lowest first.

        Args:
            prefix: what all rows begin with, of `prefix`.
            batch: the rows from its end on. Where the backbone cannot share, it must be plain.
            take: is given the layer and `[b, t, d]` in the compute dtype.
        """
        if len(prefix) or not batch.is_plain:
            self._run_tree(prefix, batch, take)
        else:
            self._forward(take, self.layers, input_ids=self._to_device(batch.ids))

    def run_live(
        self, batch: Batch, take: Take, reads: Mapping[int, np.ndarray], inputs_embeds: torch.Tensor | None = None
    ) -> None:
        """As `run`, but gradients flow, the prefix is the batch's trunk, and what goes in may be vectors of one's own.

        Args:
            batch: where the backbone cannot share, without a trunk, and plain.
            reads: which layers are computed, and by layer which places in the flattened `[b * t]` are looked at: the
                highest one's others have no meaning.
            inputs_embeds: `[p + n, d]` instead of the embeddings of the batch's `flat_ids`.
        """
        layers = sorted(reads)
        if not self.shares:
            if inputs_embeds is None:
                self._forward(take, layers, input_ids=self._to_device(batch.ids))
            else:
                padded = inputs_embeds.new_zeros(batch.ids.size, inputs_embeds.shape[1])
                padded = padded.index_copy(0, self._to_device(batch.filled), inputs_embeds)
                self._forward(take, layers, inputs_embeds=padded.view(*batch.ids.shape, -1))
            return
        padding = -(len(batch.trunk) + len(batch.filled)) % LIVE_TOKENS
        row = Row.of(batch, padding, self.backbone.dtype, self.backbone.device)
        positions = np.concatenate((np.arange(row.trunk), row.trunk + batch.depth.ravel()[batch.filled]))
        of_row = self._of_tree(Prefix(batch.trunk), batch)
        of_row["row"] = row
        of_row["position_ids"] = self._to_device(np.pad(positions, (0, padding))[None])

        def take_slots(layer: int, states: torch.Tensor) -> None:
            take(layer, states[0].index_select(0, row.tokens).view(*batch.ids.shape, -1))

        inputs: dict[str, Any]
        if inputs_embeds is None:
            inputs = {"input_ids": self._to_device(np.pad(batch.flat_ids, (0, padding))[None])}
        else:
            inputs = {"inputs_embeds": nn.functional.pad(inputs_embeds, (0, 0, 0, padding))[None]}
        read = row.trunk + np.unique(np.searchsorted(batch.filled, reads[layers[-1]]))
        others = np.setdiff1d(np.arange(len(positions) + padding), read, assume_unique=True)
        read = np.sort(np.concatenate((read, others[: -len(read) % LIVE_TOKENS])))
        is_kept = layers[-1] > self._computed_again  # else it would be computed otherwise the second time
        block = self.blocks[layers[-1] - 1]
        with only_where_read(block, self._to_device(read)) if is_kept else nullcontext():
            self._forward(take_slots, layers, **inputs, **of_row)

    def keep_inputs_alone(self) -> None:
        """Keep of each block what goes in, and compute the rest again where a gradient needs it: less memory, more time
        (Chen et al., 2016, arXiv:1604.06174). The highest one's is needed at once, and kept.
        """
        self._computed_again = max(0, self.layers[-1] - 1)
        for block in self.blocks[: self._computed_again]:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)

    @torch.inference_mode()
    def run_blocks(self, batch: Batch, blocks: int) -> None:
        """Compute a plain batch through the first blocks alone, to see how long that takes."""
        with watching(self.blocks, (min(blocks, len(self.blocks) - 1),), lambda layer, states: None):
            self.backbone.model(input_ids=self._to_device(batch.ids), use_cache=False)

    def hidden_states(self, prefix: Prefix, batch: Batch) -> dict[int, torch.Tensor]:
        """All wanted layers of a batch at once, by number; arguments and shapes as in `run`."""
        states: dict[int, torch.Tensor] = {}
        self.run(prefix, batch, states.__setitem__)
        return states

    def _run_tree(self, prefix: Prefix, batch: Batch, take: Take) -> None:
        self._forward(take, self.layers, input_ids=self._to_device(batch.ids), **self._of_tree(prefix, batch))

    def _of_tree(self, prefix: Prefix, batch: Batch) -> dict[str, Any]:
        return {
            "prefix": prefix,
            "position_ids": self._to_device(len(prefix) + batch.depth),
            "attention_mask": tree_mask(batch.sees, len(prefix), self.backbone.dtype, self.backbone.device),
        }

    def _forward(self, take: Take, layers: Sequence[int], **inputs: Any) -> None:
        with watching(self.blocks, layers, take):
            output = self.backbone.model(use_cache=False, **inputs)
            take(self.backbone.num_hidden_layers, output.last_hidden_state)

    def _to_device(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self.backbone.device)

    def _compute_prefix(self, ids: np.ndarray) -> Prefix:
        from transformers import DynamicCache

        memory = DynamicCache()
        self.backbone.model(input_ids=self._to_device(ids[None]), past_key_values=memory, use_cache=True)
        return Prefix(ids, tuple(b.keys for b in memory.layers), tuple(b.values for b in memory.layers))

    def _trial_rows(self) -> list[np.ndarray]:
        """A few rows to try the engine on; the first and the last begin alike."""
        vocabulary = self.backbone.model.get_input_embeddings().num_embeddings
        ids = np.random.default_rng(0).integers(0, vocabulary, 16).astype(np.int32)
        return [ids[:12], ids[:7], np.concatenate((ids[:9], ids[12:]))]

    @torch.inference_mode()
    def _check_same(self, rows: list[np.ndarray], alone: list[dict[int, torch.Tensor]], how: str) -> None:
        """Hold the modules that were put in against what transformers' own gave.

        Raises:
            BackboneError: they give other numbers.
        """
        now = [self._as_transformers_does(row) for row in rows]
        worst = max(
            _relative(there[layer], here[layer])
            for there, here in zip(now, alone, strict=True)
            for layer in self.layers
        )
        self._refuse_beyond_tolerance(
            worst,
            f"{how}, the backbone gives other numbers",
            remedy="report it, with the CPU's name and the version of torch; another machine may do",
        )

    @torch.inference_mode()
    def _try_out(self, rows: list[np.ndarray], alone: list[dict[int, torch.Tensor]]) -> bool:
        """Whether rows can share what they begin with.

        Args:
            rows: of `_trial_rows`.
            alone: what transformers' own modules give for each of them.

        Raises:
            BackboneError: a row's hidden states are not those of the row alone even where nothing is shared.
        """
        with self._reading_as_a_decoder():
            padded = self._largest_difference(NO_PREFIX, plain_batch(rows), alone)
        self._refuse_beyond_tolerance(
            padded, "a row's hidden states depend on the padding after it", remedy="take a causal decoder"
        )
        if has_window(self.backbone.model.config.get_text_config(decoder=True)):
            return False
        try:
            forked = self._largest_difference(self._compute_prefix(rows[0][:4]), _forked(rows, 4), alone)
        except (AttributeError, TypeError, RuntimeError, ValueError):
            return False  # its attention is not plain, or takes no prefix
        return forked <= TOLERANCE[self.backbone.dtype]

    def _refuse_beyond_tolerance(self, difference: float, what: str, *, remedy: str) -> None:
        tolerance = TOLERANCE[self.backbone.dtype]
        if not difference <= tolerance:
            raise BackboneError(
                what,
                where=f"{self.backbone.name}, {type(self.backbone.model).__name__}",
                expected=f"a relative difference of at most {tolerance:g}",
                found=f"{difference:.2g}",
                remedy=remedy,
            )

    @torch.inference_mode()
    def _as_transformers_does(self, row: np.ndarray) -> dict[int, torch.Tensor]:
        input_ids = self._to_device(row[None])
        with self._reading_as_a_decoder():
            output = self.backbone.model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
            return {layer: output.hidden_states[layer] for layer in self.layers}

    @contextmanager
    def _reading_as_a_decoder(self) -> Iterator[None]:
        try:
            yield
        except (AttributeError, TypeError, RuntimeError, ValueError, KeyError) as error:
            raise BackboneError(
                "this model cannot be read as a causal decoder",
                where=self.backbone.name,
                expected="a decoder with causal self-attention, such as Llama, Qwen or GPT-2",
                found=f"{type(self.backbone.model).__name__}: {type(error).__name__}: {error}",
            ) from error

    def _largest_difference(self, prefix: Prefix, batch: Batch, alone: list[dict[int, torch.Tensor]]) -> float:
        together = self.hidden_states(prefix, batch)
        worst = 0.0
        for row in range(len(batch.rows)):
            places = batch.places[batch.offsets[row] : batch.offsets[row + 1]]
            for layer in self.layers:
                expected = alone[batch.rows[row]][layer][0, len(prefix) :]
                found = together[layer].flatten(0, 1)[places]
                worst = max(worst, _relative(found, expected))
        return worst


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative Euclidean difference."""
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm().clamp_min(1e-30))


def _forked(rows: Sequence[np.ndarray], shared: int) -> Batch:
    """One slot for three rows behind a prefix of `shared` tokens: a row, its beginning, and one that leaves it."""
    whole, beginning, fork = (row[shared:] for row in rows)
    same = common_prefix_length([whole, fork], len(fork))
    new = np.arange(len(whole), len(whole) + len(fork) - same)
    paths = [np.arange(len(whole)), np.arange(len(beginning)), np.concatenate((np.arange(same), new))]
    parent = np.arange(-1, int(new[-1]), dtype=np.int32)
    parent[new[0]] = same - 1
    return Batch(
        ids=np.concatenate((whole, fork[same:]))[None],
        parent=parent[None],
        rows=np.arange(3),
        places=np.concatenate(paths),
        offsets=np.cumsum([0, *map(len, paths)]),
        tokens=len(parent),
    )
