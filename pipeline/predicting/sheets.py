"""Tables of any size, in parts: read from CSV, TSV, JSON-lines or Parquet files, and written to them."""

import csv
import json
import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, DataError
from pipeline.tasks.tables import check_names, check_suffix, not_parquet, open_rows

Column: TypeAlias = list[Any] | pa.ChunkedArray
Types: TypeAlias = Mapping[str, pa.DataType]
"""Of columns by name, as Arrow has them."""
UNFIT = (pa.ArrowException, ValueError, OverflowError)
"""What Arrow raises for values of several kinds, or too large."""


@dataclass(frozen=True)
class Sheet:
    """Some rows of a table.

    Args:
        columns: by name, `[n]` values; of a Parquet file as Arrow has them.
        lines: `[n]` the line (of a Parquet file the row) that each stands on, from 1.
    """

    columns: Mapping[str, Column]
    lines: Sequence[int]

    def values(self, name: str) -> list[Any]:
        """A column as Python has it."""
        return _as_list(self.columns[name])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The values of each row, in the columns' order."""
        return zip(*map(_as_list, self.columns.values()), strict=True)


def _as_list(column: Column) -> list[Any]:
    return column if isinstance(column, list) else list(column.to_pylist())


def read_sheets(path: Path, rows: int) -> Iterator[Sheet]:
    """Read a table so many rows at a time; no more are in memory.

    Raises:
        DataError: the file cannot be read, or is not what its suffix says.
    """
    if check_suffix(path) == ".parquet":
        yield from _parquet_sheets(path, rows)
        return
    opened = open_rows(path)
    while some := list(islice(opened.rows, rows)):
        columns = {name: [values[place] for _, values in some] for place, name in enumerate(opened.names)}
        yield Sheet(columns, [line for line, _ in some])


def _parquet_sheets(path: Path, rows: int) -> Iterator[Sheet]:
    done, waiting = 0, None
    try:
        with pq.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=rows):  # which end where row groups do
                batch.validate(full=True)
                more = pa.Table.from_batches([batch])
                waiting = more if waiting is None else pa.concat_tables([waiting, more])
                while waiting.num_rows >= rows:
                    yield _sheet(waiting.slice(0, rows), done)
                    done, waiting = done + rows, waiting.slice(rows)
            if waiting is not None and waiting.num_rows:
                yield _sheet(waiting, done)
    except (pa.ArrowException, OSError) as error:
        raise not_parquet(path, error) from error


def _sheet(table: pa.Table, before: int) -> Sheet:
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return Sheet(columns, range(before + 1, before + table.num_rows + 1))


class SheetWriter(ABC):
    """Writes sheets of the same columns to one file. A context manager.

    Args:
        path: where nothing is yet.
        shown: the path that people know, for errors.
        types: what `types_of` said of all rows.
    """

    def __init__(self, path: Path, shown: Path, types: Types | None = None) -> None:
        self.path, self.shown, self.types = path, shown, types or {}

    @classmethod
    @abstractmethod
    def types_of(cls, sheet: Sheet, before: Types, shown: Path) -> Types:
        """The columns' types, as far as such a file has some, of some rows and those before them.

        Raises:
            DataError: such a file cannot hold a column.
        """

    def __enter__(self) -> "SheetWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def write(self, sheet: Sheet) -> None:
        """Add rows.

        Raises:
            DataError: such a file cannot hold a value, or a column is not what it was in the rows before.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class _Lines(SheetWriter):
    """A text file."""

    _file: TextIO | None = None

    @classmethod
    def types_of(cls, sheet: Sheet, before: Types, shown: Path) -> Types:
        for name, column in sheet.columns.items():
            if isinstance(column, pa.ChunkedArray) and _holds_bytes(column.type):
                raise DataError(
                    "a text file cannot hold bytes",
                    where=f"{shown}, column {name!r}",
                    found=column.type,
                    remedy="write to .parquet, or leave the column out",
                )
        return before

    def write(self, sheet: Sheet) -> None:
        if self._file is None:
            self._file = self.path.open("x", encoding="utf-8", newline="")
            self.begin(self._file, list(sheet.columns))
        for line, values in zip(sheet.lines, sheet.rows(), strict=True):
            try:
                self.add(self._file, list(sheet.columns), values, line)
            except RecursionError as error:
                raise DataError("a value is nested too deep", where=f"{self.shown}, of row {line}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @abstractmethod
    def begin(self, file: TextIO, names: list[str]) -> None:
        """What stands before the rows."""

    @abstractmethod
    def add(self, file: TextIO, names: list[str], values: Sequence[Any], line: int) -> None:
        """One row."""


class _Csv(_Lines):
    def begin(self, file: TextIO, names: list[str]) -> None:
        csv.writer(file, lineterminator="\n").writerow(names)

    def add(self, file: TextIO, names: list[str], values: Sequence[Any], line: int) -> None:
        csv.writer(file, lineterminator="\n").writerow(map(_cell, values))


class _Tsv(_Lines):
    def begin(self, file: TextIO, names: list[str]) -> None:
        self.add(file, names, names, 1)

    def add(self, file: TextIO, names: list[str], values: Sequence[Any], line: int) -> None:
        cells = [_cell(value) for value in values]
        if wrong := [name for name, cell in zip(names, cells, strict=True) if set(cell) & set("\t\n\r")]:
            raise DataError(
                "a .tsv file cannot hold a tab or a newline",
                where=f"{self.shown}, of row {line}",
                found=f"one in the column {wrong[0]!r}",
                remedy="write to .csv, .jsonl or .parquet",
            )
        file.write("\t".join(cells) + "\n")


class _Jsonl(_Lines):
    def begin(self, file: TextIO, names: list[str]) -> None:
        pass

    def add(self, file: TextIO, names: list[str], values: Sequence[Any], line: int) -> None:
        record = dict(zip(names, values, strict=True))
        file.write(_json(record) + "\n")


class _Parquet(SheetWriter):
    _writer: pq.ParquetWriter | None = None

    @classmethod
    def types_of(cls, sheet: Sheet, before: Types, shown: Path) -> Types:
        types = dict(before)
        for name, column in sheet.columns.items():
            if isinstance(column, list):
                known = types.get(name, pa.null())
                try:
                    both = [pa.schema({name: type}) for type in (known, pa.array(column).type)]
                    types[name] = pa.unify_schemas(both, promote_options="permissive").field(name).type
                except UNFIT as error:
                    raise _unfit(sheet, name, known, shown, error) from error
        return types

    def write(self, sheet: Sheet) -> None:
        table = pa.table({name: self._array(sheet, name) for name in sheet.columns})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def _array(self, sheet: Sheet, name: str) -> pa.Array | pa.ChunkedArray:
        column, type_ = sheet.columns[name], self.types.get(name)
        if not isinstance(column, list):
            return column
        try:
            return pa.array(column, pa.string() if type_ == pa.null() else type_)  # without any value it holds texts
        except UNFIT as error:
            raise _unfit(sheet, name, type_, self.shown, error) from error

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


WRITERS: Mapping[str, type[SheetWriter]] = {".csv": _Csv, ".tsv": _Tsv, ".jsonl": _Jsonl, ".parquet": _Parquet}


def writer_of(path: Path) -> type[SheetWriter]:
    """What writes such a file.

    Raises:
        ConfigError: its suffix is another one.
    """
    if (suffix := path.suffix.lower()) not in WRITERS:
        raise ConfigError("the file's name does not say what to write", expected=" | ".join(WRITERS), found=path.name)
    return WRITERS[suffix]


def _unfit(sheet: Sheet, name: str, type_: pa.DataType | None, shown: Path, error: Exception) -> DataError:
    """The error for a column that is no Arrow array, with the first row that does not go with those before it."""
    values, known = sheet.values(name), None if type_ == pa.null() else type_

    def fails(row: int) -> bool:
        try:
            pa.array(values[: row + 1], known)
        except UNFIT:
            return True
        return False

    row = min(bisect_left(range(len(values)), True, key=fails), len(values) - 1)
    return DataError(
        "Parquet cannot hold a column's values: they are of several kinds, or too large",
        where=f"{shown}, column {name!r}, of row {sheet.lines[row]}",
        found=error,
        remedy="write to .csv, .tsv or .jsonl",
    )


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _holds_bytes(type_.value_type)
    parts = [type_.field(place).type for place in range(type_.num_fields)]
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(kind(type_) for kind in is_bytes) or any(map(_holds_bytes, parts))


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """Null in place of what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return _json(value)
    return value if isinstance(value, str) else str(value)
