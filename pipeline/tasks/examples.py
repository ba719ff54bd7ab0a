"""The examples of one split: sentences, labels and where each came from, checked once, here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pipeline.digests import sha256_of_texts
from pipeline.errors import DataError, SentenceError
from pipeline.tasks.spec import Split, TaskSpec

Value = TypeVar("Value")


@dataclass(frozen=True)
class Examples:
    """One split of one task; row i of every field is example i.

    Args:
        task: the task.
        split: the split.
        texts: `[n]` the sentences, without white space at their ends.
        labels: `[n]` class numbers, or None where the split is unlabelled.
        idx: `[n]` the examples' own numbers in their source.
        sources: `[n]` a code that says where a sentence was found (CoLA's first column), or None.
        origin: the reader and the file, for people.
        lines: `[n]` where each example stands in its file, from 1; empty where that is not known.
    """

    task: TaskSpec
    split: Split
    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    idx: tuple[int, ...]
    sources: tuple[str, ...] | None
    origin: str
    lines: tuple[int, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> bool:
        """Whether its rows have labels."""
        return self.labels is not None

    @cached_property
    def digest(self) -> str:
        """Of the sentences in order, as an identity has it."""
        return f"sha256:{sha256_of_texts(self.texts)}"

    def take(self, rows: Iterable[int]) -> "Examples":
        """Some of its rows, in this order."""
        places = [int(row) for row in rows]

        def of(values: tuple[Value, ...]) -> tuple[Value, ...]:
            return tuple(values[place] for place in places)

        return replace(
            self,
            texts=of(self.texts),
            labels=None if self.labels is None else of(self.labels),
            idx=of(self.idx),
            sources=None if self.sources is None else of(self.sources),
            lines=of(self.lines) if self.lines else (),
        )


def parse_examples(
    task: TaskSpec,
    split: Split,
    *,
    texts: Sequence[object],
    labels: Sequence[object] | None,
    idx: Sequence[int] | None = None,
    sources: Sequence[str] | None = None,
    lines: Sequence[int],
    path: Path | str,
    origin: str,
) -> Examples:
    """Check what a reader found and give it the form of `Examples`.

    Args:
        texts, labels, idx, sources: `[n]` as read; labels are class numbers or names, None for an unlabelled split.
        lines: `[n]` where each row stands in the file, from 1.
        path: the file.
        origin: the reader and the file, for people.

    Raises:
        DataError: there is no row, a sentence is missing or empty, or a label is not a class of the task.
    """
    if not texts:
        raise DataError("the file holds no example", where=path)
    clean = clean_texts(texts, lines, path)
    numbers = None
    if labels is not None:
        numbers = tuple(
            _parse_label(task, label, f"{path}, row {line}") for line, label in zip(lines, labels, strict=True)
        )
    return Examples(
        task=task,
        split=split,
        texts=clean,
        labels=numbers,
        idx=tuple(range(len(clean))) if idx is None else tuple(idx),
        sources=None if sources is None else tuple(sources),
        lines=tuple(lines),
        origin=origin,
    )


def clean_texts(texts: Sequence[object], lines: Sequence[int], path: Path | str) -> tuple[str, ...]:
    """Sentences `[n]` without white space at their ends.

    Args:
        lines: `[n]` where each stands in the file, from 1.
        path: the file.

    Raises:
        SentenceError: one is missing or empty, or no text.
    """
    clean = []
    for line, text in zip(lines, texts, strict=True):
        if not isinstance(text, str):
            raise SentenceError("a sentence is not a text", line, where=f"{path}, row {line}", found=repr(text))
        if not text.strip():
            raise SentenceError(
                "a sentence is empty",
                line,
                where=f"{path}, row {line}",
                expected="at least one character that is not white space",
                found=repr(text),
                remedy="remove the row, or give it its sentence",
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = f"{path}, row {line}"
            raise SentenceError("a sentence is not Unicode text", line, where=where, found=error) from error
        clean.append(text.strip())
    return tuple(clean)


def _parse_label(task: TaskSpec, label: object, where: str) -> int:
    if isinstance(label, str):
        if label in task.labels:
            return task.labels.index(label)
        if label.isascii() and label.isdigit() and int(label) < len(task.labels):
            return int(label)
    elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(task.labels):
        return label
    raise DataError(
        "a label is not a class of its task",
        where=f"{where}, task {task.name!r}",
        expected=" | ".join(f"{number} ({name})" for number, name in enumerate(task.labels)),
        found=repr(label),
    )
