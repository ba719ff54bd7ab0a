"""The index of a feature set over all of its shards: of its columns those that are asked for, in the split's order."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.cache.index import SCHEMA, read_open_index
from pipeline.cache.manifest import Manifest
from pipeline.cache.sealed_files import INDEX, SealedFiles
from pipeline.cache.shard import REPAIR
from pipeline.errors import DamagedFeatureSet


class StoredIndex:
    """What the shards' indices hold, row by row.

    A column is read when it is first asked for, and kept. Labels of some rows are read from these rows' shards alone,
    and kept in as few bytes a row as the classes need.

    Args:
        files: the shards, sealed.
        manifest: what they hold.
    """

    def __init__(self, files: SealedFiles, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._labels: dict[int, np.ndarray] = {}

    @cached_property
    def table(self) -> pa.Table:
        """All columns.

        Raises:
            DamagedFeatureSet: an index is not what its seal and manifest say.
        """
        return self._read(SCHEMA.names)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column; errors as in `table`."""
        if "table" in self.__dict__:
            return self.table[name]
        if name not in self._columns:
            self._columns[name] = self._read([name])[name]
        return self._columns[name]

    @cached_property
    def places(self) -> np.ndarray:
        """`[n]` int64: where each row of the split stands in the shards' own order; errors as in `table`."""
        if self._manifest.order == "split":
            return np.arange(self._manifest.rows)
        rows = self._in_the_shards_order(["row"])["row"].to_numpy()
        places = np.argsort(rows)
        if not np.array_equal(rows[places], np.arange(self._manifest.rows)):
            raise self._wrong_rows()
        return places

    def shard(self, number: int) -> pa.Table:
        """All columns of the rows that stand at a shard's places in the split's order; errors as in `table`."""
        places = self._manifest.places_of(number)
        if self._manifest.order == "split" and "table" not in self.__dict__:
            return self._read_shard(number, SCHEMA.names)
        return self.table.slice(places.start, len(places))

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """The class numbers `[len(rows)]` int64 of some rows, or None where the split is unlabelled.

        Raises:
            DamagedFeatureSet: as `table`; or a label is no class.
        """
        if not self._manifest.labelled:
            return None
        places = rows if self._manifest.order == "split" else self.places[rows]
        numbers = places // self._manifest.shard_rows
        labels = np.empty(len(rows), dtype=np.int64)
        for number in np.unique(numbers):
            of_shard = numbers == number
            labels[of_shard] = self._labels_of_shard(int(number))[places[of_shard] - number * self._manifest.shard_rows]
        return labels

    def _labels_of_shard(self, number: int) -> np.ndarray:
        if number not in self._labels:
            labels = self.checked_labels(self._read_shard(number, ["label"])["label"])
            self._labels[number] = labels.astype(np.min_scalar_type(len(self._manifest.labels)))
        return self._labels[number]

    def checked_labels(self, labels: pa.ChunkedArray) -> np.ndarray:
        """Labels as int64.

        Raises:
            DamagedFeatureSet: one is no class.
        """
        y = np.asarray(labels.to_numpy(), dtype=np.int64)
        if y.size and not 0 <= y.min() <= y.max() < len(self._manifest.labels):
            raise DamagedFeatureSet("the index holds a label that is no class", where=self._files.folder, remedy=REPAIR)
        return y

    def _read(self, names: Sequence[str]) -> pa.Table:
        table = self._in_the_shards_order(names).combine_chunks()
        return table if self._manifest.order == "split" else table.take(self.places)

    def _in_the_shards_order(self, names: Sequence[str]) -> pa.Table:
        return pa.concat_tables(self._read_shard(number, names) for number in range(self._manifest.shards))

    def _read_shard(self, number: int, names: Sequence[str]) -> pa.Table:
        path, seal = self._files.path(number, INDEX), self._files.seals[number]
        with self._files.open(number, INDEX) as file:
            table = read_open_index(file, path, rows=seal.rows, columns=list(dict.fromkeys([*names, "row"])))
        rows = table["row"].to_numpy()
        in_order = (
            np.array_equal(rows, self._manifest.places_of(number))
            if self._manifest.order == "split"
            else bool((np.diff(rows) > 0).all())
        )
        if not in_order:
            raise self._wrong_rows()
        if "label" in names and table["label"].null_count != (0 if self._manifest.labelled else len(table)):
            raise DamagedFeatureSet(
                "the manifest and the index disagree on labels: one has a label where the other has no class",
                where=self._files.folder,
                expected="every row labelled" if self._manifest.labelled else "no row labelled",
                found=f"{table['label'].null_count} rows without a label in shard {number}",
                remedy=REPAIR,
            )
        return table.select(names)

    def _wrong_rows(self) -> DamagedFeatureSet:
        return DamagedFeatureSet(
            "the index does not hold every row once, in order", where=self._files.folder, remedy=REPAIR
        )
