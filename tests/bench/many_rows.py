"""What ten million rows take of memory and time before and beside the backbone: start-up, planning, sealing.

    make bench-many-rows

Writes synthetic sentences to Parquet, streams them through stage one as any corpus, with the embedded backbone's
tokenizer, and a backbone that computes nothing: a token's hidden state is looked up. Prints Markdown: the seconds until
the first shard is begun, and what of it is importing torch and transformers; rows a second of planning alone (read,
tokenise, cut into batches) and of sealing alone (write, hash); the whole; and the most memory taken. Runs over more and
fewer rows say what grows with them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import before_torch

HIDDEN_SIZE = 16
ROWS_A_GROUP = 65536
WORDS = """the a some every no old small quiet red cat dog river house letter teacher story song film plot ending actor
scene sat ran saw wrote read found lost kept made told and but that which of in on under behind without very quite never
often almost here there now then good bad long short slow fine dull bright warm cold"""


def write_corpus(path: Path, rows: int, seed: int = 0) -> None:
    """Sentences of 3 to 14 words with two labels."""
    random, vocabulary = np.random.default_rng(seed), np.array(WORDS.split())
    schema = pa.schema({"sentence": pa.string(), "label": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, ROWS_A_GROUP):
            count = min(ROWS_A_GROUP, rows - first)
            ends = np.cumsum(random.integers(3, 15, count))
            words = np.split(vocabulary[random.integers(0, len(vocabulary), ends[-1])], ends[:-1])
            labels = random.integers(0, 2, count)
            writer.write_table(pa.table({"sentence": [" ".join(each) for each in words], "label": labels}, schema))


def pass_over(folder: Path, cache_dir: Path, shard_rows: int, prompt: str) -> None:
    """Stage one over a folder of Parquet with a backbone that computes nothing; prints what it took as JSON."""
    began = time.perf_counter()
    before_torch.set_for(["extract"])
    import torch
    from transformers import AutoConfig, AutoTokenizer  # noqa: F401  what takes longest to import

    from pipeline.backbone.known import KnownBackbone
    from pipeline.backbone.tree import Prefix
    from pipeline.config import BackboneConfig, CacheConfig, ExtractConfig, PassConfig, TokensConfig
    from pipeline.corpus_config import CorpusConfig
    from pipeline.engine_config import ShareConfig
    from pipeline.extract import run
    from pipeline.extract.here import compute_split, finish, settle
    from pipeline.extract.memory import peak_memory_bytes
    from pipeline.extract.shard_pass import plan_shard
    from pipeline.tasks.spec import BUILT_IN
    from pipeline.tasks.stream import stream_task

    class Lookup:
        """In an engine's place: a token's hidden state is a row of a table."""

        shares = True

        def __init__(self, layers: Sequence[int]) -> None:
            self.layers = layers
            self.backbone = SimpleNamespace(
                hidden_size=HIDDEN_SIZE, device=torch.device("cpu"), dtype=torch.float32, weights_bytes=0
            )
            self._table = torch.randn(2**16, HIDDEN_SIZE, generator=torch.Generator().manual_seed(0))

        def prefix(self, ids: np.ndarray) -> Prefix:
            return Prefix(ids)

        def run(self, prefix: Prefix, batch: object, take: object) -> None:
            states = self._table[torch.from_numpy(batch.ids.astype(np.int64))]
            for layer in self.layers:
                take(layer, states)

    marks = {"libraries": time.perf_counter() - began}

    def compute(prepared: Sequence[object], known: KnownBackbone, passes: PassConfig, choice: object) -> None:
        [each] = prepared
        engine = Lookup([1])
        settled = settle(each, engine, passes)
        marks["start"] = time.perf_counter() - began
        compute_split(settled, engine, passes, choice)
        finish(settled.job, passes)
        marks["all"] = time.perf_counter() - began
        writer = settled.job.writers[0]
        planned = range(0, writer.manifest.shards, max(1, writer.manifest.shards // 8))
        at = time.perf_counter()
        for number in planned:
            part = settled.parts.part(writer.rows_of(number))
            plan_shard(part.tokens, np.arange(len(part)), writer.manifest.token_budget, share=True)
        marks["planned"] = sum(len(writer.manifest.places_of(number)) for number in planned)
        marks["planning"] = time.perf_counter() - at
        marks["folder"] = str(writer.folder)

    known = KnownBackbone.find(BackboneConfig(device="cpu"))
    narrow = replace(
        known.facts, hidden_size=HIDDEN_SIZE, architecture=known.facts.architecture | {"hidden_size": HIDDEN_SIZE}
    )
    known = replace(known, facts=narrow)
    data = CorpusConfig(data=str(folder), stream=True)
    passes = PassConfig(token_budget=4096, threads=1, shard_rows=shard_rows)
    run._extract(
        stream_task(BUILT_IN["sst2"], data, ("train",)).values(),
        ExtractConfig(tasks=("sst2",), layers=("1",), poolings=("mean",)),
        data.source,
        known,
        TokensConfig(prompt=prompt),
        passes,
        CacheConfig(cache_dir),
        ShareConfig(),
        partial(compute, choice=range(2**62)),
    )
    lines = (Path(marks["folder"]) / "passes.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    sealing = sum(record["seconds"] - record["backbone_seconds"] for record in records)
    manifest = Path(marks["folder"]) / "manifest.json"
    found = {
        "rows": sum(record["rows"] for record in records),
        "tokens": sum(record["tokens"] for record in records),
        "computed_tokens": sum(record["computed_tokens"] for record in records),
        "shards": len(records),
        "libraries_seconds": marks["libraries"],
        "start_seconds": marks["start"],
        "seconds": marks["all"],
        "planning_rows_per_second": marks["planned"] / marks["planning"],
        "sealing_rows_per_second": sum(record["rows"] for record in records) / sealing,
        "peak_bytes": peak_memory_bytes(torch.device("cpu")),
        "manifest_bytes": manifest.stat().st_size,
    }
    print(json.dumps(found))


def measure(rows: int, folder: Path, shard_rows: int = 0, prompt: str = "{}") -> dict[str, float]:
    """Write a corpus, and have a process of its own stream it.

    Args:
        folder: for corpus and features.
        shard_rows: rows a shard; 0 is what stage one takes by itself.
        prompt: around each sentence.
    """
    data, cache = folder / f"data-{rows}", folder / f"cache-{rows}"
    data.mkdir()
    write_corpus(data / "train.parquet", rows)
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.bench.many_rows", "--pass-over", str(data), str(cache)]
    command += ["--shard-rows", str(shard_rows), "--prompt", prompt]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) | {
        "corpus_bytes": (data / "train.parquet").stat().st_size,
        "process": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument(
        "--folder", type=Path, help="for the corpora and features, some gigabytes; a temporary one by default"
    )
    parser.add_argument("--prompt", default="{}", help="around each sentence; by default none")
    parser.add_argument("--shard-rows", type=int, default=0, help="0 is what stage one takes by itself")
    parser.add_argument("--pass-over", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pass_over:
        pass_over(*options.pass_over, options.shard_rows, options.prompt)
        return
    names = (
        "rows",
        "shards",
        "begins after, s",
        "of it imports, s",
        "planning, rows/s",
        "sealing, rows/s",
        "all, s",
        "peak, MB",
    )
    print(f"| {' | '.join(names)} | manifest, bytes |\n|{'---|' * (len(names) + 1)}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for rows in options.rows:
            each = measure(rows, Path(name), options.shard_rows, options.prompt)
            speeds = f"{each['planning_rows_per_second']:,.0f} | {each['sealing_rows_per_second']:,.0f}"
            took = f"{each['seconds']:,.0f} | {each['peak_bytes'] / 1e6:,.0f} | {each['manifest_bytes']:,}"
            begins = (
                f"{each['rows']:,} | {each['shards']} | {each['start_seconds']:.1f} | {each['libraries_seconds']:.1f}"
            )
            print(f"| {begins} | {speeds} | {took} |", flush=True)


if __name__ == "__main__":
    main()
