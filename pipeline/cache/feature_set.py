"""A feature set, opened: the matrix that heads train on, its labels and its index, rows in data-set order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.cache.batches import plan_windows, read_batches, row_numbers
from pipeline.cache.manifest import Manifest
from pipeline.cache.reading import refuse_links
from pipeline.cache.sealed_files import SealedFiles
from pipeline.cache.shard import RAW, ShardData, to_float32
from pipeline.cache.states import StoredStates
from pipeline.cache.stored_index import StoredIndex
from pipeline.errors import CacheError, ConfigError, DamagedFeatureSet

if TYPE_CHECKING:
    import datasets
    import torch

    from pipeline.cache.local_copy import LocalCopy
    from pipeline.cache.torch_data import FeatureDataset

BLOCK_BYTES = 16 * 2**20
"""Of hidden states in a block of `batches`, where the caller does not say otherwise."""


class FeatureSet:
    """One view of one task split under one identity.

    Opening checks the manifest against the seals, and the seals against the files' sizes; values are read when they are
    asked for, and a shard's bytes are held against its seal's fast digest when they first are, unless this machine
    wrote, pulled or verified the file and nobody touched it since. Damage never passes, nor do values that are not
    finite.

    Args:
        folder: the feature set's folder; it may be read-only.
        verify: check the SHA-256 of every file against its seal before anything is served: also against malice.
        copy: the local copy of a store that the folder lies in: hidden states come from there when they are read.

    Raises:
        DamagedFeatureSet: a file is missing, is a link, has another size (with `verify`: SHA-256) than its seal says,
            or contradicts the manifest.
    """

    def __init__(self, folder: Path | str, *, verify: bool = False, copy: "LocalCopy | None" = None) -> None:
        self.folder = Path(folder).absolute()
        refuse_links(self.folder)
        self.manifest = Manifest.read(self.folder)
        self._files = SealedFiles(self.folder, self.manifest, verify=verify, copy=copy)
        self._index = StoredIndex(self._files, self.manifest)
        self._states = StoredStates(self._files, self.manifest, lambda: self._index.places)

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        m = self.manifest
        return f"FeatureSet({m.task}/{m.split}/{m.name}, rows={m.rows}, hidden_size={self.hidden_size})"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled, it is its folder: whoever unpickles it opens it again, and no values travel."""
        return _reopen, (str(self.folder.absolute()), self._files.verify, self.manifest.seals, self._files.copy)

    @property
    def hidden_size(self) -> int:
        """Numbers a hidden state."""
        return self._states.hidden_size

    @property
    def fingerprint(self) -> str:
        """The identity's SHA-256."""
        return self.manifest.fingerprint

    @property
    def is_tokens(self) -> bool:
        """Whether this is the `tokens` view: many hidden states a row."""
        return self._states.is_tokens

    @property
    def index(self) -> pa.Table:
        """Row by row: place, example number, label, text, source, tokens, and where it was pooled.

        Raises:
            DamagedFeatureSet: an index is not what its seal and manifest say.
        """
        return self._index.columns()

    def columns(self, *names: str) -> pa.Table:
        """Some columns of the index, without reading the others.

        Raises:
            KeyError: the index has no such column.
            DamagedFeatureSet: as `index`.
        """
        return self._index.columns(names)

    @property
    def X(self) -> np.ndarray:
        """`[n, d]` float32 or float16, read-only: a memory map where shards fill whole pages (the default cut does).

        Where rows were ordered by their tokens before they were cut (the manifest's `order`), it is a copy, made once.
        Where a store's hidden states do not stay here, it is a copy too. bfloat16, which NumPy does not know, widens to
        float32: a copy, anew at each call. `to_torch` has it as it is.

        Raises:
            CacheError: this is the `tokens` view, whose rows differ in length; see `tokens`. Or a store's rows do not
                fit into the memory that is free.
            DamagedFeatureSet: a value is not finite, or a shard is not what its manifest says.
        """
        self._refuse_tokens()
        return to_float32(self._states.matrix, self._states.dtype)

    @property
    def y(self) -> np.ndarray | None:
        """`[n]` int64 class numbers, or None where the split is unlabelled."""
        labels = self._index.labels
        return None if labels is None else labels.astype(np.int64)

    @property
    def texts(self) -> list[str]:
        """`[n]` the sentences."""
        return list(self.columns("text")["text"].to_pylist())

    @property
    def sample_ids(self) -> np.ndarray:
        """`[n]` int64, the examples' own numbers in their source."""
        return np.asarray(self.columns("idx")["idx"].to_numpy(), dtype=np.int64)

    @property
    def sources(self) -> tuple[str, ...] | None:
        """`[n]` codes of where the sentences are from (CoLA's), or None where no row has one."""
        codes = self.columns("source")["source"]
        return None if codes.null_count == len(codes) else tuple(codes.to_pylist())

    def tokens(self, row: int) -> np.ndarray:
        """The `tokens` view's hidden states `[t, d]` of one row: its sentence's positions and what follows them.

        Raises:
            CacheError: this is a pooled view.
            IndexError: there is no such row.
            DamagedFeatureSet: a value is not finite.
        """
        return to_float32(self.stored(row), self._states.dtype)

    def stored(self, row: int) -> np.ndarray:
        """`tokens` as the shard stores them: bfloat16 as raw bits, uint16."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        if not self.is_tokens:
            raise CacheError("a pooled view has one vector a row; read X", where=self.manifest.name)
        return self._states.row_of_tokens(row)

    @property
    def stays(self) -> bool:
        """Whether hidden states that are read stay on this machine: those of a store with a local limit do not."""
        return self._files.stay

    def shard(self, number: int) -> ShardData:
        """A shard's hidden states as they lie in the file, mapped and not read.

        Where they do not stay here, hold no more than one at a time: what is held takes its room on the disk.
        """
        return self._states.shard(number)

    @property
    def shards(self) -> list[ShardData]:
        """All shards, as in `shard`."""
        return [self._states.shard(number) for number in range(self.manifest.shards)]

    @property
    def rows_of_shards(self) -> list[np.ndarray]:
        """For each shard, the rows that it holds, `[k]` int64, ascending."""
        rows = np.argsort(self._index.places)
        places = [self.manifest.places_of(number) for number in range(self.manifest.shards)]
        return [rows[each.start : each.stop] for each in places]

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of some rows of a pooled view, `[len(rows), d]` in the storage dtype; no other row is read.

        Args:
            rows: from 0; any order, any number of times. bfloat16 comes as raw bits, uint16.

        Raises:
            CacheError: this is the `tokens` view.
            ConfigError: these are no row numbers (a mask, floats), or no plain sequence of them.
            IndexError: there is no such row.
            DamagedFeatureSet: a value of these rows is not finite.
        """
        self._refuse_tokens()
        return self._states.gather(self._rows(rows))

    def take_y(self, rows: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """The class numbers `[len(rows)]` int64 of some rows, or None where the split is unlabelled.

        Args, raises: as `take`; DamagedFeatureSet where an index is not what its seal and manifest say.
        """
        numbers, labels = self._rows(rows), self._index.labels
        return None if labels is None else labels[numbers].astype(np.int64)

    def _rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = row_numbers(rows)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(self)}")
        return numbers

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        block_rows: int | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[np.ndarray | list[np.ndarray], np.ndarray | None, np.ndarray]]:
        """One epoch in batches, for feature sets larger than memory: no more than four blocks are held at once.

        Shuffled, blocks of neighbouring rows come in random order, and the rows of four blocks are shuffled together.
        An epoch holds every row once; (seed, epoch) decides its order.

        Args:
            batch_size: rows a batch; the last one has what is left, or is left out with `drop_last`.
            block_rows: rows a block; by default what fills 16 MiB.

        Yields:
            X `[b, d]` (of the tokens view a list of `[t, d]`) as in `X`, y `[b]` or None, rows `[b]` int64.

        Raises:
            ConfigError: a size is less than one, or a seed is negative.
            DamagedFeatureSet: a value is not finite.
        """
        if block_rows is None:
            block_rows = max(1, BLOCK_BYTES // (self.hidden_size * RAW[self._states.dtype].itemsize))
        least = {"batch_size": (batch_size, 1), "block_rows": (block_rows, 1), "seed": (seed, 0), "epoch": (epoch, 0)}
        for name, (value, limit) in least.items():
            if value < limit:
                raise ConfigError("a setting is too small", where=name, expected=f"{limit} or more", found=value)
        windows = plan_windows(len(self), block_rows, shuffle=shuffle, seed=seed, epoch=epoch)
        return self._batches(windows, batch_size, drop_last)

    def _batches(
        self, windows: Iterator[np.ndarray], batch_size: int, drop_last: bool
    ) -> Iterator[tuple[np.ndarray | list[np.ndarray], np.ndarray | None, np.ndarray]]:
        _ = self._index.labels  # what is wrong with them is said before the first batch
        if self.is_tokens:
            for rows, parts in read_batches(windows, self._tokens_of, batch_size, drop_last=drop_last):
                yield parts, self.take_y(rows), rows
            return
        for rows, bits in read_batches(windows, self._states.gather, batch_size, drop_last=drop_last):
            yield to_float32(bits, self._states.dtype), self.take_y(rows), rows

    def _tokens_of(self, rows: np.ndarray) -> list[np.ndarray]:
        return [np.array(self.tokens(int(row))) for row in rows]

    def to_torch(self) -> "torch.Tensor":
        """`X` as a torch tensor `[n, d]` of the storage dtype, bfloat16 included.

        A memory map wherever `X` is one. The tensor may be written to: what is written stays in this process's memory,
        page by page, and never reaches a file.

        Raises:
            CacheError, DamagedFeatureSet: as `X`.
        """
        from pipeline.cache.torch_data import as_tensor

        self._refuse_tokens()
        return as_tensor(self._states.private_matrix(), self._states.dtype)

    def torch_dataset(self) -> "FeatureDataset":
        """A map-style torch `Dataset` of `{"X", "y", "row"}`, for a `DataLoader` with any number of workers.

        Pass `collate_fn=dataset.collate` to have the `tokens` view's rows padded.
        """
        from pipeline.cache.torch_data import FeatureDataset

        return FeatureDataset(self)

    def to_parquet(self, path: Path | str) -> None:
        """Write the index's columns and `hidden_states` as one Parquet file, shard by shard.

        `hidden_states` is a list of `d` numbers a row, of the tokens view a list of such lists; bfloat16, which
        Parquet does not know, widens to float32. The file appears at `path` when it is whole.

        Raises:
            CacheError: it cannot be written.
            DamagedFeatureSet: a value is not finite.
        """
        from pipeline.cache.export import write_parquet

        write_parquet(self.tables(), Path(path))

    def to_dataset(self) -> "datasets.Dataset":
        """A Hugging Face `Dataset` with the columns of `to_parquet`; labels are a `ClassLabel` with the classes' names.

        float32 and float16 hidden states stay the memory maps that they are.

        Raises:
            MissingPackage: datasets is not installed.
            DamagedFeatureSet: a value is not finite.
        """
        from pipeline.cache.export import make_dataset

        return make_dataset(self)

    def tables(self) -> Iterator[pa.Table]:
        """Shard by shard, the index and the hidden states as one Arrow table, as in `to_parquet`."""
        from pipeline.cache.export import states_column

        for number in range(self.manifest.shards):
            places = self.manifest.places_of(number)
            index = self._index.part(number)
            is_map = self.manifest.order == "split" and self.stays
            data = self._states.shard(number) if is_map else self._some_rows(places)
            yield index.append_column("hidden_states", states_column(data))

    def _some_rows(self, rows: range) -> ShardData:
        """A copy of neighbouring rows, laid out as a shard."""
        if not self.is_tokens:
            return ShardData(self._states.gather(np.asarray(rows)), None, self._states.dtype)
        parts = [self._states.row_of_tokens(row) for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts])))
        return ShardData(np.concatenate(parts), offsets, self._states.dtype)

    def _refuse_tokens(self) -> None:
        if self.is_tokens:
            raise CacheError(
                "the tokens view has no [n, d] matrix",
                where=self.manifest.name,
                remedy="read FeatureSet.tokens, or open a pooled view (last, mean, first)",
            )


def _reopen(folder: str, verify: bool, seals: str, copy: "LocalCopy | None" = None) -> FeatureSet:
    feature_set = FeatureSet(folder, verify=verify, copy=copy)
    if feature_set.manifest.seals != seals:
        raise DamagedFeatureSet(
            "a feature set was written anew since it was opened",
            where=folder,
            expected=seals,
            found=feature_set.manifest.seals,
            remedy="open it again",
        )
    return feature_set
