"""Large files of rows, of which any stretch is read without the rest: Parquet by row group, JSON lines by offsets."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import DataError
from pipeline.file_memory import Facts, FileMemory, state_of
from pipeline.progress import say
from pipeline.user_cache import in_user_cache

MEMORY = "corpora.json"
LARGE_BYTES = 10_000_000_000
"""Files from this size on take so long to hash that it is said."""
BLOCK_BYTES = 1 << 24
MOST_OFFSETS = 1024
"""Of a file of JSON lines: at most so many lines have their offset remembered, evenly spaced."""


class RowFile(Protocol):
    """A file's rows.

    Args:
        path: the file.
        rows: how many.
        names: of its columns.
    """

    path: str
    rows: int
    names: tuple[str, ...]

    def read(self, first: int, stop: int, names: Sequence[str]) -> dict[str, list[object]]:
        """Columns of rows `first` to `stop`, by name."""


ELSEWHERE = slice(2, 4)
"""Of what `state_of` says of a file, what another machine sees as well: bytes and time of change."""


class Unchanged:
    """Tells whether a file is still the one that was hashed.

    Args:
        path: the file.
        state: as `state_of` had it before the file was hashed, the parts of it that are `seen`.
        seen: all of them here; once it has travelled, `ELSEWHERE`.
    """

    def __init__(self, path: str, state: Sequence[int], seen: slice = slice(None)) -> None:
        self.path, self._state, self._seen = path, list(state), seen

    def __reduce__(self) -> tuple[Any, ...]:
        state = self._state if self._seen == ELSEWHERE else self._state[ELSEWHERE]
        return Unchanged, (self.path, state, ELSEWHERE)

    def check(self) -> None:
        """Look at the file once more, after it was read.

        Raises:
            DataError: it was changed or replaced, or is another one on this machine.
        """
        try:
            now = state_of(Path(self.path))
        except OSError as error:
            raise DataError("a file went away while it was read", where=self.path, found=error) from error
        if now[self._seen] != self._state:
            raise DataError(
                "a file is not the one that was hashed before it was read",
                where=self.path,
                expected="the same bytes, time of change and place as then",
                found="a file that was changed or replaced since, or that another machine has otherwise",
                remedy="run the same command again: it takes the files as they are now; on several machines share a "
                "file system, or copy files with their times (rsync -a)",
            )


class ParquetFile:
    """A Parquet file's rows. The row group that was read last is kept: the next stretch is mostly of it too.

    Args:
        path: the file, or an fsspec URL.
        unchanged: tells whether it is still the one that was hashed; None of a URL, which names a commit.

    Raises:
        DataError: it is no Parquet.
    """

    def __init__(self, path: str, unchanged: Unchanged | None = None) -> None:
        self.path, self._unchanged = path, unchanged
        with self._opened("footer") as file:
            footer = file.metadata
            self.names = tuple(file.schema_arrow.names)
        self.rows = footer.num_rows
        lengths = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        self._firsts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        self._kept: tuple[tuple[int, tuple[str, ...]], Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetFile, (self.path, self._unchanged)

    def read(self, first: int, stop: int, names: Sequence[str]) -> dict[str, list[object]]:
        """As in `RowFile`."""
        found: dict[str, list[object]] = {name: [] for name in names}
        group = int(np.searchsorted(self._firsts, first, side="right")) - 1
        while first < stop:
            begins, ends = int(self._firsts[group]), int(self._firsts[group + 1])
            table = self._group(group, tuple(names)).slice(first - begins, min(stop, ends) - first)
            for name in names:
                found[name] += table[name].to_pylist()
            first, group = min(stop, ends), group + 1
        return found

    def _group(self, group: int, names: tuple[str, ...]) -> Any:
        if self._kept is None or self._kept[0] != (group, names):
            self._kept = None  # not two at once
            with self._opened(f"row group {group}") as file:
                table = file.read_row_group(group, columns=list(names))
                table.validate(full=True)
            self._kept = ((group, names), table)
        return self._kept[1]

    @contextlib.contextmanager
    def _opened(self, what: str) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if "://" in self.path:
                import fsspec

                with fsspec.open(self.path, "rb") as remote, pq.ParquetFile(remote) as file:
                    yield file
            else:
                with pq.ParquetFile(self.path) as file:
                    yield file
        except (pa.ArrowException, OSError) as error:
            if self._unchanged is not None:
                self._unchanged.check()
            raise DataError("the file cannot be read as Parquet", where=f"{self.path}, {what}", found=error) from error
        if self._unchanged is not None:
            self._unchanged.check()


class JsonLines:
    """A file of JSON lines; every line is a row.

    Args:
        path: the file.
        facts: as `measured` has them: the number of lines, and where some of them begin.
        unchanged: tells whether it is still the one that was hashed.

    Raises:
        DataError: the first line is no object.
    """

    def __init__(self, path: str, facts: Facts, unchanged: Unchanged) -> None:
        self.path, self._facts, self.rows, self._unchanged = path, facts, int(facts["rows"]), unchanged
        self.names: tuple[str, ...] = ()
        if self.rows:
            with Path(path).open("rb") as file:
                self.names = tuple(self._record(file.readline(), 0))

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonLines, (self.path, self._facts, self._unchanged)

    def read(self, first: int, stop: int, names: Sequence[str]) -> dict[str, list[object]]:
        """As in `RowFile`.

        Raises:
            DataError: a line is no object, or lacks a column; or the file is not the one that was hashed.
        """
        try:
            return self._read(first, stop, names)
        finally:
            self._unchanged.check()

    def _read(self, first: int, stop: int, names: Sequence[str]) -> dict[str, list[object]]:
        found: dict[str, list[object]] = {name: [] for name in names}
        every = int(self._facts["every"])
        with Path(self.path).open("rb") as file:
            file.seek(int(self._facts["offsets"][first // every]))
            for _ in range(first % every):
                file.readline()
            for row in range(first, stop):
                record = self._record(file.readline(), row)
                for name in names:
                    if name not in record:
                        raise DataError(
                            "a line has the wrong columns",
                            where=f"{self.path}, row {row + 1}",
                            expected=", ".join(names),
                            found=", ".join(record) or "none",
                        )
                    found[name].append(record[name])
        return found

    def _record(self, line: bytes, row: int) -> dict[str, object]:
        where = f"{self.path}, row {row + 1}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            found = f"{error.msg}, at character {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                "a line is not JSON that can be read",
                where=where,
                expected="an object a line, and no empty line",
                found=found,
                remedy="mend the line and run the same command again: the file is another one then, and all of its "
                "rows are computed",
            ) from error
        if not isinstance(record, dict):
            raise DataError("a line is no object", where=where, found=repr(record)[:120])
        return record


def open_row_files(paths: Sequence[str]) -> tuple[list[RowFile], list[str]]:
    """Files of rows, and what each of them is known by.

    Args:
        paths: of files, or URLs of Parquet files that name a commit, by which such a file is known.

    Returns:
        the files; and of each its SHA-256, hashed once, and again when it has changed, or its URL.

    Raises:
        DataError: a file is not what its suffix says.
    """
    here = [Path(path) for path in paths if "://" not in path]
    unchanged = {str(path): Unchanged(str(path), state_of(path)) for path in here}  # before they are hashed
    facts = FileMemory(in_user_cache(MEMORY), _is_sound).facts(here, measured)
    files: list[RowFile] = [
        ParquetFile(path, unchanged.get(path))
        if path.endswith(".parquet")
        else JsonLines(path, facts[Path(path)], unchanged[path])
        for path in paths
    ]
    return files, [path if "://" in path else str(facts[Path(path)]["sha256"]) for path in paths]


def measured(path: Path) -> Facts:
    """A file's `sha256`; of JSON lines also `rows`, and the `offsets` of every `every`-th line."""
    size_bytes = path.stat().st_size
    if size_bytes >= LARGE_BYTES:
        say(f"hashing {path.name}, {size_bytes / 1e9:.1f} GB: once, as long as it does not change")
    digest, lines = hashlib.sha256(), _Lines()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            if path.suffix != ".parquet":
                lines.feed(block)
    facts: dict[str, Any] = {"sha256": digest.hexdigest()}
    return facts if path.suffix == ".parquet" else facts | lines.facts()


class _Lines:
    """Counts lines, and keeps where every so-many-th begins."""

    def __init__(self) -> None:
        self._offsets, self._every, self._lines, self._bytes, self._ended = [0], 1, 0, 0, True

    def feed(self, block: bytes) -> None:
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
        numbers = self._lines + 1 + np.arange(len(ends))  # of the lines that begin behind these
        for number, end in zip(numbers[numbers % self._every == 0], ends[numbers % self._every == 0], strict=True):
            if number % self._every == 0:
                self._offsets.append(self._bytes + int(end) + 1)
            if len(self._offsets) > MOST_OFFSETS:
                self._offsets, self._every = self._offsets[::2], self._every * 2
        self._lines += len(ends)
        self._bytes += len(block)
        self._ended = block.endswith(b"\n")

    def facts(self) -> dict[str, Any]:
        rows = self._lines + (not self._ended)
        return {"rows": rows, "every": self._every, "offsets": self._offsets[: max(1, -(-rows // self._every))]}


def _is_sound(facts: Facts) -> bool:
    return len(facts["sha256"]) == 64 and isinstance(facts.get("rows", 0), int)
