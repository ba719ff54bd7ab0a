"""Rows out of CSV, TSV, Parquet and JSON-lines files, with the line that each stood on."""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
SURROGATE = re.compile(r"\\u[dD]")
"""Half of a character, if the other half does not stand beside it."""


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

    def column(
        self, name: str, remedy: str = "rename the column, or name yours with --text-column and --label-column"
    ) -> list[object]:
        """The column called `name`.

        Args:
            remedy: what to do where there is none.

        Raises:
            DataError: the file has no such column.
        """
        if name not in self.columns:
            raise DataError(
                "the file has the wrong columns",
                where=self.path,
                expected=f"a column {name!r}",
                found=", ".join(map(repr, self.columns)) or "none",
                remedy=remedy,
            )
        return self.columns[name]


@dataclass(frozen=True)
class Rows:
    """A file's rows, read as they are asked for.

    Args:
        path: the file.
        names: of its columns.
        rows: of each row its line, from 1, and its values in the order of the names.
    """

    path: Path
    names: tuple[str, ...]
    rows: Iterator[tuple[int, Sequence[object]]]

    def table(self) -> Table:
        """All of them."""
        rows = list(self.rows)
        columns = {name: [values[place] for _, values in rows] for place, name in enumerate(self.names)}
        return Table(self.path, columns, [line for line, _ in rows])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file, cut at newlines alone, with their numbers from 1.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    place = 0
    try:
        with path.open("rb") as file:
            for line, content in enumerate(file, start=1):
                text = content.decode("utf-8-sig" if line == 1 else "utf-8")
                place += len(content)
                yield line, text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    except OSError as error:
        raise DataError("the file cannot be read", where=path, found=error.strerror) from error
    except UnicodeDecodeError as error:
        found = f"byte {place + error.start}: {error.reason}"
        raise DataError("the file is not UTF-8", where=path, found=found) from error


def read_tsv(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Read a tab-separated file with quoting off, as GLUE writes it.

    Args:
        path: the file.
        columns: the columns' names, for a file without a header; None takes them from the first line.

    Raises:
        DataError: the file cannot be read, or a line has another number of fields than there are columns.
    """
    return _tsv_rows(path, columns).table()


def _tsv_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    return _with_names(path, ((line, text.split("\t")) for line, text in _lines(path)), columns)


def _csv_rows(path: Path) -> Rows:
    def rows() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader((text + "\n" for _, text in _lines(path)), strict=True)
        width, empty = 0, list[int]()
        try:
            for row in reader:
                if not row:
                    empty.append(reader.line_num)
                    continue
                if width == 1:  # an empty line is an empty cell there, unless nothing comes behind it
                    yield from ((line, [""]) for line in empty)
                width, empty = width or len(row), []
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(
                "the file is not CSV",
                where=f"{path}, row {reader.line_num}",
                found=error,
                remedy="look for a quotation mark that is never closed: all behind it is one cell; a file whose cells "
                f"are longer than {csv.field_size_limit():,} characters can be .tsv, .jsonl or .parquet",
            ) from error

    return _with_names(path, rows(), None)


def _with_names(path: Path, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str] | None) -> Rows:
    if columns is None:
        _, columns = next(rows, (0, None))
    if columns is None:
        raise DataError("the file is empty", where=path, expected="a line of column names")
    names = tuple(columns)
    check_names(names, path)

    def checked() -> Iterator[tuple[int, list[str]]]:
        for line, row in rows:
            if len(row) != len(names):
                raise DataError(
                    "a row has the wrong number of columns",
                    where=f"{path}, row {line}",
                    expected=f"{len(names)} ({', '.join(names)})",
                    found=f"{len(row)}: {row!r:.120}",
                )
            yield line, row

    return Rows(path, names, checked())


def check_names(names: Sequence[str], where: Path | str) -> None:
    """Refuse names of columns that do not tell them apart.

    Raises:
        DataError: two are the same.
    """
    if len(set(names)) != len(names):
        raise DataError("two columns have one name", where=where, found=", ".join(names))


def _parse_json(text: str, where: str) -> Any:
    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check_names([name for name, _ in pairs], where)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=named)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # also numbers of too many digits, and what is no Unicode
        raise DataError("a line is not JSON that can be read", where=where, found=error) from error
    return value


def _jsonl_rows(path: Path) -> Rows:
    def records() -> Iterator[tuple[int, dict[str, object]]]:
        first: dict[str, object] | None = None
        for line, text in _lines(path):
            record = _parse_json(text, f"{path}, row {line}")
            if not isinstance(record, dict) or (first is not None and record.keys() != first.keys()):
                raise DataError(
                    "a line has the wrong columns",
                    where=f"{path}, row {line}",
                    expected=f"an object with {', '.join(first)}" if first else "an object",
                    found=text[:120],
                )
            first = record if first is None else first
            yield line, record

    rows = records()
    head = next(rows, None)
    names = tuple(head[1]) if head else ()
    there = itertools.chain([head] if head else [], rows)
    return Rows(path, names, ((line, [record[name] for name in names]) for line, record in there))


TEXT_ROWS: Mapping[str, Callable[[Path], Rows]] = {".csv": _csv_rows, ".tsv": _tsv_rows, ".jsonl": _jsonl_rows}


def open_rows(path: Path) -> Rows:
    """The rows of a text file by its suffix, `.csv`, `.tsv` or `.jsonl`, in no more memory than one of them takes.

    Raises:
        DataError: now or while rows are read: the file is not what its suffix says.
    """
    return TEXT_ROWS[check_suffix(path)](path)


def check_suffix(path: Path) -> str:
    """The suffix of a file that can be read, in small letters.

    Raises:
        DataError: it is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError("no reader for such a file", where=path, expected=" | ".join(SUFFIXES), found=path.suffix)
    return suffix


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, path)
            table = file.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise not_parquet(path, error) from error
    return Table(path, table.to_pydict(), list(range(1, table.num_rows + 1)))


def not_parquet(path: Path, error: Exception) -> DataError:
    """The error for a file that is not there, or not what its suffix says."""
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file", where=path, remedy="check the path: it is taken from this folder on")
    return DataError("the file is not Parquet", where=path, found=error)


def read_table(path: Path) -> Table:
    """Read a file by its suffix: `.csv`, `.tsv`, `.parquet` or `.jsonl`.

    Raises:
        DataError: the suffix is unknown, or the file is not what its suffix says.
    """
    return _read_parquet(path) if check_suffix(path) == ".parquet" else open_rows(path).table()
