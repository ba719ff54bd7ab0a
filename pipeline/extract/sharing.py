"""Several processes on one feature set: each takes shards that nobody else has, until all are whole."""

import time
from collections.abc import Generator, Mapping, Sequence

from pipeline.cache.writer import FeatureSetWriter
from pipeline.progress import say

POLL_SECONDS = 0.2


def claimed_shards(
    writers: Sequence[FeatureSetWriter], todo: Mapping[int, Sequence[int]], *, label: str, timeout: float
) -> Generator[tuple[int, list[int]]]:
    """Shards for this process to write, each locked while it is handed out, until all of `todo` are whole.

    Args:
        writers: one for each view of the split.
        todo: by shard, the places in `writers` that lack it.
        label: for people.
        timeout: seconds to wait for shards that others hold while none of them is finished.

    Yields:
        a shard's number and the places in `writers` that this process is to write of it.

    Raises:
        CacheError: others hold the rest for too long.
    """
    pending = {number: set(places) for number, places in todo.items()}
    waiting_since: float | None = None
    while pending:
        before = sum(map(len, pending.values()))
        for number in sorted(pending):
            mine = [place for place in sorted(pending[number]) if writers[place].claim(number)]
            try:
                left = [place for place in mine if writers[place].sealed(number) is None]
                if left:
                    yield number, left
            finally:
                for place in mine:
                    writers[place].lock.release(number)
            pending[number] = {place for place in pending[number] if writers[place].sealed(number) is None}
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
