"""Before the model loads: how much there is to compute and to store, and whether the disk has room for it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.backbone.tokens import TokenRows
from pipeline.cache.shard import RAW
from pipeline.cache.writer import SHARD_OVERHEAD_BYTES
from pipeline.errors import DiskFull
from pipeline.extract.job import Job
from pipeline.progress import say

INDEX_NUMBERS_BYTES = 96
"""What a row takes in an index beside its text: its numbers, and the text's length and source."""


def check_room(jobs: Sequence[tuple[Job, TokenRows]], cache_dir: Path) -> None:
    """Say rows, tokens, bytes and free space of what is left to do.

    Raises:
        DiskFull: it cannot fit.
    """
    rows = own = size_bytes = 0
    for job, split in jobs:
        todo = job.unsealed()
        for number, places in todo.items():
            of_shard = job.writers[0].rows_of(number)
            rows += len(of_shard)
            own += int(split.own_lengths[of_shard].sum())
            size_bytes += sum(_shard_bytes(job, place, of_shard, split) for place in places)
    there = next(folder for folder in (cache_dir.absolute(), *cache_dir.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    say(
        f"to do: {rows:,} rows, {own:,} tokens after the prompt, {_size(size_bytes)}; {_size(free)} free in {cache_dir}"
    )
    if size_bytes > free:
        raise DiskFull(
            "there is no room for these features",
            where=cache_dir,
            expected=f"about {size_bytes:,} bytes",
            found=f"{free:,} bytes free",
            remedy="make room, name another folder with --cache-dir, or ask for fewer views (--layers, --poolings) "
            "or smaller numbers (--storage-dtype bfloat16)",
        )


def _shard_bytes(job: Job, place: int, rows: np.ndarray, tokens: TokenRows) -> int:
    """About what a shard's files take; a little more rather than less."""
    identity = job.writers[place].manifest.identity
    vectors = int(tokens.own_lengths[rows].sum()) if identity.pooling == "tokens" else len(rows)
    numbers = vectors * int(identity.architecture["hidden_size"])
    index_bytes = most_index_bytes([job.examples.texts[row] for row in rows])
    return numbers * RAW[identity.storage_dtype].itemsize + index_bytes + SHARD_OVERHEAD_BYTES


def most_index_bytes(texts: Sequence[str]) -> int:
    """What the rows of an index take at most: where no text can be compressed."""
    return sum(len(text.encode()) + INDEX_NUMBERS_BYTES for text in texts)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"
