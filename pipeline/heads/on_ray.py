"""A sweep on a Ray cluster: workers that open the features for themselves, and make one attempt after the other."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.cache import FeatureCache
from pipeline.config import CacheConfig
from pipeline.engine_config import EngineConfig
from pipeline.heads.trying import Attempt, TrainRows, Try
from pipeline.memory import part_of_memory
from pipeline.progress import TrialsLine, counted, say
from pipeline.ray_cluster import cluster
from pipeline.threads import limited_threads
from pipeline.worker_pool import WorkerPool


@contextmanager
def on_ray(engine: EngineConfig, cache: CacheConfig, threads: int) -> Iterator[Try]:
    """Within, a cluster is at hand; gives what makes attempts on it.

    Workers of one machine share its memory evenly, and with this process: within, it reckons with a part as well.

    Args:
        threads: of each worker; 0 shares a node's cores among its workers.

    Raises:
        MissingPackage: Ray is not installed.
        MachineError: the cluster cannot be reached, or has too little for so many workers.
    """
    with cluster(engine, threads, on_gpus=False) as share:
        import ray

        actor = ray.remote(num_cpus=share.cpus, max_restarts=0)(SweepWorker)
        pool = WorkerPool(
            lambda: actor.remote(cache, share.cpus, share.together, Path.cwd()),
            share.workers,
            "fewer --workers or --side-by-side",
        )
        say(f"{counted(share.workers, 'worker')} of {counted(share.cpus, 'thread')}, on Ray")
        with pool, part_of_memory(share.together + 1):
            yield partial(_try, pool=pool, workers=share.workers)


def _try(
    rows: TrainRows, attempts: Sequence[Attempt], line: TrialsLine, *, pool: WorkerPool, workers: int
) -> Iterator[tuple[Attempt, pa.Table]]:
    """Make attempts on the workers, those that take longest first."""
    import ray

    if not attempts:
        return
    there = ray.put(rows)
    line.now(f"{counted(len(attempts), 'set')} of views on {counted(min(workers, len(attempts)), 'worker')}")

    def begin(worker: Any, attempt: Attempt) -> Any:
        return worker.attempt.remote(attempt, there)

    widest_first = sorted(attempts, key=lambda each: -len(each.views))
    for attempt, (trials, said) in pool.results(widest_first, begin):
        for text in said:
            say(text)
        yield attempt, trials


class SweepWorker:
    """A process that makes attempts of any task.

    Args:
        cache: where the features are.
        threads: of the CPU.
        together: workers of this machine that share its memory, this one among them, with whoever began the sweep.
        folder: that paths are relative to.
    """

    def __init__(self, cache: CacheConfig, threads: int, together: int, folder: Path) -> None:
        os.chdir(folder)
        self._cache = cache
        self._within = ExitStack()  # as long as the process lives
        self._within.enter_context(limited_threads(threads))
        self._within.enter_context(part_of_memory(together + 1))

    @cached_property
    def _features(self) -> FeatureCache:
        return FeatureCache.of(self._cache)

    def attempt(self, attempt: Attempt, rows: TrainRows) -> tuple[pa.Table, list[str]]:
        """Its trials, and what there was to say about them."""
        with contextlib.redirect_stderr(io.StringIO()) as said, warnings.catch_warnings(record=True) as warned:
            trials = rows.trials(attempt, self._features, lambda *now: None)
        texts = dict.fromkeys(f"warning: {attempt}: {each.message}" for each in warned)
        return trials, [*said.getvalue().splitlines(), *texts]
