"""Stage one: find what is missing, go through the corpus once, write and seal shard by shard."""

import contextlib
import importlib.metadata
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.backbone.batch import Batch
from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.facts import BackboneFacts, check_unchanged, read_facts, resolve_device, resolve_dtype
from pipeline.backbone.load import Backbone, load_backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import TokenRows, load_tokenizer, tokenize
from pipeline.cache.canary_rows import tolerance_for
from pipeline.cache.manifest import Manifest
from pipeline.cache.shard import RAW
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, ExtractConfig, PassConfig, TokensConfig
from pipeline.extract.beside import Ahead, Behind
from pipeline.extract.canaries import Recomputed
from pipeline.extract.cut import note_on_cut
from pipeline.extract.job import Job, choose_views, make_job
from pipeline.extract.memory import peak_memory_bytes
from pipeline.extract.preflight import check_room
from pipeline.extract.probe import find_token_budget
from pipeline.extract.shard_pass import compute_rows, index_of, plan_shard, to_shard_data
from pipeline.extract.sharing import Claim, claimed_shards
from pipeline.kernels import exact_float32
from pipeline.progress import ProgressLine, say
from pipeline.tasks.examples import Examples
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks

PACKAGES = (
    "feature-cache-pipeline",
    "torch",
    "transformers",
    "tokenizers",
    "bitsandbytes",
    "peft",
    "h5py",
    "pyarrow",
    "numpy",
)


def extract(
    config: ExtractConfig,
    data: DataConfig,
    backbone: BackboneConfig,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
) -> list[dict[str, Any]]:
    """Write every feature set that is asked for and not there yet: `extract_splits` of all splits of the tasks."""
    tasks = find_tasks(config.tasks, config.task_files)
    splits = (each for task in tasks for each in read_task(task, data, config.splits or None).values())
    return extract_splits(splits, config, data.source, backbone, tokens, passes, cache)


def extract_splits(
    splits: Iterable[Examples],
    config: ExtractConfig,
    data_source: str,
    backbone: BackboneConfig,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
) -> list[dict[str, Any]]:
    """Write every feature set of some splits that is not there yet.

    What is there is found by its identity, without loading the model. A killed run goes on from its last whole shard.

    Args:
        splits: the rows; asked for when the backbone is found.
        config: its layers and poolings.
        data_source: the rows' source, for records.

    Returns:
        one record a feature set: task, split, name, fingerprint, rows, tokens, truncated, and `status`: `present`,
        `resumed` or `written`.

    Raises:
        PipelineError: a setting, a sentence, the backbone or the disk is at fault.
    """
    device = resolve_device(backbone.device)
    dtype = resolve_dtype(backbone.compute_dtype, device)
    source = find_backbone(backbone)
    facts = read_facts(source, backbone, dtype)
    recorded = _recorded(device)
    jobs = []
    for examples in splits:
        say(f"{examples.task.name}/{examples.split}: {len(examples)} rows from {examples.origin}")
        jobs.append(
            make_job(
                examples,
                choose_views(examples.task, config.layers, config.poolings, facts.num_hidden_layers),
                source=source,
                facts=facts,
                tokens=tokens,
                passes=passes,
                cache=cache,
                data_source=data_source,
                storage_dtype=dtype if passes.storage_dtype == "auto" else passes.storage_dtype,
                recorded=recorded,
            )
        )
    missing = [left for job in jobs if (left := job.missing(passes))]
    status = {writer.folder: "present" for job in jobs for writer in job.writers}
    if missing:
        _compute(
            missing,
            source,
            backbone,
            passes,
            facts=facts,
            cache_dir=cache.cache_dir,
            device=device,
            dtype=dtype,
            status=status,
        )
    return [_describe(writer.folder, status[writer.folder]) for job in jobs for writer in job.writers]


def _compute(
    jobs: list[Job],
    source: Any,
    config: BackboneConfig,
    passes: PassConfig,
    *,
    facts: BackboneFacts,
    cache_dir: Path,
    device: str,
    dtype: Any,
    status: dict[Path, str],
) -> None:
    tokenizer = load_tokenizer(source.folder)
    tokenized: list[tuple[Job, TokenRows]] = []
    for job in jobs:
        identity = job.writers[0].manifest.identity
        rows = tokenize(
            tokenizer,
            job.examples.texts,
            identity.prompt,
            max_length=identity.max_length,
            truncation=identity.truncation,
            special_tokens=identity.special_tokens,
            origin=job.examples.origin,
            lines=job.examples.lines or None,
        )
        rows.say_if_cut(job.label, identity.max_length)
        tokenized += [(part, rows) for part in job.cut(rows, None if passes.order == "auto" else passes.order)]
    for job, _ in tokenized:
        for note in dict.fromkeys((*_notes_on_cuts(job), *_notes_on_what_was_begun(job, passes))):
            say(f"{job.label}: {note}")
    check_room(tokenized, cache_dir)
    if passes.threads:
        torch.set_num_threads(passes.threads)
    with exact_float32(device):
        began = time.monotonic()
        loaded = load_backbone(source, config, device=device, compute_dtype=dtype, facts=facts)
        check_unchanged(facts, source, config, dtype)
        say(f"{source.name}: {loaded.note}, on {device}, loaded in {time.monotonic() - began:.1f} s")
        for job, rows in tokenized:
            _run(job, rows, loaded, passes, status)


def _notes_on_cuts(job: Job) -> Iterator[str]:
    for manifest in (writer.manifest for writer in job.writers):
        if manifest.identity.pooling == "tokens" or manifest.order == "tokens":
            continue
        row_bytes = manifest.identity.architecture["hidden_size"] * RAW[manifest.identity.storage_dtype].itemsize
        if note := note_on_cut(manifest.rows, manifest.shard_rows, row_bytes):
            yield note


def _notes_on_what_was_begun(job: Job, passes: PassConfig) -> Iterator[str]:
    """Where a set was begun with another cut than is asked for now: it is kept, so that its shards fit together."""
    for writer in job.writers:
        if not writer.is_cut:
            continue
        asked = (
            passes.shard_rows or None,
            None if passes.order == "auto" else passes.order,
            passes.token_budget or None,
        )
        begun = (writer.cut.shard_rows, writer.cut.order, writer.cut.token_budget)
        if any(wish not in (None, there) for wish, there in zip(asked, begun, strict=True)):
            yield f"goes on as it was begun: {writer.cut}"


def _run(job: Job, tokens: TokenRows, backbone: Backbone, passes: PassConfig, status: dict[Path, str]) -> None:
    engine = PrefillEngine(backbone, sorted({int(view.layer) for view in job.views}))
    job = job.with_token_budget(lambda: passes.token_budget or find_token_budget(engine))
    job = job.keep_cut(any_budget=not passes.token_budget, timeout=passes.lock_timeout)
    shards = job.writers[0].manifest.shards
    todo = job.unsealed()
    for place, writer in enumerate(job.writers):
        status[writer.folder] = "resumed" if any(place not in todo.get(n, ()) for n in range(shards)) else "written"
    if len(todo) < shards:
        say(f"{job.label}: {shards - len(todo)} of {shards} shards are whole already")
    rows_of = {n: job.writers[0].rows_of(n) for n in todo}
    rows = sum(map(len, rows_of.values()))
    total = sum(int(tokens.own_lengths[of_shard].sum()) for of_shard in rows_of.values())
    behind = Behind(in_thread=backbone.device.type == "cuda")
    claimed = claimed_shards(job.writers, todo, label=job.label, timeout=passes.lock_timeout, wait=behind.wait)
    with (
        ProgressLine(job.label, rows, total) as line,
        Ahead(partial(_plan_shard, job, tokens, engine), sorted(todo)) as plans,
        contextlib.closing(claimed),
        behind,
    ):
        try:
            for claim in claimed:
                behind.do(_compute_shard(job, tokens, engine, claim, plans.get(claim.number), passes, line))
        except KeyboardInterrupt:
            whole = shards - len(job.unsealed())
            say(f"{job.label}: {whole} of {shards} shards are whole and kept; the one under way is computed again")
            raise
    for writer in job.writers:
        writer.finish(timeout=passes.lock_timeout)


def _plan_shard(job: Job, tokens: TokenRows, engine: PrefillEngine, number: int) -> tuple[np.ndarray, list[Batch]]:
    """What all rows of a shard begin with, if that can be shared, and their batches behind it."""
    writer = job.writers[0]
    return plan_shard(engine, tokens, writer.rows_of(number), writer.manifest.token_budget)


def _compute_shard(
    job: Job,
    tokens: TokenRows,
    engine: PrefillEngine,
    claim: Claim,
    plan: tuple[np.ndarray, list[Batch]],
    passes: PassConfig,
    line: ProgressLine,
) -> Callable[[], None]:
    """Compute a shard of the views that lack it, and its canaries again; what is returned writes it."""
    began, processor_began = time.monotonic(), time.process_time()
    rows = job.writers[0].rows_of(claim.number)
    views = [job.views[place] for place in claim.places]
    shared, batches = plan
    prefix = engine.prefix(shared)
    pooled = compute_rows(engine, tokens, rows, prefix, views, batches, line.advance)
    line.now("computing canaries again")
    again = Recomputed(engine, tokens, rows, job.writers[0].manifest.identity, prefix, views)
    record = {
        "pass": uuid.uuid4().hex,  # of the views that are computed together
        "shard": claim.number,
        "backbone_seconds": round(time.monotonic() - began, 3),
        "processor_seconds": round(time.process_time() - processor_began, 3),
        "views": len(views),
        "rows": len(rows),
        "tokens": int(tokens.lengths[rows].sum()),
        "computed_tokens": len(shared) + sum(batch.ids.size for batch in batches),
        "token_budget": job.writers[0].manifest.token_budget,
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
                index_of(job.examples, tokens, rows, view.pooling),
                truncated=int(tokens.truncated_rows[rows].sum()),
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


def _recorded(device: str) -> dict[str, object]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return {"device": name, "versions": versions}


def _describe(folder: Path, status: str) -> dict[str, Any]:
    manifest = Manifest.read(folder)
    return {
        "task": manifest.task,
        "split": manifest.split,
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "rows": manifest.rows,
        "tokens": manifest.passport["tokens"],
        "truncated": manifest.passport["truncated"],
        "status": status,
    }
