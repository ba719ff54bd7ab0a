"""Tables of any size, in parts: read from CSV, TSV, JSON-lines or Parquet files, and written to them."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.tasks.tables import check_suffix, open_rows

Column: TypeAlias = list[Any] | pa.ChunkedArray


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

    def table(self) -> pa.Table:
        """All of it as Arrow has it; a column without a value holds texts."""
        arrays = {name: pa.array(c) if isinstance(c, list) else c for name, c in self.columns.items()}
        return pa.table({n: a.cast(pa.string()) if pa.types.is_null(a.type) else a for n, a in arrays.items()})


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
            for batch in file.iter_batches(batch_size=rows):  # which end where row groups do
                more = pa.Table.from_batches([batch])
                waiting = more if waiting is None else pa.concat_tables([waiting, more])
                while waiting.num_rows >= rows:
                    yield _sheet(waiting.slice(0, rows), done)
                    done, waiting = done + rows, waiting.slice(rows)
            if waiting is not None and waiting.num_rows:
                yield _sheet(waiting, done)
    except (pa.ArrowException, OSError) as error:
        raise DataError("the file is not Parquet", where=path, found=error) from error


def _sheet(table: pa.Table, before: int) -> Sheet:
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return Sheet(columns, range(before + 1, before + table.num_rows + 1))


class SheetWriter(ABC):
    """Writes sheets of the same columns to one file. A context manager.

    Args:
        path: where nothing is yet.
        shown: the path that people know, for errors.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path, self.shown = path, shown

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

    def write(self, sheet: Sheet) -> None:
        if self._file is None:
            self._file = self.path.open("x", encoding="utf-8", newline="")
            self.begin(self._file, list(sheet.columns))
        for line, values in zip(sheet.lines, sheet.rows(), strict=True):
            self.add(self._file, list(sheet.columns), values, line)

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
        file.write("\t".join(names) + "\n")

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
        file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


class _Parquet(SheetWriter):
    _writer: pq.ParquetWriter | None = None

    def write(self, sheet: Sheet) -> None:
        try:
            table = sheet.table()
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.path, table.schema)
            self._writer.write_table(table.cast(self._writer.schema))
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                "a column has values of several kinds, which Parquet cannot hold",
                where=f"{self.shown}, of rows {sheet.lines[0]} to {sheet.lines[-1]}",
                found=error,
                remedy="write to .csv, .tsv or .jsonl",
            ) from error

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


WRITERS: Mapping[str, type[SheetWriter]] = {".csv": _Csv, ".tsv": _Tsv, ".jsonl": _Jsonl, ".parquet": _Parquet}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if isinstance(value, str) else str(value)
