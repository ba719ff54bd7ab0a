"""Computing in this process: the backbone is loaded once, and shard after shard goes through it."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pipeline.backbone.batch import Batch
from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.config import PassConfig
from pipeline.extract.beside import Ahead, Behind
from pipeline.extract.job import Job
from pipeline.extract.part import Part
from pipeline.extract.prepared import Prepared
from pipeline.extract.probe import find_token_budget
from pipeline.extract.shard_pass import plan_shard
from pipeline.extract.shard_work import compute_shard
from pipeline.extract.sharing import claimed_shards
from pipeline.kernels import exact_float32
from pipeline.progress import ProgressLine, say
from pipeline.shard_choice import ALL_SHARDS, ShardChoice


def compute_here(
    prepared: Sequence[Prepared], known: KnownBackbone, passes: PassConfig, choice: ShardChoice = ALL_SHARDS
) -> None:
    """Compute what is missing, split by split; a feature set whose shards are all whole then gets its manifest.

    Args:
        choice: a share of the shards, where others have the rest; then nothing gets a manifest.
    """
    if passes.threads:
        torch.set_num_threads(passes.threads)
    with exact_float32(known.device):
        began = time.monotonic()
        loaded = known.load()
        say(f"{known.source.name}: {loaded.note}, on {known.device}, loaded in {time.monotonic() - began:.1f} s")
        for each in prepared:
            engine = PrefillEngine(loaded, layers_of(each.job))
            settled = settle(each, engine, passes)
            compute_split(settled, engine, passes, choice)
            if choice == ALL_SHARDS:
                finish(settled.job, passes)


def settle(prepared: Prepared, engine: PrefillEngine, passes: PassConfig) -> Prepared:
    """Settle the tokens a batch, and note the cut for all who write these sets; the first one's is kept.

    Raises:
        CacheError: another process has begun with another cut.
    """
    job = prepared.job.with_token_budget(lambda: passes.token_budget or find_token_budget(engine))
    return replace(prepared, job=job.keep_cut(any_budget=not passes.token_budget, timeout=passes.lock_timeout))


def layers_of(job: Job) -> list[int]:
    """The layers that a job's views are of."""
    return sorted({int(view.layer) for view in job.views})


def finish(job: Job, passes: PassConfig) -> None:
    """Write the manifests.

    Raises:
        CacheError: a shard is missing.
    """
    for writer in job.writers:
        writer.finish(timeout=passes.lock_timeout)


def compute_split(prepared: Prepared, engine: PrefillEngine, passes: PassConfig, choice: ShardChoice) -> None:
    """Compute the shards of a share that nobody has sealed; those that others hold are waited for.

    Args:
        prepared: settled.
    """
    job, shards = prepared.job, prepared.job.writers[0].manifest.shards
    todo = {number: places for number, places in job.unsealed().items() if number in choice}
    mine = sum(number in choice for number in range(shards))
    if len(todo) < mine:
        say(f"{job.label}: {mine - len(todo)} of {mine} shards are whole already")
    if todo:
        compute_shards(prepared, engine, passes, todo)


def compute_shards(
    prepared: Prepared, engine: PrefillEngine, passes: PassConfig, todo: Mapping[int, Sequence[int]]
) -> None:
    """Compute some shards.

    Args:
        todo: by shard, the places of the views that lack it.
    """
    job, parts = prepared.job, prepared.parts
    first = job.writers[0]
    sizes = [parts.size(first.rows_of(number)) for number in sorted(todo)]
    rows = sum(len(first.manifest.places_of(number)) for number in todo)
    behind = Behind(in_thread=engine.backbone.device.type == "cuda")
    claimed = claimed_shards(job.writers, todo, label=job.label, timeout=passes.lock_timeout, wait=behind.wait)
    with (
        ProgressLine(job.label, rows, sum(size.own_tokens for size in sizes)) as line,
        Ahead(partial(_plan, prepared, engine), sorted(todo)) as plans,
        contextlib.closing(claimed),
        behind,
    ):
        try:
            for claim in claimed:
                part, shared, batches = plans.get(claim.number)
                behind.do(compute_shard(job, part, engine, claim, (shared, batches), passes, line))
        except KeyboardInterrupt:
            whole = first.manifest.shards - len(job.unsealed())
            say(
                f"{job.label}: {whole} of {first.manifest.shards} shards are whole and kept; "
                "the one under way is computed again"
            )
            raise


def _plan(prepared: Prepared, engine: PrefillEngine, number: int) -> tuple[Part, np.ndarray, list[Batch]]:
    """A shard's rows, what all of them begin with, if that can be shared, and their batches behind it."""
    writer = prepared.job.writers[0]
    part = prepared.parts.part(writer.rows_of(number))
    return part, *plan_shard(part.tokens, np.arange(len(part)), writer.manifest.token_budget, share=engine.shares)
