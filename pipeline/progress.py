"""One progress line for long work: a live bar on a terminal, plain lines elsewhere, always on standard error."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0


def say(message: str) -> None:
    """One line to the person who waits, on standard error."""
    print(message, file=sys.stderr, flush=True)


class ProgressLine:
    """Counts rows and tokens; says tokens per second and the time left. A context manager.

    Args:
        label: what is being done.
        rows: how many rows there are to do.
        tokens: how many tokens these rows have from the sentence on; the time left is reckoned by them.
    """

    def __init__(self, label: str, rows: int, tokens: int) -> None:
        self.label, self.rows, self.tokens = label, rows, tokens
        self._rows_done = self._tokens_done = 0
        self._bar: Progress | None = None
        if Console(stderr=True).is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows, {task.fields[speed]} tokens/s"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> "ProgressLine":
        self._began = self._said = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.rows, speed="-")
        else:
            say(f"{self.label}: {self.rows} rows, {self.tokens} tokens after the prompt")
        return self

    def advance(self, rows: int, tokens: int) -> None:
        """So many more rows and tokens are done."""
        self._rows_done += rows
        self._tokens_done += tokens
        if self._bar is not None:
            self._bar.update(self._task, completed=self._rows_done, speed=f"{self.tokens_per_second:,.0f}")
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            left = (self.tokens - self._tokens_done) / max(self.tokens_per_second, 1e-9)
            say(
                f"{self.label}: {self._rows_done} of {self.rows} rows, {self.tokens_per_second:,.0f} tokens/s, "
                f"{left:,.0f} s left"
            )

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def tokens_per_second(self) -> float:
        """The mean speed since the beginning."""
        return self._tokens_done / max(self.seconds, 1e-9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if error is None:
            say(
                f"{self.label}: done, {self._rows_done} rows in {self.seconds:,.1f} s, "
                f"{self.tokens_per_second:,.0f} tokens/s"
            )
