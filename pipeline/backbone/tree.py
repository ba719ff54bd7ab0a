"""Rows as a tree of tokens behind a prefix that all share: what stands where, and who may look at whom."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.backbone.batch import Batch


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


@dataclass(frozen=True)
class Row:
    """A pass `[1, p + n + padding]`: a trunk, which all slots see, and the tokens of the slots `[b, t]`, one by one.

    Args:
        trunk: `p`.
        tokens: `[b * t]` int64, which of the `p + n` stands in each place of the slots; in padding, any.
        places: `[n]` int64, in which place of the slots each token behind the trunk stands.
        causal: the trunk's own mask, `[1, 1, p, p]`, as `tree_mask` makes it.
        padding: so many tokens stand behind all others, which none of them sees.
    """

    trunk: int
    tokens: torch.Tensor
    places: torch.Tensor
    causal: torch.Tensor
    padding: int

    @classmethod
    def of(cls, batch: Batch, padding: int, dtype: torch.dtype, device: torch.device) -> "Row":
        """That of a batch."""
        filled, places = batch.filled, np.arange(batch.ids.size)
        tokens = len(batch.trunk) + np.minimum(np.searchsorted(filled, places), len(filled) - 1)
        trunk = len(batch.trunk)
        causal = tree_mask(np.tri(trunk, dtype=bool)[None], 0, dtype, device)
        return cls(trunk, torch.from_numpy(tokens).to(device), torch.from_numpy(filled).to(device), causal, padding)


def tree_mask(sees: np.ndarray, prefix_length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What is added to the scores: `[b, 1, t, p + t]`, zero where a token may look, minus infinity elsewhere.

    Args:
        sees: `[b, t, t]` bool, which of a slot's tokens each one may attend to.
    """
    ahead = torch.from_numpy(~sees).to(device)
    mask = torch.zeros(*sees.shape[:2], prefix_length + sees.shape[2], dtype=dtype, device=device)
    mask[..., prefix_length:].masked_fill_(ahead, float("-inf"))
    return mask[:, None]
