"""Features block by block: one view or several side by side, in memory or mapped, always in the same order of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipeline.cache import FeatureSet
from pipeline.cache.shard import to_float32
from pipeline.memory import free_bytes

F32, F64 = torch.float32, torch.float64
BLOCK_BYTES = 2**21
"""Of a block: small enough to stay in the processor's cache between the two products that use it."""
LEAST_BLOCK_ROWS = 256
MOST_BLOCK_ROWS = 2048
MEMORY_SHARE = 0.4
"""Of the memory that is free, what a stream may take to be held as one matrix, or correlation matrices together."""


class Part(Protocol):
    """One view's rows in the stream's order."""

    @property
    def width(self) -> int:
        """Numbers a row, `d`."""

    def block(self, first: int, stop: int) -> np.ndarray:
        """Rows `first` to `stop`, `[stop - first, d]` float32."""


@dataclass(frozen=True)
class Matrix:
    """A part in memory.

    Args:
        X: `[n, d]` float32.
    """

    X: np.ndarray

    @property
    def width(self) -> int:
        """Numbers a row."""
        return int(self.X.shape[1])

    def block(self, first: int, stop: int) -> np.ndarray:
        """Rows `first` to `stop`: no copy."""
        return np.asarray(self.X[first:stop], dtype=np.float32)


class Shards:
    """A part that lies in a feature set's shards, mapped: nothing of it is held beyond a block, nor a shard of a store.

    Args:
        feature_set: of a pooled view.
        order: `[n]` int64, which row of the split each row of the stream is.
    """

    def __init__(self, feature_set: FeatureSet, order: np.ndarray) -> None:
        self.feature_set, self.order = feature_set, order
        self.width = feature_set.hidden_size
        rows = feature_set.rows_of_shards
        self._is_stored_so = np.array_equal(np.concatenate(rows), order)
        self._ends = np.cumsum([len(each) for each in rows])
        is_float32 = feature_set.manifest.identity.storage_dtype == "float32"
        self.is_mapped = self._is_stored_so and is_float32 and feature_set.stays

    def block(self, first: int, stop: int) -> np.ndarray:
        """Rows `first` to `stop`, float32: a view of the map where they stand so in one shard, else a copy."""
        shard = int(np.searchsorted(self._ends, first, side="right"))
        if not self._is_stored_so or stop > self._ends[shard]:
            dtype = self.feature_set.manifest.identity.storage_dtype
            return np.asarray(to_float32(self.feature_set.take(self.order[first:stop]), dtype), dtype=np.float32)
        data = self.feature_set.shard(shard)
        begins = int(self._ends[shard]) - data.rows
        stored = data.hidden_states[first - begins : stop - begins]
        return np.asarray(to_float32(stored, data.dtype), dtype=np.float32)


class FeatureStream:
    """The rows of one split, `[n, d]`, to be gone through as often as it takes.

    Args:
        parts: the views side by side; `d` is the sum of their widths.
        order: `[n]` int64, which row of the split each row of the stream is.
    """

    def __init__(self, parts: Sequence[Part], order: np.ndarray) -> None:
        self.parts, self.order = tuple(parts), order
        self.width = sum(part.width for part in parts)

    @classmethod
    def of_matrix(cls, X: np.ndarray) -> "FeatureStream":
        """A stream of `X` `[n, d]` as it stands."""
        return cls([Matrix(X)], np.arange(len(X)))

    @classmethod
    def of_feature_sets(cls, sets: Sequence[FeatureSet]) -> "FeatureStream":
        """A stream of views side by side, in the order that the first of them is stored in."""
        order = np.concatenate(sets[0].rows_of_shards)
        return cls([Shards(each, order) for each in sets], order)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows as float32."""
        return 4 * len(self) * self.width

    def within_memory(self) -> "FeatureStream":
        """The same rows, copied into one matrix where blocks would have to be copied at each read and memory is ample.

        A single view of float32 that is here to stay is mapped and never copied; what would take more than
        `MEMORY_SHARE` of the memory that is free is streamed from where it lies.
        """
        is_mapped = len(self.parts) == 1 and all(isinstance(part, Shards) and part.is_mapped for part in self.parts)
        return self if is_mapped or self.nbytes > MEMORY_SHARE * free_bytes() else self.in_memory()

    def in_memory(self) -> "FeatureStream":
        """The same rows as one matrix `[n, d]` float32, copied once."""
        return FeatureStream([Matrix(self.matrix())], self.order)

    def matrix(self) -> np.ndarray:
        """All rows, `[n, d]` float32: what is one matrix already is not copied."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Matrix):
            return self.parts[0].block(0, len(self))
        X = np.empty((len(self), self.width), dtype=np.float32)
        for rows, block in self.blocks():
            X[rows] = block.numpy()
        return X

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All rows once: a block's place in the stream and its features `[b, d]` float32, not to be written to."""
        step = min(MOST_BLOCK_ROWS, max(LEAST_BLOCK_ROWS, BLOCK_BYTES // (4 * self.width)))
        for first in range(0, len(self), step):
            stop = min(first + step, len(self))
            parts = [part.block(first, stop) for part in self.parts]
            yield slice(first, stop), _as_tensor(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def _as_tensor(block: np.ndarray) -> torch.Tensor:
    """A tensor over the very memory, which may be a read-only map: NumPy's flag alone keeps torch from warning."""
    if block.flags.writeable:
        return torch.from_numpy(block)
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(block)
