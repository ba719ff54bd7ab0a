"""Write a feature set's missing shards, to be killed at any instant: `write_shards.py <cache> [again]`.

With `again`, shards that are whole are written over too. Prints `ready` when the writing begins and `done` at its end.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cache.shard import ShardData
from pipeline.cache.writer import FeatureSetWriter
from tests.cache import small_corpus

HIDDEN_SIZE, SHARD_ROWS, ROWS = 64, 64, 64 * 24 - 5
IDENTITY = replace(small_corpus.IDENTITY, architecture={"num_hidden_layers": 2, "hidden_size": HIDDEN_SIZE}, layer=1)


def hidden_states(row: int) -> np.ndarray:
    return np.random.default_rng(row).standard_normal(HIDDEN_SIZE).astype(np.float32)


def main(cache_dir: Path, again: bool) -> None:
    writer = FeatureSetWriter.open(
        cache_dir,
        identity=IDENTITY,
        task="cola",
        split="train",
        labels=("no", "yes"),
        labelled=True,
        source="files",
        backbone="tiny",
        rows=ROWS,
        shard_rows=SHARD_ROWS,
        recorded={},
    )
    shards = []
    for number in range(writer.manifest.shards):
        rows = writer.rows_of(number)
        counts = {name: pa.array(rows, pa.int32()) for name in ("n_tokens", "position", "n_pooled", "token_id")}
        places = {name: pa.array(rows, pa.int64()) for name in ("row", "idx")}
        index = pa.table(
            {
                **{name: places[name] for name in ("row", "idx")},
                "label": pa.array([row % 2 for row in rows], pa.int64()),
                "text": [f"sentence {row}" for row in rows],
                "source": pa.nulls(len(rows), pa.string()),
                **counts,
            }
        )
        shards.append((ShardData(np.stack([hidden_states(row) for row in rows]), None, "float32"), index))
    print("ready", flush=True)
    for number, (data, index) in enumerate(shards):
        if again or writer.sealed(number) is None:
            writer.write(number, data, index, truncated=0)
    writer.finish()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "again" in sys.argv[2:])
