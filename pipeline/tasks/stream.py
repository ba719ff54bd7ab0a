"""Corpora that do not fit into memory: a stretch of rows is read when it is asked for, and forgotten again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config import DataConfig
from pipeline.digests import sha256_of_record
from pipeline.errors import ConfigError, DataError
from pipeline.tasks.examples import Examples, parse_examples
from pipeline.tasks.hub_stream import hub_files
from pipeline.tasks.read import SPLIT_NAMES
from pipeline.tasks.row_files import RowFile, open_row_files
from pipeline.tasks.spec import SPLITS, Split, TaskSpec

SUFFIXES = (".parquet", ".jsonl")
DIGEST = "files:"
"""With which the digest of rows begins that are known by their files."""


@dataclass(frozen=True)
class StreamedCorpus:
    """One split of one task, read stretch by stretch.

    Args:
        task, split: which.
        origin: for people.
        digest: of the rows' source, as an identity has it in place of a digest of the texts: of the files' contents,
            labels and all, or the Hub's commit.
        files: with the rows, in their order.
        text_column, label_column: their columns; None where the rows have no labels.
    """

    task: TaskSpec
    split: Split
    origin: str
    digest: str
    files: tuple[RowFile, ...]
    text_column: str
    label_column: str | None

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def labelled(self) -> bool:
        """Whether its rows have labels."""
        return self.label_column is not None

    def read(self, first: int, stop: int) -> Examples:
        """Rows `first` to `stop`, checked as all examples are.

        Raises:
            DataError: a sentence or a label is none.
        """
        parts, begins = [], 0
        for file in self.files:
            from_row, to_row = max(first - begins, 0), min(stop - begins, file.rows)
            if from_row < to_row:
                parts.append(self._read(file, from_row, to_row))
            begins += file.rows
        return Examples(
            task=self.task,
            split=self.split,
            texts=tuple(text for part in parts for text in part.texts),
            labels=tuple(label for part in parts for label in part.labels or ()) if self.labelled else None,
            idx=tuple(range(first, stop)),
            sources=None,
            origin=self.origin,
            lines=tuple(line for part in parts for line in part.lines),
        )

    def _read(self, file: RowFile, first: int, stop: int) -> Examples:
        names = [self.text_column] + ([self.label_column] if self.label_column else [])
        columns = file.read(first, stop, names)
        return parse_examples(
            self.task,
            self.split,
            texts=columns[self.text_column],
            labels=columns[self.label_column] if self.label_column else None,
            lines=range(first + 1, stop + 1),
            path=file.path,
            origin=self.origin,
        )


def stream_task(task: TaskSpec, data: DataConfig, splits: Sequence[Split] = ()) -> dict[Split, StreamedCorpus]:
    """A task's splits as streams, from a folder or from the Hub.

    Args:
        splits: the wanted ones; by default all that are there.

    Raises:
        ConfigError: the source is small and not streamed.
        DataError: there is no such split, or files that do not go together.
    """
    if data.source == "hub":
        paths_of = partial(hub_files, task, data)
    elif data.source == "files":
        paths_of = partial(split_files, task, data)
    else:
        raise ConfigError(
            "this source is read as a whole",
            where="stream",
            expected="--data with a folder of .parquet or .jsonl files, or --data hub",
            found=f"--data {data.data}",
        )
    found = {split: paths for split in splits or SPLITS if (paths := paths_of(split))}
    there = {split: _stream(task, data, split, paths) for split, paths in found.items()}
    if missing := [split for split in splits or there or ("train",) if split not in there]:
        names = " or ".join(f"{name}.parquet, {name}-*.parquet, {name}/*.parquet (or .jsonl)" for name in missing)
        raise DataError("a split is not there", where=data.data, expected=names, found="no such file")
    return there


def _stream(task: TaskSpec, data: DataConfig, split: Split, paths: Sequence[str]) -> StreamedCorpus:
    files, digests = open_row_files(paths)
    origin = (
        f"{data.source}: {paths[0]}" if len(paths) == 1 else f"{data.source}: {len(paths)} files, {paths[0]} and on"
    )
    if not any(file.rows for file in files):
        raise DataError("a split has no rows", where=paths[0], expected="one example or more", found="none")
    text_column = data.text_column or task.text_column
    label_column = data.label_column or task.label_column
    for file in files:
        if text_column not in file.names:
            raise DataError(
                "the file has the wrong columns",
                where=file.path,
                expected=f"a column {text_column!r}",
                found=", ".join(map(repr, file.names)) or "none",
                remedy="rename the column, or name yours with --text-column and --label-column",
            )
    hides_labels = data.source == "hub" and split == "test"  # GLUE has -1 there
    with_labels = [file for file in files if label_column in file.names and not hides_labels]
    if (with_labels and len(with_labels) < len(files)) or (data.label_column and not with_labels):
        lacking = next(file for file in files if file not in with_labels)
        raise DataError("a file has no labels", where=lacking.path, expected=f"a column {label_column!r}")
    record = {"files": digests, "text": text_column, "label": label_column if with_labels else None}
    return StreamedCorpus(
        task,
        split,
        origin,
        f"{DIGEST}{sha256_of_record(record)}",
        tuple(files),
        text_column,
        label_column if with_labels else None,
    )


def split_files(task: TaskSpec, data: DataConfig, split: Split) -> list[str]:
    """The files of a split, in the order of their names: `train.parquet`, `train-*.parquet` or `train/*.parquet`.

    Raises:
        DataError: files of both kinds claim to be the split.
    """
    folder = Path(data.data)
    folder = folder / task.name if (folder / task.name).is_dir() else folder
    patterns = [
        pattern
        for name in SPLIT_NAMES[split]
        for suffix in SUFFIXES
        for pattern in (f"{name}{suffix}", f"{name}-*{suffix}", f"{name}/*{suffix}")
    ]
    found = {pattern: paths for pattern in patterns if (paths := sorted(folder.glob(pattern)))}
    if len(found) > 1:
        raise DataError(
            "files disagree: several kinds claim to be one split",
            where=folder,
            expected=f"files of one pattern for the split {split!r}",
            found=", ".join(found),
            remedy="move all but one kind away",
        )
    return [str(path) for path in next(iter(found.values()), [])]
