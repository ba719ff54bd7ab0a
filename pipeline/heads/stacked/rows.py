"""Where a stack gets its rows from: batches in random order to train on, blocks in order to evaluate on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch

from pipeline.cache.batches import plan_windows
from pipeline.heads.fused.stream import FeatureStream, Matrix

WINDOW_BLOCK_BYTES = 16 * 2**20
"""Of features in a block of neighbouring rows; the rows of a few such blocks are shuffled together."""


@dataclass(frozen=True)
class Ragged:
    """Rows of differing length, one after the other.

    Args:
        X: `[p, d]` float32, the positions of all rows.
        lengths: `[b]` int64, positions a row; together `p`.
    """

    X: torch.Tensor
    lengths: torch.Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: torch.Tensor) -> "Ragged":
        """Some rows: a mask `[b]` bool, or row numbers `[m]` int64 in any order."""
        rows = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        lengths = self.lengths[rows]
        return Ragged(self.X[positions_of((self.lengths.cumsum(0) - self.lengths)[rows], lengths)], lengths)

    @property
    def row_of_position(self) -> torch.Tensor:
        """`[p]` int64: the row that each position belongs to."""
        return torch.repeat_interleave(self.lengths)


Batch: TypeAlias = torch.Tensor | Ragged
"""Features of some rows: `[b, d]` float32, or rows of differing length."""


AnyBatch = TypeVar("AnyBatch", torch.Tensor, Ragged)


class RowSource(Protocol):
    """Rows that can be gone through again and again; they need not fit into memory."""

    @property
    def width(self) -> int:
        """Numbers a vector, `d`."""

    def __len__(self) -> int:
        """How many rows, `n`."""

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, Batch]]:
        """One epoch: row numbers `[b]` int64 with their features, in an order that the generator decides."""

    def blocks(self, wanted: torch.Tensor) -> Iterator[tuple[torch.Tensor, Batch]]:
        """At least the wanted rows (`[n]` bool), in order: row numbers `[b]` int64 with their features."""


class FeatureRows:
    """The rows of a stream of pooled views.

    In memory, an epoch is a permutation of all rows. Otherwise blocks of neighbouring rows come in random order and the
    rows of a few of them are shuffled together; a batch at the end of such a window may be smaller.

    Args:
        stream: `[n, d]`.
    """

    def __init__(self, stream: FeatureStream) -> None:
        self.stream = stream
        (part, *others) = stream.parts
        self._matrix = part.X if isinstance(part, Matrix) and not others else None

    @classmethod
    def of(cls, X: "np.ndarray | FeatureStream") -> "FeatureRows":
        """Of a matrix `[n, d]`, in memory or mapped, or of a stream."""
        return cls(FeatureStream.of_matrix(X) if isinstance(X, np.ndarray) else X)

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self.stream.width

    def __len__(self) -> int:
        return len(self.stream)

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch."""
        if self._matrix is None:
            block_rows = max(1, WINDOW_BLOCK_BYTES // (4 * self.width))
            yield from shuffled(len(self), block_rows, batch_size, generator, self._read)
            return
        for rows in torch.split(torch.randperm(len(self), generator=generator), batch_size):
            X = np.take(self._matrix, rows.numpy(), axis=0)
            yield rows, torch.from_numpy(np.asarray(X, dtype=np.float32))

    def blocks(self, wanted: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All rows: those of a stream cost a look at a map, and reading ahead likes them in order."""
        for rows, X in self.stream.blocks():
            yield torch.arange(rows.start, rows.stop), X

    def _read(self, rows: np.ndarray) -> torch.Tensor:
        """Some rows, which are in ascending order: each stretch of neighbours at once."""
        X = np.empty((len(rows), self.width), dtype=np.float32)
        ends = [*(np.flatnonzero(np.diff(rows) > 1) + 1), len(rows)]
        for first, stop in zip([0, *ends[:-1]], ends, strict=True):
            blocks = [part.block(int(rows[first]), int(rows[stop - 1]) + 1) for part in self.stream.parts]
            np.concatenate(blocks, axis=1, out=X[first:stop])
        return torch.from_numpy(X)


class WithHeldOut:
    """Rows to draw batches from, and after them rows that are only evaluated on.

    Args:
        drawn: numbered from 0.
        held: numbered from `len(drawn)`.
    """

    def __init__(self, drawn: RowSource, held: RowSource) -> None:
        self.drawn, self.held = drawn, held
        self.width = drawn.width

    def __len__(self) -> int:
        return len(self.drawn) + len(self.held)

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, Batch]]:
        """One epoch of the rows that batches are drawn from."""
        return self.drawn.batches(batch_size, generator)

    def blocks(self, wanted: torch.Tensor) -> Iterator[tuple[torch.Tensor, Batch]]:
        """The wanted rows of either; what none is wanted of is not looked at."""
        n = len(self.drawn)
        for source, first in ((self.drawn, 0), (self.held, n)):
            of_source = wanted[first : first + len(source)]
            if bool(of_source.any()):
                for rows, batch in source.blocks(of_source):
                    yield rows + first, batch


def shuffled(
    rows: int, block_rows: int, batch_size: int, generator: torch.Generator, read: Callable[[np.ndarray], AnyBatch]
) -> Iterator[tuple[torch.Tensor, AnyBatch]]:
    """One epoch over rows that are read window by window.

    Args:
        rows: how many there are.
        block_rows: neighbours that are read together.
        read: gives the features of row numbers `[m]` int64 that are in ascending order.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    for window in plan_windows(rows, block_rows, shuffle=True, seed=seed, epoch=0):
        order = np.argsort(window)
        features = read(window[order])
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        for first in range(0, len(window), batch_size):
            some = slice(first, first + batch_size)
            yield torch.from_numpy(window[some]), features[torch.from_numpy(places[some])]


def positions_of(starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """`[p]` int64: the places of rows that begin at `starts` `[m]` and are `lengths` `[m]` long, row after row."""
    ends = lengths.cumsum(0)
    return torch.repeat_interleave(starts - (ends - lengths), lengths) + torch.arange(int(lengths.sum()))
