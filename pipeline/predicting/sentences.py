"""Sentences to be predicted, checked once; and how those that come in one by one are taken together."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
            ConfigError: it is no list of sentences.
            SentenceError: a sentence is missing or empty, or no text.
        """
        there = list(several(texts))
        places = range(1, len(there) + 1) if lines is None else lines
        return cls(clean_texts(there, places, origin), places, origin)

    def __len__(self) -> int:
        return len(self.texts)

    def parts(self, rows: int) -> "Iterator[Sentences]":
        """In order, so many at a time at most."""
        for first in range(0, len(self), rows):
            some = slice(first, first + rows)
            yield Sentences(self.texts[some], self.lines[some], self.origin)


def several(texts: Iterable[Item]) -> Iterable[Item]:
    """The sentences themselves, if they are several: one text would go by its characters, a table by its columns.

    Raises:
        ConfigError: they are not.
    """
    if isinstance(texts, str | bytes):
        raise ConfigError("a list of sentences is needed", expected="['A sentence.']", found=repr(texts)[:80])
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise ConfigError(
            "a list of sentences is needed",
            expected="one column, such as df['sentence']",
            found=f"a {type(texts).__name__} with {', '.join(map(repr, getattr(texts, 'columns', texts)))}"[:200],
        )
    return texts


def arriving(items: Iterable[Item], most: int = AT_ONCE) -> Iterator[list[Item]]:
    """What has arrived since the last time, in order: at least one item, for which it waits, and at most so many.

    The items are taken in a thread of its own, which is at most `most` ahead, and ends when this generator does, or
    when it gets the item that it waits for then.
    """
    waiting: queue.Queue[tuple[str, object]] = queue.Queue(most)
    left = threading.Event()

    def take() -> None:
        try:
            for item in items:
                waiting.put(("item", item))
                if left.is_set():
                    return
            waiting.put(("end", None))
        except BaseException as error:  # whatever it is, it is the reader's
            waiting.put(("error", error))

    threading.Thread(target=take, daemon=True, name="arriving sentences").start()
    try:
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
    finally:
        left.set()
        with contextlib.suppress(queue.Empty):  # a thread that waits for room has it now
            while True:
                waiting.get_nowait()
