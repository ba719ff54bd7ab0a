"""Several processes on one feature set: each takes shards that nobody else has, until all are whole."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.cache.writer import FeatureSetWriter
from pipeline.progress import say

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Claim:
    """A shard that this process is to write, locked until it is given back.

    Args:
        number: the shard's.
        places: of the writers, in the split's, that lack it.
        locked: those of them whose lock is held.
        writers: one for each view of the split.
    """

    number: int
    places: tuple[int, ...]
    locked: set[int]
    writers: Sequence[FeatureSetWriter]

    def take_over(self) -> None:
        """Hold it in this thread, which is to write it."""
        for place in self.locked:
            self.writers[place].lock.take_over(self.number)

    def give_back(self) -> None:
        """Let go of it; a second time is none."""
        while self.locked:
            self.writers[self.locked.pop()].lock.release(self.number)


def claimed_shards(
    writers: Sequence[FeatureSetWriter],
    todo: Mapping[int, Sequence[int]],
    *,
    label: str,
    timeout: float,
    wait: Callable[[], None] = lambda: None,
) -> Generator[Claim]:
    """Shards for this process to write, until all of `todo` are whole.

    Args:
        writers: one for each view of the split.
        todo: by shard, the places in `writers` that lack it.
        label: for people.
        timeout: seconds to wait for shards that others hold while none of them is finished.
        wait: returns when everything that was handed out is written, or was given up.

    Yields:
        a shard, to be given back when it is written.

    Raises:
        CacheError: others hold the rest for too long.
    """
    pending = {number: set(places) for number, places in todo.items()}
    waiting_since: float | None = None
    while pending:
        before = sum(map(len, pending.values()))
        claims: list[Claim] = []
        try:
            for number in sorted(pending):
                locked: set[int] = set()
                claims.append(Claim(number, (), locked, writers))
                for place in sorted(pending[number]):
                    if writers[place].claim(number):
                        locked.add(place)
                left = tuple(place for place in sorted(locked) if writers[place].sealed(number) is None)
                claims[-1] = Claim(number, left, locked, writers)
                if left:
                    yield claims[-1]
                else:
                    claims[-1].give_back()
            wait()
        finally:
            try:
                wait()  # for what is being written still, where something else went wrong
            finally:
                for claim in claims:
                    claim.give_back()
        pending = {
            number: {place for place in places if writers[place].sealed(number) is None}
            for number, places in pending.items()
        }
        pending = {number: places for number, places in pending.items() if places}
        if not pending:
            return
        now = time.monotonic()
        if sum(map(len, pending.values())) < before:
            waiting_since = None
            continue
        number, place = min((number, min(places)) for number, places in pending.items())
        if waiting_since is None:
            waiting_since = now
            say(f"{label}: waiting for {len(pending)} shards of {writers[place].lock.holder(number)}")
        elif now - waiting_since >= timeout:
            raise writers[place].lock.busy(number, timeout)
        time.sleep(POLL_SECONDS)
