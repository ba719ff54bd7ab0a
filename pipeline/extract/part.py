"""What a shard is made of: its own rows, their sentences and tokens, whoever has the rest of the split."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.backbone.tokens import TokenRows
from pipeline.tasks.examples import Examples


@dataclass(frozen=True)
class Part:
    """Some rows of a split; row i of every field is row `rows[i]` of the split.

    Args:
        rows: `[k]` int64, ascending.
        examples: `k` of them.
        tokens: of these.
    """

    rows: np.ndarray
    examples: Examples
    tokens: TokenRows

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Size:
    """How much there is to compute and to store of some rows.

    Args:
        own_tokens: tokens from each row's sentence on.
        text_bytes: of their sentences in UTF-8.
    """

    own_tokens: int
    text_bytes: int


class Parts(Protocol):
    """Gives the rows of any shard of a split."""

    def part(self, rows: np.ndarray) -> Part:
        """Some rows, `[k]` int64, ascending."""

    def size(self, rows: np.ndarray) -> Size:
        """About how large they are."""


@dataclass(frozen=True)
class PartsInMemory:
    """A split that is read and tokenised as a whole.

    Args:
        examples: the split.
        tokens: of all its rows.
    """

    examples: Examples
    tokens: TokenRows

    def part(self, rows: np.ndarray) -> Part:
        """Some rows, as in `Parts`."""
        return Part(rows, self.examples.take(rows), self.tokens.take(rows))

    def size(self, rows: np.ndarray) -> Size:
        """Counted."""
        text_bytes = sum(len(self.examples.texts[row].encode()) for row in rows)
        return Size(int(self.tokens.own_lengths[rows].sum()), text_bytes)
