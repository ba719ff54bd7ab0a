"""Sentences to be predicted, checked once; and how those that come in one by one are taken together."""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import ConfigError
from pipeline.tasks.examples import clean_texts

AT_ONCE = 4096
"""Sentences that are computed together, as many as stage one puts into a shard: then batches are the same, too."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Sentences:
    """Sentences with where each is from.

    Args:
        texts: `[n]`, without white space at their ends, none empty.
        lines: `[n]` where each stands, from 1.
        origin: the file, or what else they are from, for errors.
    """

    texts: tuple[str, ...]
    lines: Sequence[int]
    origin: str

    @classmethod
    def of(
        cls, texts: Iterable[object], lines: Sequence[int] | None = None, origin: str = "the sentences"
    ) -> "Sentences":
        """Check sentences.

        Raises:
            ConfigError: one text in place of several.
            DataError: a sentence is missing or empty, or no text.
        """
        if isinstance(texts, str | bytes):
            raise ConfigError("a list of sentences is needed", expected="['A sentence.']", found=repr(texts)[:80])
        there = list(texts)
        places = range(1, len(there) + 1) if lines is None else lines
        return cls(clean_texts(there, places, origin), places, origin)

    def __len__(self) -> int:
        return len(self.texts)

    def parts(self, rows: int) -> "Iterator[Sentences]":
        """In order, so many at a time at most."""
        for first in range(0, len(self), rows):
            some = slice(first, first + rows)
            yield Sentences(self.texts[some], self.lines[some], self.origin)


def arriving(items: Iterable[Item], most: int = AT_ONCE) -> Iterator[list[Item]]:
    """What has arrived since the last time, in order: at least one item, for which it waits, and at most so many.

    The items are taken in a thread of its own, which is at most `most` ahead.
    """
    waiting: queue.Queue[tuple[str, object]] = queue.Queue(most)

    def take() -> None:
        try:
            for item in items:
                waiting.put(("item", item))
            waiting.put(("end", None))
        except BaseException as error:  # whatever it is, it is the reader's
            waiting.put(("error", error))

    threading.Thread(target=take, daemon=True, name="arriving sentences").start()
    kind = "item"
    while kind == "item":
        kind, item = waiting.get()
        together: list[Item] = []
        while kind == "item":
            together.append(item)  # type: ignore[arg-type]
            if len(together) == most:
                break
            try:
                kind, item = waiting.get_nowait()
            except queue.Empty:
                break
        if together:
            yield together
        if kind == "error":
            assert isinstance(item, BaseException)
            raise item
