"""The feature sets that the campaign hurts: pooled and ragged, of 32 and of 16 bits, every value of them known."""

from pathlib import Path

from pipeline.extract.job import Job
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import find_tasks
from pipeline.views import View, check_pooling
from tests.cache.small_corpus import IDENTITY, Corpus

SHARD_ROWS = 32
ROWS = 4 * SHARD_ROWS - 5
KINDS = tuple(f"{pooling}-{dtype}" for pooling in ("mean", "tokens") for dtype in ("float32", "bfloat16"))
NEIGHBOUR = "first-float32"
"""Lies beside the set that is hurt, where files are swapped between two; it has the first kind's sizes."""


def corpus_of(kind: str, *, relabelled: bool = False) -> Corpus:
    """The corpus of one kind of feature set; 32 rows of 32 float32 numbers fill a page, so that `X` is a map."""
    pooling, dtype = kind.split("-")
    changes = {"pooling": pooling, "storage_dtype": dtype, "architecture": {**IDENTITY.architecture, "hidden_size": 32}}
    seed = 1 + (*KINDS, NEIGHBOUR).index(kind)
    order = "tokens" if dtype == "bfloat16" else "split"
    return Corpus(ROWS, SHARD_ROWS, changes, seed=seed, relabelled=relabelled, order=order)


def job_of(small: Corpus, cache_dir: Path) -> Job:
    """What stage one would be asked for to have this corpus in the cache."""
    rows = range(small.rows)
    index = small.shard(rows)[1]
    examples = Examples(
        task=find_tasks(("cola",))[0],
        split="train",
        texts=tuple(index["text"].to_pylist()),
        labels=tuple(index["label"].to_pylist()),
        idx=tuple(index["idx"].to_pylist()),
        sources=tuple(index["source"].to_pylist()),
        origin="made up",
    )
    view = View(small.identity.layer, check_pooling(small.identity.pooling))
    return Job(examples, (small.writer(cache_dir),), (view,))
