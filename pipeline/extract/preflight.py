"""Before the model loads: how much there is to compute and to store, and whether the disk has room for it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache.identity import Identity
from pipeline.cache.manifest import Manifest
from pipeline.cache.shard import RAW
from pipeline.cache.writer import SHARD_OVERHEAD_BYTES
from pipeline.errors import DiskFull
from pipeline.extract.part import Size
from pipeline.extract.prepared import Prepared
from pipeline.progress import say
from pipeline.shard_choice import ALL_SHARDS, ShardChoice
from pipeline.sizes import shown_size

INDEX_NUMBERS_BYTES = 96
"""What a row takes in an index beside its text: its numbers, and the text's length and source."""


def check_room(prepared: Sequence[Prepared], cache_dir: Path, choice: ShardChoice = ALL_SHARDS) -> None:
    """Say rows, tokens, bytes and free space of what is left to do.

    Args:
        choice: the shards that are this process' share.

    Raises:
        DiskFull: it cannot fit.
    """
    rows = own = size_bytes = largest = 0
    for each in prepared:
        todo = {number: places for number, places in each.job.unsealed().items() if number in choice}
        for number, places in todo.items():
            of_shard = each.job.writers[0].rows_of(number)
            size = each.parts.size(of_shard)
            rows += len(of_shard)
            own += size.own_tokens
            of_views = sum(shard_bytes(each.job.writers[place].manifest, len(of_shard), size) for place in places)
            size_bytes, largest = size_bytes + of_views, max(largest, of_views)
    free = free_bytes(cache_dir)
    say(
        f"to do: {rows:,} rows, {own:,} tokens after the prompt, {shown_size(size_bytes)}; "
        f"{shown_size(free)} free in {cache_dir}"
    )
    upload = prepared[0].job.writers[0].upload
    if upload is not None and upload.copy.limit_bytes is not None:
        size_bytes = min(size_bytes, upload.copy.limit_bytes + largest)  # the rest goes on to the store
    if size_bytes > free:
        raise DiskFull(
            "there is no room for these features",
            where=cache_dir,
            expected=f"about {size_bytes:,} bytes",
            found=f"{free:,} bytes free",
            remedy="make room, name another folder with --cache-dir, let less of a store stay here (--local-limit), or "
            "ask for fewer views (--layers, --poolings) or smaller numbers (--storage-dtype bfloat16)",
        )


def free_bytes(cache_dir: Path) -> int:
    """What the disk has free that a cache's folder is on, or will be."""
    there = next(folder for folder in (cache_dir.absolute(), *cache_dir.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def shard_bytes(manifest: Manifest, rows: int, size: Size) -> int:
    """About what a shard's files take; a little more rather than less."""
    vectors = size.own_tokens if manifest.identity.pooling == "tokens" else rows
    return vectors * vector_bytes(manifest.identity) + most_index_bytes(rows, size) + SHARD_OVERHEAD_BYTES


def vector_bytes(identity: Identity) -> int:
    """What one vector of a feature set takes."""
    return int(identity.architecture["hidden_size"]) * RAW[identity.storage_dtype].itemsize


def most_index_bytes(rows: int, size: Size) -> int:
    """What the rows of an index take at most: where no text can be compressed."""
    return size.text_bytes + rows * INDEX_NUMBERS_BYTES
