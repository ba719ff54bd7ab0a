"""The index of a feature set over all of its shards: of its columns those that are asked for, in the split's order."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.cache.index import SCHEMA, read_open_index
from pipeline.cache.manifest import Manifest
from pipeline.cache.sealed_files import INDEX, SealedFiles
from pipeline.cache.shard import REPAIR
from pipeline.errors import DamagedFeatureSet

CHECKED = ("row", "label")
"""Columns that are read whatever is asked for: an index of other rows, or labelled otherwise, is never served."""


class StoredIndex:
    """What the shards' indices hold, row by row. A column is read when it is first asked for, and kept.

    Args:
        files: the shards, sealed.
        manifest: what they hold.
    """

    def __init__(self, files: SealedFiles, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._columns: dict[str, pa.ChunkedArray] = {}

    def columns(self, names: Sequence[str] = SCHEMA.names) -> pa.Table:
        """Some columns, or all; those that are not kept yet are read together.

        Raises:
            KeyError: the index has no such column.
            DamagedFeatureSet: an index is not what its seal and manifest say.
        """
        for name in names:
            if name not in SCHEMA.names:
                raise KeyError(name)
        missing = [name for name in dict.fromkeys(names) if name not in self._columns]
        if missing:
            table = pa.concat_tables(self._shards(missing)).combine_chunks()
            if self._manifest.order != "split":
                table = table.take(self.places)
            self._columns |= {name: table[name] for name in missing}
        schema = pa.schema([SCHEMA.field(name) for name in dict.fromkeys(names)])
        return pa.table([self._columns[name] for name in schema.names], schema=schema)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """`[n]` class numbers in as few bytes as they need, or None where the split is unlabelled.

        Raises:
            DamagedFeatureSet: as `columns`; or a label is no class.
        """
        classes = len(self._manifest.labels)
        labels = np.empty(self._manifest.rows, dtype=np.min_scalar_type(classes))
        for number, table in enumerate(self._shards(["label"])):
            if self._manifest.labelled:
                y = table["label"].to_numpy()
                if y.size and not 0 <= y.min() <= y.max() < classes:
                    raise DamagedFeatureSet(
                        "the index holds a label that is no class", where=self._files.folder, remedy=REPAIR
                    )
                places = self._manifest.places_of(number)
                labels[places.start : places.stop] = y
        if not self._manifest.labelled:
            return None
        return labels if self._manifest.order == "split" else labels[self.places]

    @cached_property
    def places(self) -> np.ndarray:
        """`[n]` int64: where each row of the split stands in the shards' own order; errors as in `columns`."""
        if self._manifest.order == "split":
            return np.arange(self._manifest.rows)
        rows = np.concatenate([table["row"].to_numpy() for table in self._shards(["row"])])
        places = np.argsort(rows)
        if not np.array_equal(rows[places], np.arange(self._manifest.rows)):
            raise self._wrong_rows()
        return places

    def part(self, number: int) -> pa.Table:
        """All columns of the rows at shard `number`'s places, counted in the split's order; errors as in `columns`.

        Where shards hold the rows as the split does, no other shard is read.
        """
        if self._manifest.order == "split":
            return self._shard(number, SCHEMA.names)
        places = self._manifest.places_of(number)
        return self.columns().slice(places.start, len(places))

    def _shards(self, names: Sequence[str]) -> Iterator[pa.Table]:
        return (self._shard(number, names) for number in range(self._manifest.shards))

    def _shard(self, number: int, names: Sequence[str]) -> pa.Table:
        path, seal = self._files.path(number, INDEX), self._files.seals[number]
        with self._files.open(number, INDEX) as file:
            table = read_open_index(file, path, rows=seal.rows, columns=list(dict.fromkeys([*names, *CHECKED])))
        rows, is_split = table["row"].to_numpy(), self._manifest.order == "split"
        if not (np.array_equal(rows, self._manifest.places_of(number)) if is_split else (np.diff(rows) > 0).all()):
            raise self._wrong_rows()
        if table["label"].null_count != (0 if self._manifest.labelled else len(table)):
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
