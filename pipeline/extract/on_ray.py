"""Stage one on a Ray cluster: workers that load the backbone once, and pull shard after shard."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.load import Backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.config import BackboneConfig, PassConfig
from pipeline.engine_config import EngineConfig
from pipeline.extract.here import compute_shards, finish, layers_of, settle
from pipeline.extract.prepared import Compute, Prepared
from pipeline.kernels import exact_float32
from pipeline.progress import ProgressLine, be_quiet, say
from pipeline.ray_cluster import Share, cluster
from pipeline.worker_pool import WorkerPool, cause_of


@dataclass(frozen=True)
class Shard:
    """A piece of work.

    Args:
        split: the place of its split in the list.
        number: the shard's.
    """

    split: int
    number: int

    def __str__(self) -> str:
        return f"shard {self.number}"


@contextmanager
def on_ray(config: BackboneConfig, passes: PassConfig, engine: EngineConfig) -> Iterator[tuple[KnownBackbone, Compute]]:
    """Within, a cluster is at hand; gives the backbone, found where it will compute, and what computes with it.

    Raises:
        MissingPackage: Ray is not installed.
        MachineError: the cluster cannot be reached, or has too little for so many workers.
        BackboneError: the backbone is not there.
    """
    with cluster(engine, passes.threads, on_gpus=True) as share:
        yield _find_there(config, share), partial(compute_on_ray, share=share)


def _find_there(config: BackboneConfig, share: Share) -> KnownBackbone:
    import ray

    remote = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(_find)
    try:
        found: KnownBackbone = ray.get(remote.remote(config, Path.cwd()))
    except ray.exceptions.RayTaskError as error:
        raise cause_of(error) from None
    return found


def _find(config: BackboneConfig, folder: Path) -> KnownBackbone:
    os.chdir(folder)
    return KnownBackbone.find(config)


def compute_on_ray(prepared: Sequence[Prepared], known: KnownBackbone, passes: PassConfig, share: Share) -> None:
    """Compute what is missing on the workers of the cluster that this process is connected to; then write manifests.

    Args:
        share: what each worker has of the cluster.

    Raises:
        PipelineError: as in one process; and every worker dies on one shard.
    """
    import ray

    shards = [Shard(place, number) for place, each in enumerate(prepared) for number in sorted(each.job.unsealed())]
    sizes = {each: _size(prepared[each.split], each.number) for each in shards}
    actor = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(Worker)
    splits = [[ray.put(each)] for each in prepared]  # in a list, a reference travels and not what it is of
    rows, own_tokens = (sum(size[which] for size in sizes.values()) for which in (0, 1))
    say(f"{len(shards)} shards for {share.workers} workers of {share.cpus} threads, on Ray")
    pool = WorkerPool(
        lambda: actor.remote(known, passes, share.cpus, Path.cwd()),
        min(share.workers, len(shards)),
        "fewer --workers or --shard-rows",
    )

    def begin(worker: Any, shard: Shard) -> Any:
        return worker.compute.remote(shard, splits[shard.split])

    with pool:
        began = time.monotonic()
        pool.open()
        ready = f"the first worker is ready after {time.monotonic() - began:.1f} s, on {known.device}"
        with ProgressLine(_label(prepared), rows, own_tokens) as line:
            say(f"{known.source.name}: {ready}")
            try:
                for shard, _ in pool.results(shards, begin):
                    line.advance(*sizes[shard])
            except KeyboardInterrupt:
                say("what is whole is kept; the shards under way are computed again")
                raise
    for each in prepared:
        finish(each.job.as_begun(), passes)  # with the batches that the first worker settled on


def _size(prepared: Prepared, number: int) -> tuple[int, int]:
    rows = prepared.job.writers[0].rows_of(number)
    return len(rows), prepared.parts.size(rows).own_tokens


def _label(prepared: Sequence[Prepared]) -> str:
    labels = list(dict.fromkeys(each.job.label for each in prepared))
    return labels[0] if len(labels) == 1 else f"{len(labels)} splits"


class Worker:
    """A process with the backbone loaded, which computes shards of any split.

    Args:
        known: the backbone.
        passes: how it goes through a corpus.
        threads: of the CPU.
        folder: that paths are relative to.
    """

    def __init__(self, known: KnownBackbone, passes: PassConfig, threads: int, folder: Path) -> None:
        os.chdir(folder)
        torch.set_num_threads(threads)
        self._passes, self._known = passes, known
        self._within = ExitStack()  # as long as the process lives
        self._within.enter_context(be_quiet())
        self._within.enter_context(exact_float32(known.device))
        self._settled: dict[int, tuple[Prepared, PrefillEngine]] = {}

    def open(self) -> None:
        """Load the backbone; a worker that was replaced does it with its first shard."""
        self._loaded  # noqa: B018

    @cached_property
    def _loaded(self) -> Backbone:
        return self._known.load()

    def compute(self, shard: Shard, split: Sequence[Any]) -> None:
        """Compute, write and seal a shard, unless somebody else did meanwhile.

        Args:
            split: a reference of its split, prepared, which is fetched once.
        """
        if shard.split not in self._settled:
            import ray

            prepared: Prepared = ray.get(split[0])
            engine = PrefillEngine(self._loaded, layers_of(prepared.job))
            self._settled[shard.split] = settle(prepared, engine, self._passes), engine
        settled, engine = self._settled[shard.split]
        if places := settled.job.lacking(shard.number):
            compute_shards(settled, engine, self._passes, {shard.number: places})
