"""One progress line for long work: a live bar on a terminal, plain lines elsewhere, always on standard error."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.wrapping import wrapped

PLAIN_SECONDS = 10.0
NARROW = 100
"""Characters a line below which the bar and the time that passed make way for words and numbers."""
BAR = 40
"""Characters of the bar, where the terminal is wide."""
TIMES = 14
"""Characters of the time that passed, and of the time left."""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def counted(number: int, noun: str) -> str:
    """Such as `1 way`, `5 ways`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_quiet = False


@contextmanager
def be_quiet() -> Iterator[None]:
    """Within, nothing is said but warnings, and no bar is drawn."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Whether `be_quiet` is at work, for a process that is started: it does not know."""
    return _quiet


def say(message: str) -> None:
    """One line to the person who waits, on standard error."""
    if not _quiet or message.startswith("warning"):
        print(wrapped(message), file=sys.stderr, flush=True)


class _Line(ABC):
    """A bar on a terminal, a line every ten seconds elsewhere. A context manager.

    Args:
        label: what is being done.
        total: how much of it there is, in whatever the bar counts.
        counts: the bar's columns that say how much is done, and how fast.
    """

    def __init__(self, label: str, total: int, *counts: ProgressColumn) -> None:
        self.label, self.total = label, total
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if console.is_terminal and not _quiet:
            narrow = console.width < NARROW
            bar, times = (0, TIMES // 2) if narrow else (min(BAR, (console.width - 60) // 4), TIMES)
            columns = [TextColumn("{task.description}"), *([] if narrow else [BarColumn(bar)]), *counts]
            texts = [column.text_format for column in counts if isinstance(column, TextColumn)]
            beside = sum(len(text.replace("{task.fields[speed]}", "")) for text in texts) + 2 * len(str(total)) + 1
            self._label_room = console.width // 3
            self._room = console.width - bar - beside - times - len(columns) - 2
            clocks = [TimeRemainingColumn()] if narrow else [TimeElapsedColumn(), TimeRemainingColumn()]
            self._bar = Progress(*columns, *clocks, console=console)

    def _fitting(self, label: str, speed: str) -> tuple[str, str]:
        """Both texts, cut so that the numbers beside them are whole: too wide a column would take their room."""
        label = _cut(label, max(self._label_room, self._room - len(speed)))
        return label, _cut(speed, max(self._room - len(label), 4))

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            label, self._speed = self._fitting(self.label, "-")
            self._task = self._bar.add_task(label, total=self.total, speed=self._speed)
        else:
            say(f"{self.label}: {self._all()}")
        return self

    def _show(self, done: int, speed: str) -> None:
        if self._bar is not None:
            label, self._speed = self._fitting(self.label, speed)
            self._bar.update(self._task, completed=done, description=label, speed=self._speed)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            say(f"{self.label}: {self._so_far()}")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if error is None:
            say(f"{self.label}: done, {self._result()}")

    @abstractmethod
    def _all(self) -> str:
        """What there is to do, said at the beginning."""

    @abstractmethod
    def _so_far(self) -> str:
        """What is done, said now and then."""

    @abstractmethod
    def _result(self) -> str:
        """What was done, said at the end."""


class ProgressLine(_Line):
    """Counts rows and tokens; says tokens per second and the time left. A context manager.

    Args:
        label: what is being done.
        rows: how many rows there are to do.
        tokens: how many tokens these rows have from the sentence on; the time left is reckoned by them.
    """

    def __init__(self, label: str, rows: int, tokens: int) -> None:
        super().__init__(label, rows, MofNCompleteColumn(), TextColumn("rows, {task.fields[speed]} tokens/s"))
        self.rows, self.tokens = rows, tokens
        self._rows_done = self._tokens_done = 0

    def advance(self, rows: int, tokens: int) -> None:
        """So many more rows and tokens are done."""
        self._rows_done += rows
        self._tokens_done += tokens
        self._show(self._rows_done, f"{self.tokens_per_second:,.0f}")

    @property
    def tokens_per_second(self) -> float:
        """The mean speed since the beginning."""
        return self._tokens_done / max(self.seconds, 1e-9)

    def now(self, what: str) -> None:
        """Say on the bar what else is being done, until the next rows are."""
        if self._bar is not None:
            label, speed = self._fitting(f"{self.label} ({what})", self._speed)
            self._bar.update(self._task, description=label, speed=speed)

    def _all(self) -> str:
        return f"{self.rows} rows, {self.tokens} tokens after the prompt"

    def _so_far(self) -> str:
        left = (self.tokens - self._tokens_done) / max(self.tokens_per_second, 1e-9)
        return f"{self._rows_done} of {self.rows} rows, {self.tokens_per_second:,.0f} tokens/s, {left:,.0f} s left"

    def _result(self) -> str:
        return f"{self._rows_done} rows in {self.seconds:,.1f} s, {self.tokens_per_second:,.0f} tokens/s"


class SentencesLine(_Line):
    """Counts sentences; says how many a second, and the time left. A context manager.

    Args:
        label: what is being done.
        sentences: how many there are.
    """

    def __init__(self, label: str, sentences: int) -> None:
        super().__init__(label, sentences, MofNCompleteColumn(), TextColumn("sentences, {task.fields[speed]}/s"))
        self._done = 0

    def advance(self, sentences: int) -> None:
        """So many more are done."""
        self._done += sentences
        self._show(self._done, f"{self.per_second:,.0f}")

    @property
    def per_second(self) -> float:
        """The mean speed since the beginning."""
        return self._done / max(self.seconds, 1e-9)

    def _all(self) -> str:
        return counted(self.total, "sentence")

    def _so_far(self) -> str:
        left = (self.total - self._done) / max(self.per_second, 1e-9)
        return f"{self._done:,} of {counted(self.total, 'sentence')}, {self.per_second:,.0f}/s, {left:,.0f} s left"

    def _result(self) -> str:
        return f"{counted(self._done, 'sentence')} in {self.seconds:,.1f} s, {self.per_second:,.0f}/s"


class BytesLine(_Line):
    """Counts the bytes of files that are copied; says megabytes per second and the time left. A context manager.

    Args:
        label: what is being done.
        files: how many files there are to copy.
        size_bytes: and how long they are together.
    """

    def __init__(self, label: str, files: int, size_bytes: int) -> None:
        super().__init__(label, size_bytes, DownloadColumn(), TextColumn("{task.fields[speed]} MB/s"))
        self.files = files
        self._done = 0

    def advance(self, size_bytes: int) -> None:
        """So many more bytes are copied."""
        self._done += size_bytes
        self._show(self._done, f"{self.megabytes_per_second:,.1f}")

    @property
    def megabytes_per_second(self) -> float:
        """The mean speed since the beginning."""
        return self._done / 1e6 / max(self.seconds, 1e-9)

    def _all(self) -> str:
        return f"{self.files} files, {self.total / 1e6:,.1f} MB"

    def _so_far(self) -> str:
        left = (self.total - self._done) / 1e6 / max(self.megabytes_per_second, 1e-9)
        return (
            f"{self._done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB, {self.megabytes_per_second:,.1f} MB/s, "
            f"{left:,.0f} s left"
        )

    def _result(self) -> str:
        return f"{self.files} files, {self._done / 1e6:,.1f} MB in {self.seconds:,.1f} s"


class StepsLine(_Line):
    """Counts the steps of a training; says the loss, the held-out scores and the time left. A context manager.

    Args:
        label: what is trained.
        steps: how many there are in all.
        done: how many of them were done before.
    """

    def __init__(self, label: str, steps: int, done: int = 0) -> None:
        super().__init__(label, steps, MofNCompleteColumn(), TextColumn("steps, {task.fields[speed]}"))
        self._done = self._before = done
        self._loss: float | None = None
        self._held_out = self._why = ""

    def advance(self, loss: float) -> None:
        """One more step is done; the loss shown is a running mean."""
        self._done += 1
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        self._show(self._done, f"{self._now()}{self._held_out}")

    def shows(self, held_out: str) -> None:
        """Say how an evaluation went, and keep it on the bar."""
        self._held_out = f"; {held_out}"
        if self._bar is not None:
            self._bar.console.print(f"{self.label}, step {self._done}: {held_out}", highlight=False)
        else:
            say(f"{self.label}, step {self._done}: {held_out}")

    def stops_early(self, best: int) -> None:
        """Say at the end that steps are left out because held-out rows have done no better since step `best`."""
        self._why = f", stopped early: no better on held-out rows since step {best}"

    def _now(self) -> str:
        return "training loss -" if self._loss is None else f"training loss {self._loss:.4f}"

    def _all(self) -> str:
        return f"{self.total} step{'s' if self.total != 1 else ''}"

    def _so_far(self) -> str:
        left = (self.total - self._done) * self.seconds / max(self._done - self._before, 1)
        return f"step {self._done} of {self.total}, {self._now()}, {left:,.0f} s left"

    def _result(self) -> str:
        return f"step {self._done} of {self.total}{self._why}, {self._now()}, in {self.seconds:,.1f} s"


class TrialsLine(_Line):
    """Counts the heads of a sweep; says which views and heads are at work, and the time left. A context manager.

    Args:
        label: what is swept.
        heads: how many there are to fit, at most.
    """

    def __init__(self, label: str, heads: int) -> None:
        super().__init__(label, heads, MofNCompleteColumn(), TextColumn("heads, {task.fields[speed]}"))
        self._done = self._before = 0
        self._paced = 0.0  # seconds that heads of another pace took
        self._at = "-"

    def changes_pace(self) -> None:
        """What comes takes its own time: how long is said when some of it is done."""
        self._before, self._paced = self._done, self.seconds

    def tell(self, views: str, kind: str, reads: int, done: int) -> None:
        """So many heads of a kind are done on some views, after so many reads of their features."""
        self._at = f"{views}: {kind}, {done} done" + (f" after {reads} reads" if reads else "")
        self._show(self._done, self._at)

    def now(self, what: str) -> None:
        """Say what else is being done."""
        self._at = what
        self._show(self._done, what)

    def advance(self, heads: int, *, before: bool = False) -> None:
        """So many more heads are fitted and scored; or were, `before` this command began."""
        self._done += heads
        self._before += heads if before else 0
        self._show(self._done, self._at)

    def _all(self) -> str:
        return f"up to {self.total:,} heads"

    def _so_far(self) -> str:
        now = self._done - self._before
        seconds = (self.total - self._done) * (self.seconds - self._paced) / max(now, 1)
        left = f"; about {seconds:,.0f} s left" if now else ""
        return f"{self._done:,} of up to {self.total:,} heads, {self._at}{left}"

    def _result(self) -> str:
        return f"{self._done:,} heads in {self.seconds:,.1f} s"
