"""How fast a feature set opens and reads, against `np.load(mmap_mode="r")` on the same bytes, in one run.

    make bench-reading

For each kind of feature set, some 600 MB are written twice: as a feature set of default-size shards, and as one .npy
file. Both are then opened and read alternately, from the page cache. `sum` reads every number in place, `copy` into
memory of one's own, made before. `first` is the first reading of a process on the machine that wrote, pulled or
verified the set, `again` any later one; `unseen` is the first of a set that was copied in another way, which looks at
every byte. Prints a Markdown table of medians; a speed of 1.00 is np.load's.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cache import FeatureSet, sealed_files, states
from pipeline.cache.index import SCHEMA
from pipeline.cache.reading import SETTLED_NS
from pipeline.cache.shard import RAW, ShardData
from pipeline.cache.sound import note_on
from pipeline.cache.writer import FeatureSetWriter
from pipeline.extract.cut import default_shard_rows
from tests.cache.small_corpus import IDENTITY

Read = Callable[[np.ndarray], object]


def write_both(
    folder: Path, hidden_size: int, dtype: str, size_bytes: int, shard_rows: int | None
) -> tuple[Path, Path]:
    """Write a feature set and a .npy file with the same bits; give both paths."""
    rows = size_bytes // (hidden_size * RAW[dtype].itemsize)
    identity = replace(IDENTITY, architecture={"num_hidden_layers": 2, "hidden_size": hidden_size}, storage_dtype=dtype)
    facts = {"task": "cola", "split": "train", "labels": ("no", "yes"), "labelled": True, "source": "files"}
    writer = FeatureSetWriter.open(
        folder,
        identity=identity,
        backbone="bench",
        rows=rows,
        shard_rows=shard_rows or default_shard_rows(rows),
        recorded={},
        **facts,
    )
    plain = np.empty((rows, hidden_size), RAW[dtype])
    random = np.random.default_rng(0)
    for number in range(writer.manifest.shards):
        span = writer.rows_of(number)
        values = random.standard_normal((len(span), hidden_size), dtype=np.float32)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(RAW[dtype])
        plain[span] = bits
        columns = dict.fromkeys(SCHEMA.names, span) | {
            "label": span % 2,
            "text": [f"sentence {row}" for row in span],
            "source": pa.nulls(len(span), pa.string()),
        }
        writer.write(number, ShardData(bits, None, dtype), pa.table(columns).cast(SCHEMA), truncated=0)
    np.save(folder / "plain.npy", plain)
    writer.finish()
    return writer.folder, folder / "plain.npy"


def bits_of(feature_set: FeatureSet) -> np.ndarray:
    """What is stored, as NumPy can hold it: bfloat16 through torch, by its bits."""
    if feature_set.manifest.identity.storage_dtype != "bfloat16":
        return feature_set.X
    import torch

    return feature_set.to_torch().view(torch.int16).numpy().view(np.uint16)


def milliseconds(action: Callable[[], object]) -> float:
    """How long an action takes; what it gives is let go of before the next begins."""
    gc.collect()
    began = time.perf_counter()
    kept = action()
    taken = time.perf_counter() - began
    del kept
    return 1000 * taken


def resident_kib(kind: str = "VmRSS") -> int:
    """This process's resident memory, its own part without the pages of files (RssAnon), or the most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def forget() -> None:
    """Know as little of any file as a new process does."""
    for remembered in (sealed_files._SEALS, sealed_files._DIGESTS, states._LAYOUTS, states._SOUND):
        remembered.forget()


def measure(folder: Path, plain: Path, repeats: int) -> dict[str, float]:
    """Open and read both alternately; give medians by name."""
    assert np.array_equal(bits_of(FeatureSet(folder)), np.load(plain, mmap_mode="r")), "they differ: nothing to compare"
    gc.collect()
    before = resident_kib()
    opened = FeatureSet(folder)
    figures = {"resident at opening, KiB": float(resident_kib() - before)}
    before = resident_kib("RssAnon")
    bits_of(opened)
    figures["own memory for X, KiB"] = float(resident_kib("RssAnon") - before)
    own = np.zeros_like(np.load(plain, mmap_mode="r"))
    reads: dict[str, Read] = {"sum": np.sum, "copy": lambda states: np.copyto(own, states)}
    ways = ["np.load", "again", "first", "unseen"]
    note, away = note_on(folder), folder / "away"
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        ways = ways[1:] + ways[:1]  # whoever comes first after another reading may be slower
        times.setdefault("opening", []).append(milliseconds(lambda: FeatureSet(folder)))
        forget()
        times.setdefault("first opening", []).append(milliseconds(lambda: FeatureSet(folder)))
        bits_of(FeatureSet(folder))  # so that `again` is again, whoever's turn it is
        for name, read in reads.items():
            for how in ways:
                if how in ("first", "unseen"):
                    forget()
                if how == "unseen":
                    note.replace(away)

                def action(how: str = how, read: Read = read) -> object:
                    return read(np.load(plain, mmap_mode="r") if how == "np.load" else bits_of(FeatureSet(folder)))

                times.setdefault(f"{name}, {how}", []).append(milliseconds(action))
                if how == "unseen":
                    away.replace(note)
    return figures | {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=600)
    parser.add_argument("--shard-rows", type=int, help="by default as stage one cuts")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", default=["576:float32", "4096:bfloat16"])
    parser.add_argument("--folder", type=Path, help="where to write; by default where temporary files go")
    options = parser.parse_args()
    print("| d, dtype | what | np.load, ms | again, ms | speed | first, ms | speed | unseen, ms | speed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        hidden_size, dtype = kind.split(":")
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder, plain = write_both(
                Path(name), int(hidden_size), dtype, int(options.megabytes * 2**20), options.shard_rows
            )
            os.sync()
            time.sleep(1.5 * SETTLED_NS / 1e9)  # a file that was written just now is checked at each reading
            found = measure(folder, plain, options.repeats)
        for read in ("sum", "copy"):
            base = found[f"{read}, np.load"]
            others = [found[f"{read}, {how}"] for how in ("again", "first", "unseen")]
            cells = [f"{other:.0f} | {base / other:.2f}" for other in others]
            print(f"| {hidden_size}, {dtype} | {read} | {base:.0f} | {' | '.join(cells)} |")
        print(
            f"{hidden_size}, {dtype}: opening {found['first opening']:.1f} ms, again {found['opening']:.1f} ms, "
            f"resident memory +{found['resident at opening, KiB']:.0f} KiB; "
            f"X: +{found['own memory for X, KiB']:.0f} KiB of its own",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
