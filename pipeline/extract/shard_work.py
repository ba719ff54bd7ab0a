"""One shard: computed in all views that lack it, its canaries computed again, then written and noted."""

import platform
import time
import uuid
from collections.abc import Callable

import numpy as np
import torch

from pipeline.backbone.batch import Batch
from pipeline.backbone.prefill import PrefillEngine
from pipeline.cache.canary_rows import tolerance_for
from pipeline.config import PassConfig
from pipeline.extract.canaries import Recomputed
from pipeline.extract.job import Job
from pipeline.extract.memory import peak_memory_bytes
from pipeline.extract.part import Part
from pipeline.extract.shard_pass import compute_rows, count_computed, index_of, to_shard_data
from pipeline.extract.sharing import Claim
from pipeline.progress import ProgressLine


def compute_shard(
    job: Job,
    part: Part,
    engine: PrefillEngine,
    claim: Claim,
    plan: tuple[np.ndarray, list[Batch]],
    passes: PassConfig,
    line: ProgressLine,
) -> Callable[[], None]:
    """Compute a shard of the views that lack it, and its canaries again.

    Args:
        part: the shard's rows.
        plan: what all of them begin with, and their batches behind it.
        line: told of rows as they are done.

    Returns:
        what writes it.
    """
    began, processor_began = time.monotonic(), time.process_time()
    tokens, manifest = part.tokens, job.writers[0].manifest
    views = [job.views[place] for place in claim.places]
    shared, batches = plan
    prefix = engine.prefix(shared)
    pooled = compute_rows(engine, tokens, np.arange(len(part)), prefix, views, batches, line.advance)
    line.now("computing canaries again")
    again = Recomputed(engine, tokens, part.rows, manifest.rows, manifest.identity, prefix, views)
    record = {
        "pass": uuid.uuid4().hex,  # of the views that are computed together
        "shard": claim.number,
        "backbone_seconds": round(time.monotonic() - began, 3),
        "processor_seconds": round(time.process_time() - processor_began, 3),
        "views": len(views),
        "rows": len(part),
        "tokens": int(tokens.lengths.sum()),
        "computed_tokens": count_computed(shared, batches),
        "token_budget": manifest.token_budget,
        "threads": torch.get_num_threads(),
        "float32_products": torch.get_float32_matmul_precision(),
        "host": platform.node(),
        "machine": platform.machine(),
        "device": str(engine.backbone.device),
        "weights_bytes": engine.backbone.weights_bytes,
        "peak_memory_bytes": peak_memory_bytes(engine.backbone.device),
    }

    def write() -> None:
        claim.take_over()
        for place, view in zip(claim.places, views, strict=True):
            writer = job.writers[place]
            identity = writer.manifest.identity
            where = f"{job.label}, {view}, shard {claim.number}"
            data = to_shard_data(pooled.pop(view), view.pooling, identity.storage_dtype, where=where)
            tolerance = tolerance_for(identity) if passes.drift_tolerance is None else passes.drift_tolerance
            writer.write(
                claim.number,
                data,
                index_of(part, view.pooling),
                truncated=int(tokens.truncated_rows.sum()),
                drift=again.drift(view, data, tolerance),
            )
        took = {
            "seconds": round(time.monotonic() - began, 3),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        for place in claim.places:
            job.writers[place].note_pass(record | took)
        claim.give_back()

    return write
