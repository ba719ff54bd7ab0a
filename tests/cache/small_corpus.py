"""A small corpus whose every value follows from its row, so that any shard can be made, and known, alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cache import FeatureSet
from pipeline.cache.identity import Identity
from pipeline.cache.manifest import Order
from pipeline.cache.shard import RAW, ShardData
from pipeline.cache.writer import FeatureSetWriter
from pipeline.digests import sha256_of_texts

HIDDEN_SIZE = 6
IDENTITY = Identity(
    weights="sha256:aa",
    architecture={"model_type": "llama", "num_hidden_layers": 4, "hidden_size": HIDDEN_SIZE},
    adapter=None,
    quantization={"type": "nf4", "double": True, "block_size": 64, "compute_dtype": "float32"},
    tokenizer="sha256:bb",
    prompt="Sentence: {}",
    special_tokens=True,
    max_length=512,
    truncation=False,
    layer=2,
    layer_norm="none",
    pooling="mean",
    storage_dtype="float32",
    texts="sha256:cc",
)


@dataclass(frozen=True)
class Corpus:
    """A split of `rows` rows with made-up hidden states.

    Args:
        changes: fields of the identity other than `IDENTITY`'s.
        facts: fields of the manifest other than the usual ones.
        seed: another one gives other hidden states and token ids.
        relabelled: whether a label in every run of four is the other one.
        order: of the rows that are cut; for `tokens`, a shuffle stands for the order of their ids.
    """

    rows: int = 11
    shard_rows: int = 4
    changes: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    seed: int = 0
    relabelled: bool = False
    order: Order = "split"

    @property
    def identity(self) -> Identity:
        texts = sha256_of_texts([self.text(row) for row in range(self.rows)])
        return Identity.from_dict({**IDENTITY.to_dict(), "texts": f"sha256:{texts}", **self.changes})

    def writer(self, cache_dir: Path) -> FeatureSetWriter:
        facts = {
            "task": "cola",
            "split": "train",
            "labels": ("unacceptable", "acceptable"),
            "labelled": True,
            "source": "sample",
            "backbone": "tiny",
            "rows": self.rows,
            "shard_rows": self.shard_rows,
            "recorded": {"numpy": "2"},
        }
        writer = FeatureSetWriter.open(cache_dir, identity=self.identity, **{**facts, **self.facts})
        ordered = np.random.default_rng(0).permutation(self.rows)
        return writer.cut_as(writer.cut if writer.is_cut else replace(writer.cut, order=self.order), ordered)

    def length(self, row: int) -> int:
        """Tokens of a row in the tokens view; every fourth row has none."""
        return row * 3 % 4

    def text(self, row: int) -> str:
        return f"sentence number {row}"

    def states(self, row: int) -> np.ndarray:
        """A row's hidden states as numbers: `[d]`, or `[t, d]` of the tokens view; exact in every storage dtype."""
        hidden_size = self.identity.architecture["hidden_size"]
        shape = (self.length(row), hidden_size) if self.identity.pooling == "tokens" else (hidden_size,)
        return np.random.default_rng(row + 10_000 * self.seed).integers(-128, 128, shape).astype(np.float32) / 8

    def stored(self, row: int) -> np.ndarray:
        """The same in the storage dtype."""
        values, dtype = self.states(row), self.identity.storage_dtype
        if dtype == "bfloat16":
            return (values.view(np.uint32) >> 16).astype(np.uint16)
        return values.astype(RAW[dtype])

    def label(self, row: int) -> int | None:
        if not self.facts.get("labelled", True):
            return None
        label = row * 5 % 3 % 2
        return 1 - label if self.relabelled and row % 4 == 0 else label

    def shard(self, rows: Iterable[int]) -> tuple[ShardData, pa.Table]:
        rows = [int(row) for row in rows]
        parts = [self.stored(row) for row in rows]
        is_tokens = self.identity.pooling == "tokens"
        offsets = np.cumsum([0, *(len(part) for part in parts)]) if is_tokens else None
        index = pa.table(
            {
                "row": pa.array(rows, pa.int64()),
                "idx": pa.array([1000 + 3 * row for row in rows], pa.int64()),
                "label": pa.array([self.label(row) for row in rows], pa.int64()),
                "text": [self.text(row) for row in rows],
                "source": [f"s{row % 5}" for row in rows],
                "n_tokens": pa.array([5 + row for row in rows], pa.int32()),
                "position": pa.array([2 for _ in rows], pa.int32()),
                "n_pooled": pa.array([self.length(row) if is_tokens else row + 1 for row in rows], pa.int32()),
                "token_id": pa.array([40 + row + self.seed for row in rows], pa.int32()),
            }
        )
        data = np.concatenate(parts) if is_tokens else np.stack(parts)
        return ShardData(data, offsets, self.identity.storage_dtype), index

    def write_shard(self, writer: FeatureSetWriter, number: int) -> None:
        writer.write(number, *self.shard(writer.rows_of(number)), truncated=number)

    def write(self, cache_dir: Path) -> FeatureSet:
        """Write the whole set and open it."""
        writer = self.writer(cache_dir)
        for number in range(writer.manifest.shards):
            self.write_shard(writer, number)
        writer.finish()
        return FeatureSet(writer.folder)

    def check(self, feature_set: FeatureSet) -> None:
        """Assert that everything read is this corpus."""
        rows = range(self.rows)
        if self.identity.pooling == "tokens":
            assert all(np.array_equal(feature_set.tokens(row), self.states(row)) for row in rows)
        else:
            assert np.array_equal(feature_set.X, np.stack([self.states(row) for row in rows]))
        if self.label(0) is None:
            assert feature_set.y is None
        else:
            assert feature_set.y.tolist() == [self.label(row) for row in rows]
        assert feature_set.sample_ids.tolist() == [1000 + 3 * row for row in rows]
        assert feature_set.texts == [self.text(row) for row in rows]
        assert feature_set.index["row"].to_pylist() == list(rows)
        assert feature_set.index["token_id"].to_pylist() == [40 + row + self.seed for row in rows]
