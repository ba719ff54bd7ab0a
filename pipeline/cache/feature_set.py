"""A feature set, opened: the matrix that heads train on, its labels and its index, rows in data-set order."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.cache.index import read_index
from pipeline.cache.manifest import Manifest, shard_paths
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.seal import Seal, digest_of_seals
from pipeline.cache.shard import REPAIR, ShardData, map_shard, to_float32
from pipeline.errors import CacheError, DamagedFeatureSet

if TYPE_CHECKING:
    import torch


class FeatureSet:
    """One view of one task split under one identity.

    Opening checks the manifest against the seals, and the seals against the files' sizes. Values are read when they are
    asked for; non-finite ones never pass.

    Args:
        folder: the feature set's folder.

    Raises:
        DamagedFeatureSet: a file is missing, has another size than its seal says, or contradicts the manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        seals = [self._checked_seal(number) for number in range(self.manifest.shards)]
        if digest_of_seals(seals) != self.manifest.seals:
            raise DamagedFeatureSet(
                "the manifest is not about these shards",
                where=folder,
                expected=self.manifest.seals,
                found=digest_of_seals(seals),
                remedy=REPAIR,
            )
        if dict(self.manifest.passport) != passport_of_seals(seals):
            raise DamagedFeatureSet(
                "the manifest's passport is not that of its shards",
                where=folder,
                expected=passport_of_seals(seals),
                found=self.manifest.passport,
                remedy=REPAIR,
            )

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        m = self.manifest
        return f"FeatureSet({m.task}/{m.split}/{m.name}, rows={m.rows}, hidden_size={self.hidden_size})"

    @property
    def hidden_size(self) -> int:
        """Numbers a hidden state."""
        return int(self.manifest.identity.architecture["hidden_size"])

    @property
    def fingerprint(self) -> str:
        """The identity's SHA-256."""
        return self.manifest.fingerprint

    @cached_property
    def index(self) -> pa.Table:
        """Row by row: place, example number, label, text, source, tokens, and where it was pooled."""
        tables = [read_index(shard_paths(self.folder, number)[1]) for number in range(self.manifest.shards)]
        index = pa.concat_tables(tables).combine_chunks()
        if not np.array_equal(index["row"].to_numpy(), np.arange(len(self))):
            raise DamagedFeatureSet(
                "the index does not hold every row once, in order", where=self.folder, remedy=REPAIR
            )
        if index["label"].null_count != (0 if self.manifest.labelled else len(self)):
            raise DamagedFeatureSet(
                "the manifest and the index disagree on labels: one has a label where the other has no class",
                where=self.folder,
                expected="every row labelled" if self.manifest.labelled else "no row labelled",
                found=f"{index['label'].null_count} rows without a label",
                remedy=REPAIR,
            )
        return index

    @property
    def X(self) -> np.ndarray:
        """`[n, d]` float32 or float16: a memory map where there is one shard, else one array.

        Raises:
            CacheError: this is the `tokens` view, whose rows differ in length; see `tokens`.
            DamagedFeatureSet: a value is not finite.
        """
        if self.manifest.identity.pooling == "tokens":
            raise CacheError(
                "the tokens view has no [n, d] matrix",
                where=self.manifest.name,
                remedy="read FeatureSet.tokens, or open a pooled view (last, mean, first)",
            )
        parts = [to_float32(data.hidden_states, data.dtype) for data in self.shards]
        for number, part in enumerate(parts):
            self._check_finite(part, number)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def y(self) -> np.ndarray | None:
        """`[n]` int64 class numbers, or None where the split is unlabelled."""
        labels = self.index["label"]
        if not self.manifest.labelled:
            return None
        y = labels.to_numpy()
        if y.min() < 0 or y.max() >= len(self.manifest.labels):
            raise DamagedFeatureSet("the index holds a label that is no class", where=self.folder, remedy=REPAIR)
        return np.asarray(y, dtype=np.int64)

    @property
    def texts(self) -> list[str]:
        """`[n]` the sentences."""
        return list(self.index["text"].to_pylist())

    @property
    def sample_ids(self) -> np.ndarray:
        """`[n]` int64, the examples' own numbers in their source."""
        return np.asarray(self.index["idx"].to_numpy(), dtype=np.int64)

    def tokens(self, row: int) -> np.ndarray:
        """The `tokens` view's hidden states `[t, d]` of one row: its sentence's positions and what follows them.

        Raises:
            CacheError: this is a pooled view.
            IndexError: there is no such row.
            DamagedFeatureSet: a value is not finite.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        number, place = divmod(row, self.manifest.shard_rows)
        data = self.shards[number]
        if data.offsets is None:
            raise CacheError("a pooled view has one vector a row; read X", where=self.manifest.name)
        values = to_float32(data.hidden_states[data.offsets[place] : data.offsets[place + 1]], data.dtype)
        self._check_finite(values, number)
        return values

    def to_torch(self) -> "torch.Tensor":
        """`X` as a torch tensor `[n, d]` of the storage dtype, bfloat16 included."""
        import torch

        X = torch.from_numpy(np.array(self.X))
        return X.bfloat16() if self.manifest.identity.storage_dtype == "bfloat16" else X

    @cached_property
    def shards(self) -> list[ShardData]:
        """The shards' hidden states as they lie in the files, mapped and not read."""
        shards = []
        for number in range(self.manifest.shards):
            path = shard_paths(self.folder, number)[0]
            data = map_shard(path, self.manifest.identity.storage_dtype, self.hidden_size)
            is_tokens = self.manifest.identity.pooling == "tokens"
            if data.rows != self._rows(number) or (data.offsets is not None) != is_tokens:
                raise DamagedFeatureSet(
                    "a shard holds another number of rows than its place needs",
                    where=path,
                    expected=self._rows(number),
                    found=data.rows,
                    remedy=REPAIR,
                )
            shards.append(data)
        return shards

    def _rows(self, number: int) -> int:
        return min(self.manifest.shard_rows, self.manifest.rows - number * self.manifest.shard_rows)

    def _checked_seal(self, number: int) -> Seal:
        states, index, seal_path = shard_paths(self.folder, number)
        seal = Seal.read(seal_path)
        for path, size_bytes in ((states, seal.states_bytes), (index, seal.index_bytes)):
            found = path.stat().st_size if path.is_file() else "no such file"
            if found != size_bytes:
                raise DamagedFeatureSet(
                    "a file of a shard is not as long as its seal says",
                    where=path,
                    expected=f"{size_bytes} bytes",
                    found=f"{found} bytes" if isinstance(found, int) else found,
                    remedy=REPAIR,
                )
        return seal

    def _check_finite(self, values: np.ndarray, number: int) -> None:
        if not np.isfinite(values).all():
            raise DamagedFeatureSet(
                "a shard holds a value that is not finite",
                where=shard_paths(self.folder, number)[0],
                expected="finite numbers, as when it was written",
                found="NaN or infinity",
                remedy=REPAIR,
            )
