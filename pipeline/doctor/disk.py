"""Disk: room where features, runs and models go, and whether locks and memory maps work there."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.backbone.embedded import EMBEDDED
from pipeline.cache.files import FULL
from pipeline.cache.inventory import Entry, list_entries, size_bytes
from pipeline.cache.lock import FeatureSetLock
from pipeline.cache.shard import RAW, ShardData, map_shard, write_shard
from pipeline.cache.writer import INDEX_ROW_BYTES
from pipeline.config import Dtype
from pipeline.doctor.finding import Finding, first_line
from pipeline.errors import PipelineError
from pipeline.glue_rows import GLUE_ROWS
from pipeline.housekeeping.leftovers import find_leftovers
from pipeline.housekeeping.tables import readable_size
from pipeline.partials import partial_path
from pipeline.tasks.spec import BUILT_IN

HIDDEN_SIZE, NUM_HIDDEN_LAYERS = 576, 30
"""Of the embedded backbone."""
MODELS_BYTES = 7 * 10**8
"""The embedded backbone as it is converted, and its quantised weights."""
OTHER_PROCESS_SECONDS = 10.0
OTHER_PROCESS = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(3)
"""
"""Ends with 3 where a lock that this process holds is seen by another one."""


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: what is written goes to its disk."""
    return next(each for each in _upwards(folder) if each.is_dir())


def _upwards(folder: Path) -> tuple[Path, ...]:
    absolute = folder.expanduser().absolute()
    return absolute, *absolute.parents


def unusable(name: str, folder: Path) -> Finding | None:
    """Why nothing can be kept in a folder, there already or not; None where a folder could just be made there.

    Args:
        name: whose it is: `cache`, `models` or `runs`.
    """
    another = f"name another folder with --{name}-dir"
    facts = {"folder": str(folder)}
    there = next(each for each in _upwards(folder) if os.path.lexists(each))
    if not there.is_dir():
        remedy = f"remove or rename it, or {another}"
        return Finding(name, "problem", f"{there} is not a folder", remedy=remedy, facts=facts)
    tried = partial_path(there / "doctor")  # where this process dies, pipeline cache gc knows what it is
    try:
        tried.mkdir()  # what permissions say does not hold for root, nor for every kind of file system
        tried.rmdir()
    except OSError as error:
        found = f"nothing can be written in {there} ({file_system(there)}): {error.strerror or first_line(error)}"
        remedy = "make room" if error.errno in FULL else f"mend its permissions, or {another}"
        return Finding(name, "problem", found, remedy=remedy, facts=facts)
    return None


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of file system that a folder lies on, such as ext4, nfs4 or lustre; `unknown` where nobody says."""
    kinds = {}
    with contextlib.suppress(OSError):
        for line in mounts.read_text("utf-8", "replace").splitlines():
            _, point, kind, *_ = line.split(" ")
            kinds[Path(point.replace("\\040", " "))] = kind
    real = existing(folder).resolve()
    return next((kinds[each] for each in (real, *real.parents) if each in kinds), "unknown")


SetKey = tuple[str, str, int, str]
"""Task, split, layer and pooling."""


def default_sets() -> dict[SetKey, int]:
    """The feature sets that stage one writes of GLUE by default, and how many rows each has."""
    return {
        (task, split, int(view.resolved(NUM_HIDDEN_LAYERS).layer), view.pooling): rows
        for (task, split), rows in GLUE_ROWS.items()
        for view in BUILT_IN[task].views
    }


def set_bytes(rows: int, dtype: Dtype) -> int:
    """About what a feature set of the embedded backbone takes.

    Args:
        dtype: of its numbers, never `auto`.
    """
    return rows * (HIDDEN_SIZE * RAW[dtype].itemsize + INDEX_ROW_BYTES // 2)


def check_room(cache_dir: Path, runs_dir: Path, models_dir: Path, dtype: Dtype) -> Iterator[Finding]:
    """Free space for each folder, against what will be written there.

    Args:
        dtype: that stage one computes in here.
    """
    wanted = default_sets()
    there = {kind for kind in map(_kind_of, list_entries(cache_dir)) if kind is not None} & set(wanted.items())
    needed = sum(set_bytes(rows, dtype) for key, rows in wanted.items() if (key, rows) not in there)
    what = f"of the {len(wanted)} default feature sets of CoLA and SST-2 in NF4, {len(there)} are there"
    yield _room("cache", cache_dir, needed, what)
    missing = max(0, MODELS_BYTES - sum(size_bytes(folder) for folder in models_dir.glob(f"{EMBEDDED}*")))
    what = f"the embedded backbone and its NF4 weights {'are not all' if missing > MODELS_BYTES // 20 else 'are'} there"
    yield _room("models", models_dir, missing if "not all" in what else 0, what)
    yield _room("runs", runs_dir, 0, "")


def _kind_of(entry: Entry) -> tuple[SetKey, int] | None:
    """Which feature set it may be of those, and its rows: by what it is of, not by the prompt or the numbers in it."""
    manifest = entry.manifest
    if manifest is None or manifest.backbone != EMBEDDED or manifest.identity.quantization.get("type") != "nf4":
        return None
    return (manifest.task, manifest.split, manifest.identity.layer, manifest.identity.pooling), manifest.rows


def _room(name: str, folder: Path, needed: int, what: str) -> Finding:
    """Whether a folder's disk has room.

    Args:
        needed: bytes that are to be written there.
        what: what of it is there, in words.
    """
    if broken := unusable(name, folder):
        return broken
    free = shutil.disk_usage(existing(folder)).free
    found = f"{readable_size(free)} free for {folder} ({file_system(folder)})"
    facts = {"folder": str(folder), "free_bytes": free, "needed_bytes": needed}
    means = what + (f"; the rest takes about {readable_size(needed)}" if needed else "")
    if needed > free or not free:
        return Finding(
            name,
            "problem",
            found,
            means=means,
            remedy=f"make room, or name a folder on another disk with --{name}-dir"
            + ("; or ask for fewer views or smaller numbers (--layers, --storage-dtype)" if name == "cache" else ""),
            facts=facts,
        )
    return Finding(name, "ok", found, means=means, facts=facts)


def check_files(cache_dir: Path) -> Iterator[Finding]:
    """Write a shard where the cache lies, map it, lock it, rename it; nothing of it stays.

    Where no folder can be made there, the check of its room has said so.
    """
    if unusable("cache", cache_dir):
        return
    place = existing(cache_dir)
    folder = partial_path(place / "doctor")  # where this process dies, pipeline cache gc knows what it is
    try:
        folder.mkdir()
        yield _maps(folder)
        yield _locks(folder)
    except OSError as error:
        full = error.errno in FULL
        yield Finding(
            "files of the cache",
            "problem",
            f"nothing can be written in {place}: {error.strerror or first_line(error)}",
            remedy="make room" if full else "mend its permissions, or name another folder with --cache-dir",
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _maps(folder: Path) -> Finding:
    name, path = "memory maps", folder / "shard.h5"
    values = np.random.default_rng(0).standard_normal((64, HIDDEN_SIZE), dtype=np.float32)
    write_shard(folder / "shard", ShardData(values, None, "float32"))
    descriptor = os.open(folder / "shard", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (folder / "shard").rename(path)
    try:
        mapped = map_shard(path, "float32", HIDDEN_SIZE).hidden_states
    except PipelineError as error:
        return Finding(
            name,
            "problem",
            f"a shard that was just written cannot be mapped on {file_system(folder)}: {error.found}",
            remedy="name a folder on a local disk with --cache-dir",
        )
    if not np.array_equal(mapped, values):
        return Finding(
            name,
            "problem",
            f"a shard that was just written reads back as something else on {file_system(folder)}",
            remedy="name a folder on a local disk with --cache-dir; this disk cannot be trusted",
        )
    return Finding(name, "ok", f"a shard was written, fsynced, renamed and mapped ({file_system(folder)})")


def _locks(folder: Path) -> Finding:
    name, kind = "locks", file_system(folder)
    remedy = "put the cache on a file system that has locks, with --cache-dir (NFS: mount it without nolock)"
    lock = FeatureSetLock(folder)
    try:
        if not lock.try_hold():
            return Finding(name, "problem", f"a lock that nobody has cannot be taken on {kind}", remedy=remedy)
    except PipelineError as error:
        return Finding(name, "problem", f"{kind} has none: {error.found}", remedy=remedy)
    try:
        asked = subprocess.run(
            [sys.executable, "-I", "-S", "-c", OTHER_PROCESS, str(lock.path)],
            capture_output=True,
            timeout=OTHER_PROCESS_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, "problem", f"another process that asks for one hangs on {kind}", remedy=remedy)
    finally:
        lock.release()
    if asked.returncode == 0:
        means = "two writers would write the same shard; what is sealed stays right"
        return Finding(name, "problem", f"on {kind} another process does not see them", means=means, remedy=remedy)
    if asked.returncode != 3:
        said = asked.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return Finding(name, "note", f"not tried: another process ended with {' '.join(said) or asked.returncode}")
    return Finding(name, "ok", f"another process sees them ({kind})", "several processes can share one extraction")


def check_leftovers(cache_dir: Path, runs_dir: Path, models_dir: Path) -> Iterator[Finding]:
    """What stopped commands left behind."""
    found = find_leftovers(cache_dir, runs_dir, models_dir)
    if not found:
        yield Finding("leftovers", "ok", "none")
        return
    total_bytes = sum(each.size_bytes for each in found)
    kinds = ", ".join(
        f"{sum(each.kind == kind for each in found)} of kind {kind!r}" for kind in sorted({each.kind for each in found})
    )
    yield Finding(
        "leftovers",
        "note",
        f"{kinds}: {readable_size(total_bytes)}",
        means="the command that was stopped goes on from an unfinished set or a stopped training",
        remedy="pipeline cache gc --dry-run shows them, pipeline cache gc removes what nobody is writing",
        facts={"size_bytes": total_bytes, "paths": [str(each.path) for each in found]},
    )
