"""Live passes that begin in the middle: below the adapters nothing ever changes, so it is read from the cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.backbone.batch import Batch, plain_batch
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import TokenRows
from pipeline.backbone.tree import NO_PREFIX
from pipeline.cache import FeatureSet


class SkippedBlock(nn.Module):
    """Stands where a block stood whose work is done: it gives on what it is given."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`[b, t, d]`, as they are."""
        return hidden_states


def skip_blocks(blocks: nn.ModuleList, below: int) -> None:
    """Put a `SkippedBlock` in the place of each of the first blocks, in place; the others keep their numbers."""
    for number in range(below):
        blocks[number] = SkippedBlock()


class LowerStates:
    """The hidden states in which a split's live passes begin: the rows' own from the cache, the prompts' computed once.

    Args:
        cached: the `tokens` view of the layer: each row's states from its sentence on.
        tokens: the split's rows.
        before: `[p, d]` float32 for each distinct run of ids that stands before a sentence, by the bytes of these ids.
    """

    def __init__(self, cached: FeatureSet, tokens: TokenRows, before: Mapping[bytes, np.ndarray]) -> None:
        self._cached, self._tokens, self._before = cached, tokens, before

    @property
    def fingerprint(self) -> str:
        """The cached feature set's."""
        return self._cached.fingerprint

    def of(self, batch: Batch, numbers: np.ndarray) -> np.ndarray:
        """`[p + n, d]` float32 for the tokens of a batch's `flat_ids`.

        Args:
            numbers: `[m]` rows of the split, of which `batch.rows` are places.
        """
        trunk = len(batch.trunk)
        rows = numbers[batch.rows].tolist()
        before = [self._before[ids_before(self._tokens, row).tobytes()] for row in rows]
        behind_trunk = [
            part for b, row in zip(before, rows, strict=True) for part in (b[trunk:], self._cached.tokens(row))
        ]
        in_slots = np.empty((batch.ids.size, self._cached.hidden_size), dtype=np.float32)
        in_slots[batch.places] = np.concatenate(behind_trunk)
        return np.concatenate((before[0][:trunk], in_slots[batch.filled]))


def ids_before(tokens: TokenRows, row: int) -> np.ndarray:
    """The ids `[p]` that stand before a row's sentence."""
    ids: np.ndarray = tokens[row][: tokens.start[row]]
    return ids


@torch.inference_mode()
def states_before(engine: PrefillEngine, tokens: Sequence[TokenRows], layer: int) -> dict[bytes, np.ndarray]:
    """The states at a layer of all that stands before sentences, each distinct run of ids computed once.

    Args:
        engine: of the whole backbone; it computes `layer`.
        tokens: of all splits.

    Returns:
        `[p, d]` float32, by the bytes of the ids.
    """
    distinct = {ids.tobytes(): ids for rows in tokens for ids in (ids_before(rows, row) for row in range(len(rows)))}
    found = {b"": np.zeros((0, engine.backbone.hidden_size), dtype=np.float32)}
    for key, ids in distinct.items():
        if key:
            found[key] = engine.hidden_states(NO_PREFIX, plain_batch([ids]))[layer][0].float().cpu().numpy()
    return found
