"""Sentences of a file, predicted into another: its columns, and beside them what the run says."""

import contextlib
import difflib
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, DataError
from pipeline.partials import partial_path
from pipeline.predicting.answers import Answers
from pipeline.predicting.predictor import Predictor
from pipeline.predicting.sentences import AT_ONCE, Sentences
from pipeline.predicting.sheets import Sheet, Types, read_sheets, writer_of
from pipeline.progress import SentencesLine

TEXT_COLUMNS = ("sentence", "text")
"""Where sentences are looked for, where no column is named."""
HEADERLESS = (
    "; or, where the first line holds no names but is a row itself, put a line of names before it, "
    "or give the sentences alone to standard input: cut -f 1 FILE | pipeline predict RUN"
)
"""What to do about a file without names."""


@dataclass(frozen=True)
class SentenceFile:
    """A table with a column of sentences, every one of which was looked at.

    Args:
        path: the file.
        text_column: the column's name.
        names: of all columns.
        rows: how many there are.
        types: of the columns, as far as the file that they are to be written to needs them.
    """

    path: Path
    text_column: str
    names: tuple[str, ...]
    rows: int
    types: Types = field(default_factory=dict)

    @classmethod
    def check(cls, path: Path, text_column: str | None = None, to: Path | None = None) -> "SentenceFile":
        """Go through a file once, in parts, before anything is computed.

        Args:
            text_column: by default `sentence` or `text`.
            to: where the columns are to be written.

        Raises:
            DataError: the file cannot be read, is of no such kind or empty, has no such column, or a sentence is
                missing or empty, or the other file cannot hold a column; the row is named.
        """
        if path.suffix.lower() == ".txt":
            raise DataError(
                "a plain list of sentences is no table",
                where=path,
                remedy=f"give it to standard input: pipeline predict RUN < {shlex.quote(str(path))}",
            )
        rows, column = 0, text_column
        types: Types = {}
        names: tuple[str, ...] = ()
        for sheet in read_sheets(path, AT_ONCE):
            names = tuple(sheet.columns)
            column = column or _text_column(path, names)
            if column not in names:
                raise _no_column(path, names, f"a column {column!r}", column)
            if to is not None:
                types = writer_of(to).types_of(sheet, types, to)
            rows += len(Sentences.of(sheet.values(column), sheet.lines, str(path)))
        if not rows or column is None:
            raise DataError("the file holds no sentence", where=path)
        return cls(path, column, names, rows, types)

    def sheets(self) -> Iterator[tuple[Sheet, Sentences]]:
        """The file in parts, with the sentences of each.

        Raises:
            DataError: it is not what it was when it was checked.
        """
        left = self.rows
        for sheet in read_sheets(self.path, AT_ONCE):
            left -= len(sheet.lines)
            if tuple(sheet.columns) != self.names or left < 0:
                raise self._changed()
            yield sheet, Sentences.of(sheet.values(self.text_column), sheet.lines, str(self.path))
        if left:
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(
            "the file is not what it was when it was checked",
            where=self.path,
            expected=f"{self.rows:,} rows of {', '.join(map(repr, self.names))}",
            remedy="let no other program write to it meanwhile",
        )


def _text_column(path: Path, names: tuple[str, ...]) -> str:
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    raise _no_column(path, names, " or ".join(f"a column {name!r}" for name in TEXT_COLUMNS))


def _no_column(path: Path, names: tuple[str, ...], expected: str, asked: str | None = None) -> DataError:
    """The error for a file without the column that was `asked` for, or that is looked for by itself."""
    remedy = "name the column with --text-column"
    if asked is not None:
        near = difflib.get_close_matches(asked, names, n=1)
        usual = [name for name in TEXT_COLUMNS if name in names]
        remedy = "give --text-column the name of a column that is there"
        remedy = f"leave --text-column out: {usual[0]!r} is taken by itself" if usual else remedy
        remedy = f"did you mean --text-column {shlex.quote(near[0])}?" if near else remedy
        header = ""
    else:
        header = HEADERLESS if path.suffix.lower() in (".csv", ".tsv") else ""
    return DataError(
        "the file has no such column of sentences",
        where=path,
        expected=expected,
        found=", ".join(map(repr, names)),
        remedy=remedy + header,
    )


def check_target(to: Path, source: Path, *, force: bool = False) -> None:
    """Refuse a file that predictions cannot be written to, before anything is computed.

    Raises:
        ConfigError: it is of an unknown kind, a folder or in none, may not be written, is there already and not to be
            overwritten, or the source itself.
    """
    writer_of(to)
    if to.is_dir():
        raise ConfigError("a folder cannot be written to as a file", where=to, remedy="name a file in it")
    if to.exists() and to.samefile(source):
        raise ConfigError("predictions would be written over the sentences", where=to, remedy="name another file")
    if to.exists() and not force:
        raise ConfigError("the file is there already", where=to, remedy="name another, or overwrite it with --force")
    partial = partial_path(to)
    try:
        partial.touch(exist_ok=False)
        partial.unlink()
    except OSError as error:
        raise ConfigError(
            "predictions cannot be written there",
            where=to,
            expected="a file in a folder that is there and may be written to",
            found=error.strerror or error,
        ) from error


def predict_file(
    predictor: Predictor, file: SentenceFile, to: Path, *, task: str, prefix: str = "", force: bool = False
) -> dict[str, Any]:
    """Predict a file's sentences, part by part; the result appears under its name when it is whole.

    Its columns stay, and beside them stand `prediction` (the class's number), `label` and `probability_<label>`.

    Args:
        to: ends in .csv, .tsv, .jsonl or .parquet.
        prefix: put before the new columns' names.
        force: replace columns of these names, where the file has some.

    Returns:
        `file`, `task`, `run`, `sentences`, `seconds`, `sentences_per_second`, and `labels`: how often each was
        predicted.

    Raises:
        ConfigError: the file has such columns already.
        DataError: a sentence is too long, the file is not what it was when it was checked, or the other cannot be
            written.
    """
    labels = predictor.loaded.labels(task)
    taken = [name for name in _new_names(labels, prefix) if name in file.names]
    if taken and not force:
        raise ConfigError(
            "the file has columns of these names already",
            where=file.path,
            found=", ".join(taken),
            remedy="--prefix model_ calls the new ones model_prediction, model_label and so on; --force replaces them",
        )
    counts = dict.fromkeys(labels, 0)
    partial = partial_path(to)
    types = {name: type for name, type in file.types.items() if name not in taken}  # those are replaced
    writer = writer_of(to)(partial, to, types)
    began = time.monotonic()
    try:
        with SentencesLine(f"{file.path.name}, {task}", file.rows) as line, writer as writing:
            for sheet, sentences in file.sheets():
                answers = predictor.answer(sentences, task, line.advance)
                for name in answers.names:
                    counts[name] += 1
                writing.write(_beside(sheet, answers, prefix))
        partial.replace(to)
    except OSError as error:
        raise DataError("predictions cannot be written", where=to, found=error.strerror or error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    return {
        "file": str(to),
        "run": predictor.run.run,
        "task": task,
        "sentences": file.rows,
        "labels": counts,
        "seconds": round(seconds, 3),
        "sentences_per_second": round(file.rows / seconds, 1),
    }


def _new_names(labels: tuple[str, ...], prefix: str) -> list[str]:
    return [f"{prefix}{name}" for name in ("prediction", "label", *(f"probability_{label}" for label in labels))]


def _beside(sheet: Sheet, answers: Answers, prefix: str) -> Sheet:
    new = (answers.predictions.tolist(), answers.names, *answers.probabilities.T.tolist())
    columns = {**sheet.columns, **dict(zip(_new_names(answers.labels, prefix), new, strict=True))}
    return Sheet(columns, sheet.lines)
