"""Rows out of CSV, TSV, Parquet and JSON-lines files, with the line that each stood on."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Table:
    """A file's columns.

    Args:
        path: the file.
        columns: by name, `[n]` values each.
        lines: `[n]` the line (for Parquet: the row) that each value stands on, from 1.
    """

    path: Path
    columns: dict[str, list[object]]
    lines: list[int]

    def column(self, name: str) -> list[object]:
        """The column called `name`.

        Raises:
            DataError: the file has no such column.
        """
        if name not in self.columns:
            raise DataError(
                "the file has the wrong columns",
                where=self.path,
                expected=f"a column {name!r}",
                found=", ".join(map(repr, self.columns)) or "none",
                remedy="rename the column, or name yours with --text-column and --label-column",
            )
        return self.columns[name]


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, cut at newlines alone.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError("the file cannot be read", where=path, found=error.strerror) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=path, found=f"byte {error.start}: {error.reason}") from error
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def read_tsv(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Read a tab-separated file with quoting off, as GLUE writes it.

    Args:
        path: the file.
        columns: the columns' names, for a file without a header; None takes them from the first line.

    Raises:
        DataError: the file cannot be read, or a line has another number of fields than there are columns.
    """
    rows = [line.split("\t") for line in read_lines(path)]
    return _table(path, rows, list(range(1, len(rows) + 1)), columns)


def _read_csv(path: Path) -> Table:
    rows, lines = [], []
    reader = csv.reader(io.StringIO("\n".join(read_lines(path)), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError("the file is not CSV", where=f"{path}, row {reader.line_num}", found=error) from error
    return _table(path, rows, lines, None)


def _table(path: Path, rows: list[list[str]], lines: list[int], columns: Sequence[str] | None) -> Table:
    if columns is None:
        if not rows:
            raise DataError("the file is empty", where=path, expected="a line of column names")
        columns, rows, lines = rows[0], rows[1:], lines[1:]
    if len(set(columns)) != len(columns):
        raise DataError("two columns have one name", where=path, found=", ".join(columns))
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(columns):
            raise DataError(
                "a row has the wrong number of columns",
                where=f"{path}, row {line}",
                expected=f"{len(columns)} ({', '.join(columns)})",
                found=f"{len(row)}: {row!r:.120}",
            )
    return Table(path, {name: [row[i] for row in rows] for i, name in enumerate(columns)}, lines)


def _read_jsonl(path: Path) -> Table:
    records: list[dict[str, object]] = []
    lines = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError("a line is not JSON", where=f"{path}, row {line}", found=error) from error
        if not isinstance(record, dict) or (records and record.keys() != records[0].keys()):
            raise DataError(
                "a line has the wrong columns",
                where=f"{path}, row {line}",
                expected=f"an object with {', '.join(records[0])}" if records else "an object",
                found=text[:120],
            )
        records.append(record)
        lines.append(line)
    names = list(records[0]) if records else []
    return Table(path, {name: [record[name] for record in records] for name in names}, lines)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError("the file is not Parquet", where=path, found=error) from error
    return Table(path, table.to_pydict(), list(range(1, table.num_rows + 1)))


def read_table(path: Path) -> Table:
    """Read a file by its suffix: `.csv`, `.tsv`, `.parquet` or `.jsonl`.

    Raises:
        DataError: the suffix is unknown, or the file is not what its suffix says.
    """
    readers = {".csv": _read_csv, ".tsv": read_tsv, ".parquet": _read_parquet, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise DataError("no reader for such a file", where=path, expected=" | ".join(SUFFIXES), found=path.suffix)
    return readers[path.suffix](path)
