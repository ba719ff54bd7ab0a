"""What a shard is made of: its own rows, their sentences and tokens, whoever has the rest of the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pipeline.backbone.tokens import TokenRows, tokenize
from pipeline.cache.identity import Identity
from pipeline.tasks.examples import Examples
from pipeline.tasks.stream import StreamedCorpus


def tokenize_as(
    identity: Identity, tokenizer: Any, texts: Sequence[str], origin: str, lines: Sequence[int] | None = None
) -> TokenRows:
    """Tokenise sentences as an identity has it; arguments and errors as of `tokenize`."""
    return tokenize(
        tokenizer,
        texts,
        identity.prompt,
        max_length=identity.max_length,
        truncation=identity.truncation,
        special_tokens=identity.special_tokens,
        origin=origin,
        lines=lines,
    )


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


SAMPLED_BLOCKS, BLOCK_ROWS = 8, 128
"""Of a stream so many blocks of neighbouring rows are read to estimate how large its rows are."""


@dataclass(frozen=True)
class PartsOfStream:
    """A split of which each shard is read and tokenised when it is computed.

    Args:
        corpus: the split.
        tokenizer: the backbone's.
        identity: of one of its feature sets: the prompt and what else decides the tokens.
    """

    corpus: StreamedCorpus
    tokenizer: Any
    identity: Identity

    def part(self, rows: np.ndarray) -> Part:
        """Neighbouring rows, as in `Parts`."""
        examples = self.corpus.read(int(rows[0]), int(rows[-1]) + 1)
        tokens = tokenize_as(self.identity, self.tokenizer, examples.texts, examples.origin, examples.lines)
        return Part(rows, examples, tokens)

    def size(self, rows: np.ndarray) -> Size:
        """Estimated from blocks of rows."""
        own_tokens, text_bytes = self._of_a_row
        return Size(round(own_tokens * len(rows)), round(text_bytes * len(rows)))

    @cached_property
    def _of_a_row(self) -> tuple[float, float]:
        most = max(0, len(self.corpus) - BLOCK_ROWS)
        firsts = sorted({most * block // (SAMPLED_BLOCKS - 1) for block in range(SAMPLED_BLOCKS)})
        blocks = [self.part(np.arange(first, min(first + BLOCK_ROWS, len(self.corpus)))) for first in firsts]
        rows = sum(map(len, blocks))
        text_bytes = sum(len(text.encode()) for block in blocks for text in block.examples.texts)
        return sum(int(block.tokens.own_lengths.sum()) for block in blocks) / rows, text_bytes / rows
