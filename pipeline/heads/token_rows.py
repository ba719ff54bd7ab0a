"""Rows of the tokens view, a vector for each position: read when they are asked for, never all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
import torch

from pipeline.cache import FeatureSet
from pipeline.cache.shard import RAW, ShardData, to_float32
from pipeline.errors import HeadError
from pipeline.heads.fused.stream import MEMORY_SHARE
from pipeline.heads.stacked.rows import WINDOW_BLOCK_BYTES, Ragged, positions_of, shuffled
from pipeline.memory import free_bytes

BLOCK_BYTES = 16 * 2**20
"""Of features in a block that is evaluated on, about."""


class _Tokens(Protocol):
    """Rows `[t, d]` of differing length."""

    @property
    def width(self) -> int:
        """Numbers a vector, `d`."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """`[n]` int64 positions of each row."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The positions of some rows, one row after the other, `[p, d]` float32."""


class _InMemory:
    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        widths = {np.shape(array)[1] if np.ndim(array) == 2 else 0 for array in arrays}
        if len(widths) != 1 or 0 in widths:
            raise HeadError(
                "these are no rows of tokens",
                expected="arrays [t, d] of one width d",
                found=f"{len(arrays)} rows, of shapes such as {sorted({np.shape(array) for array in arrays})[:3]}",
            )
        self.width = int(widths.pop())
        if not self.lengths.all():
            raise HeadError("a row has no positions", where=f"row {int(self.lengths.argmin())}", expected="one or more")

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.asarray([len(array) for array in self.arrays], dtype=np.int64)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(self.arrays[row], dtype=np.float32) for row in rows])


class _Mapped:
    """Shards are mapped: only the rows that are asked for come into memory.

    Of a store whose shards do not stay here, they are held in memory where that is ample: each comes once.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        if not feature_set.is_tokens:
            raise HeadError("this view has one vector a row", where=feature_set.manifest.name, expected="a tokens view")
        self.feature_set = feature_set
        self.width = feature_set.hidden_size
        self._held: dict[int, ShardData] = {}

    @cached_property
    def _holds(self) -> bool:
        if self.feature_set.stays:
            return False
        vectors = int(self.feature_set.columns("n_pooled")["n_pooled"].to_numpy().sum())
        itemsize = RAW[self.feature_set.manifest.identity.storage_dtype].itemsize
        return vectors * self.width * itemsize < MEMORY_SHARE * free_bytes()

    def _shard(self, number: int) -> ShardData:
        if number in self._held:
            return self._held[number]
        data = self.feature_set.shard(number)
        if self._holds:
            data = self._held[number] = replace(data, hidden_states=np.array(data.hidden_states))
        return data

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row its shard, where it begins there, and how long it is, `[n]` int64 each."""
        found = np.empty((3, len(self.feature_set)), dtype=np.int64)
        for number, rows in enumerate(self.feature_set.rows_of_shards):
            offsets = self._shard(number).offsets
            assert offsets is not None
            found[0, rows], found[1, rows], found[2, rows] = number, offsets[:-1], np.diff(offsets)
        return found[0], found[1], found[2]

    @cached_property
    def lengths(self) -> np.ndarray:
        return self._places[2]

    def read(self, rows: np.ndarray) -> np.ndarray:
        shards, starts, lengths = (of_all[rows] for of_all in self._places)
        X = np.empty((lengths.sum(), self.width), dtype=np.float32)
        shard_of_position = np.repeat(shards, lengths)
        places = positions_of(torch.from_numpy(starts), torch.from_numpy(lengths)).numpy()
        for number in np.unique(shards):
            here = shard_of_position == number
            data = self._shard(int(number))
            X[here] = to_float32(data.hidden_states[places[here]], data.dtype)
        return X


class TokenRows:
    """Rows `[t, d]` of differing length, of a feature set or in memory.

    Args:
        tokens: a feature set of the tokens view; or arrays `[t, d]`, each of at least one position.

    Raises:
        HeadError: it is none of these.
    """

    def __init__(self, tokens: FeatureSet | Sequence[np.ndarray]) -> None:
        self._tokens: _Tokens = _Mapped(tokens) if isinstance(tokens, FeatureSet) else _InMemory(tokens)
        self._rows = np.arange(len(tokens))

    @classmethod
    def of(cls, X: "Tokens") -> "TokenRows":
        """Whatever they come as."""
        return X if isinstance(X, TokenRows) else cls(X)

    @property
    def width(self) -> int:
        """Numbers a vector."""
        return self._tokens.width

    @property
    def lengths(self) -> np.ndarray:
        """`[n]` int64 positions of each row."""
        return np.asarray(self._tokens.lengths[self._rows])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: np.ndarray) -> "TokenRows":
        """Some of the rows, by a mask or by their numbers; nothing is read."""
        some = object.__new__(TokenRows)
        some._tokens, some._rows = self._tokens, self._rows[which]
        return some

    def read(self, rows: np.ndarray) -> Ragged:
        """Some rows in memory, by their numbers `[b]` int64, in any order."""
        rows = self._rows[rows]
        return Ragged(torch.from_numpy(self._tokens.read(rows)), torch.from_numpy(self._tokens.lengths[rows]))

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, Ragged]]:
        """One epoch; rows of a feature set come from windows of neighbouring rows, as `FeatureRows` has them."""
        if isinstance(self._tokens, _Mapped):
            block_rows = self._rows_of(WINDOW_BLOCK_BYTES)
            yield from shuffled(len(self), block_rows, batch_size, generator, self.read)
            return
        for rows in torch.split(torch.randperm(len(self), generator=generator), batch_size):
            yield rows, self.read(rows.numpy())

    def blocks(self, wanted: torch.Tensor) -> Iterator[tuple[torch.Tensor, Ragged]]:
        """The wanted rows, in order."""
        rows = wanted.nonzero()[:, 0]
        for some in torch.split(rows, self._rows_of(BLOCK_BYTES)) if len(rows) else ():
            yield some, self.read(some.numpy())

    def _rows_of(self, size_bytes: int) -> int:
        """How many rows of mean length take about so much memory."""
        return max(1, int(size_bytes / (4 * self.width * self.lengths.mean())))


Tokens: TypeAlias = TokenRows | FeatureSet | Sequence[np.ndarray]
