"""How many CPU threads are used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.progress import say


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Within, torch and the libraries under scikit-learn use that many CPU threads; 0 leaves them alone.

    More than there are cores would wait for each other: then there are as many as cores, and a note says so.
    """
    if not threads:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    if threads > (cores := usable_cores()):
        say(f"note: {cores} threads instead of {threads}: there are no more cores")
        threads = cores
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
