"""Stage one: find what is missing, go through the corpus once, write and seal shard by shard."""

import importlib.metadata
from collections.abc import Container, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.tokens import load_tokenizer
from pipeline.cache.manifest import Manifest, adapter_digits
from pipeline.cache.passport import passport_of_seals
from pipeline.cache.upload import Upload
from pipeline.cache.writer import FeatureSetWriter
from pipeline.config import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    ExtractConfig,
    PassConfig,
    TokensConfig,
)
from pipeline.corpus_config import CorpusConfig
from pipeline.engine_config import ShareConfig
from pipeline.extract.finish import finish_jobs
from pipeline.extract.here import compute_here
from pipeline.extract.job import choose_views, make_job
from pipeline.extract.preflight import check_room
from pipeline.extract.prepared import Compute, prepare, say_notes
from pipeline.progress import say
from pipeline.shard_choice import parse_choice
from pipeline.tasks.examples import Examples
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from pipeline.tasks.stream import StreamedCorpus, stream_task

FINISHED = "finished"
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
    share: ShareConfig = ShareConfig(),
) -> list[dict[str, Any]]:
    """Write every feature set that is asked for and not there yet: `extract_splits` of all splits of the tasks."""
    splits = asked_splits(config, data)
    return extract_splits(splits, config, data.source, backbone, tokens, passes, cache, share)


def asked_splits(config: ExtractConfig, data: DataConfig) -> Iterable[Examples | StreamedCorpus]:
    """The splits of the tasks, read one after the other as they are asked for."""
    tasks = find_tasks(config.tasks, config.task_files)
    if isinstance(data, CorpusConfig) and data.stream:
        return (each for task in tasks for each in stream_task(task, data, config.splits).values())
    return (each for task in tasks for each in read_task(task, data, config.splits or None).values())


def extract_splits(
    splits: Iterable[Examples | StreamedCorpus],
    config: ExtractConfig,
    data_source: str,
    backbone: BackboneConfig,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
    share: ShareConfig = ShareConfig(),
) -> list[dict[str, Any]]:
    """Write every feature set of some splits that is not there yet, or a share of its shards.

    What is there is found by its identity, without loading the model. A killed run goes on from its last whole shard.

    Args:
        splits: the rows; asked for when the backbone is found.
        config: its layers and poolings.
        data_source: the rows' source, for records.

    Returns:
        one record a feature set: task, split, name, fingerprint, rows, tokens, truncated, and `status`: `present`,
        `resumed` or `written`; of a set that is not whole yet how many shards are, with their tokens.

    Raises:
        PipelineError: a setting, a sentence, the backbone or the disk is at fault.
    """
    if share.engine == "ray":
        from pipeline.extract.on_ray import on_ray

        with on_ray(backbone, passes, share) as (known, compute):
            return _extract(splits, config, data_source, known, tokens, passes, cache, share, compute)
    known = KnownBackbone.find(backbone)
    compute = partial(compute_here, choice=parse_choice(share.only_shards))
    return _extract(splits, config, data_source, known, tokens, passes, cache, share, compute)


def _extract(
    splits: Iterable[Examples | StreamedCorpus],
    config: ExtractConfig,
    data_source: str,
    known: KnownBackbone,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
    share: ShareConfig,
    compute: Compute,
) -> list[dict[str, Any]]:
    if known.facts.adapter is not None:
        digits = adapter_digits(known.facts.adapter)
        say(f"the adapter's digest begins with {digits}: --adapter {digits} asks for its features in stage two")
    upload = Upload.of(cache, verify=passes.verify)
    cache_dir = cache.cache_dir if upload is None else upload.copy.folder
    jobs = [
        make_job(
            corpus,
            choose_views(corpus.task, config.layers, config.poolings, known.facts.num_hidden_layers),
            source=known.source,
            facts=known.facts,
            tokens=tokens,
            passes=passes,
            open_writer=partial(FeatureSetWriter.open, cache_dir, upload=upload),
            data_source=data_source,
            storage_dtype=known.dtype if passes.storage_dtype == "auto" else passes.storage_dtype,
            recorded=_recorded(known.device),
        )
        for corpus in said(splits)
    ]
    whole = {writer.folder for job in jobs for writer in job.writers if writer.is_whole}
    missing = [left for job in jobs if (left := job.missing(passes))]
    choice = parse_choice(share.only_shards)
    status = {writer.folder: _status(writer, whole) for job in jobs for writer in job.writers}
    for name in (folder.name for folder, each in status.items() if each == FINISHED):
        say(f"{name} is whole: its manifest alone was missing")
    if share.finish:
        finish_jobs(missing, passes)
    elif missing:
        prepared = prepare(missing, load_tokenizer(known.source.folder), passes)
        say_notes(prepared, passes)
        check_room(prepared, cache_dir, choice)
        if any(number in choice for each in prepared for number in each.job.unsealed()):
            compute(prepared, known, passes)
    return [_describe(writer, status[writer.folder]) for job in jobs for writer in job.writers]


def said(splits: Iterable[Examples | StreamedCorpus]) -> Iterable[Examples | StreamedCorpus]:
    """The splits, each named when its turn comes."""
    for corpus in splits:
        say(f"{corpus.task.name}/{corpus.split}: {len(corpus)} rows from {corpus.origin}")
        yield corpus


def _status(writer: FeatureSetWriter, whole: Container[Path]) -> str:
    """What a set will be called when it is written.

    Args:
        whole: the folders of sets that were so before anything was done.
    """
    if writer.is_whole:
        return "present" if writer.folder in whole else FINISHED
    begun = writer.is_cut and any(writer.sealed(number) for number in range(writer.manifest.shards))
    return "resumed" if begun else "written"


def _recorded(device: str) -> dict[str, object]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return {"device": name, "versions": versions}


def _describe(writer: FeatureSetWriter, status: str) -> dict[str, Any]:
    manifest = Manifest.read(writer.folder) if writer.is_whole else writer.manifest
    if not writer.is_whole:
        writer = writer.as_begun()
        seals = [seal for number in range(writer.manifest.shards) if (seal := writer.sealed(number))]
        status = f"shared: {len(seals)} of {writer.manifest.shards} shards"
        manifest = replace(manifest, passport=passport_of_seals(seals) if seals else {"tokens": 0, "truncated": 0})
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
