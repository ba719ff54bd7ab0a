"""What is missing, made ready: tokenised where it is in memory, cut into shards, held against the room on the disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.backbone.known import KnownBackbone
from pipeline.cache.shard import RAW
from pipeline.config import PassConfig
from pipeline.errors import ConfigError
from pipeline.extract.cut import note_on_cut
from pipeline.extract.job import Job
from pipeline.extract.part import Parts, PartsInMemory, PartsOfStream, tokenize_as
from pipeline.progress import say
from pipeline.tasks.examples import Examples


@dataclass(frozen=True)
class Prepared:
    """Some views of a split that are cut alike.

    Args:
        job: which.
        parts: gives the rows of its shards.
    """

    job: Job
    parts: Parts


Compute = Callable[[Sequence[Prepared], KnownBackbone, PassConfig], None]
"""Computes what is missing, wherever."""


def prepare(jobs: Sequence[Job], tokenizer: Any, passes: PassConfig) -> list[Prepared]:
    """Tokenise splits and cut them; how a split that was begun is cut stays as it is.

    Raises:
        PipelineError: a sentence is at fault.
    """
    prepared = []
    for job in jobs:
        identity, corpus = job.writers[0].manifest.identity, job.corpus
        order = None if passes.order == "auto" else passes.order
        if not isinstance(corpus, Examples):
            if order == "tokens":
                raise ConfigError("a streamed corpus is cut as it stands", where="order", expected="split", found=order)
            prepared += [Prepared(part, PartsOfStream(corpus, tokenizer, identity)) for part in job.cut(None, "split")]
            continue
        tokens = tokenize_as(identity, tokenizer, corpus.texts, corpus.origin, corpus.lines or None)
        tokens.say_if_cut(job.label, identity.max_length)
        parts = PartsInMemory(corpus, tokens)
        prepared += [Prepared(part, parts) for part in job.cut(tokens, order)]
    return prepared


def say_notes(prepared: Sequence[Prepared], passes: PassConfig) -> None:
    """Say what people should know of the cuts."""
    for job in (each.job for each in prepared):
        for note in dict.fromkeys((*_notes_on_cuts(job), *_notes_on_what_was_begun(job, passes))):
            say(f"{job.label}: {note}")


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
