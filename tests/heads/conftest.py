"""A small synthetic cache, written as stage one writes it, and what trains on it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cache.identity import Identity
from pipeline.cache.shard import ShardData
from pipeline.cache.writer import FeatureSetWriter
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.digests import sha256_of_texts
from pipeline.heads.train import train_heads
from pipeline.results.ledger import Run
from pipeline.tasks.spec import BUILT_IN, TaskSpec
from pipeline.views import View

HIDDEN_SIZE = 16
NUM_HIDDEN_LAYERS = 2
ROWS = {"train": 300, "validation": 80, "test": 30}
VIEWS = (View(1, "mean"), View(2, "mean"), View(2, "last"))
TOKENS = View(2, "tokens")
SHARE_OF_ONES = 0.65


@dataclass(frozen=True)
class Corpus:
    """One split, before it is written.

    Args:
        texts: `[n]`.
        labels: `[n]`, or None for an unlabelled split.
        truth: `[n]` the labels also where the split hides them.
        idx: `[n]` the examples' own numbers, which are not their rows.
        X: by view, `[n, d]` float32; of the tokens view a list of `[t, d]`.
        sources: `[n]`; by default one for all.
    """

    texts: list[str]
    labels: np.ndarray | None
    truth: np.ndarray
    idx: np.ndarray
    X: Mapping[str, np.ndarray | list[np.ndarray]]
    sources: Sequence[str] | None = None


def _sentences(rng: np.random.Generator, labels: np.ndarray, taken: set[str]) -> list[str]:
    nouns = ["baker", "sailor", "teacher", "pigeon", "doctor", "gardener", "robot", "neighbour", "violinist", "guest"]
    verbs = ["painted", "found", "admired", "ignored", "repaired", "sold", "described", "remembered"]
    things = ["old_clock", "red_kettle", "wooden_bridge", "broken_lamp", "long_letter", "small_boat", "green_door"]
    endings = ["yesterday", "again", "quietly", "before_noon", "in_the_rain", "with_great_care"]
    texts: list[str] = []
    for label in labels:
        while True:
            noun, verb, thing, ending = (str(rng.choice(words)) for words in (nouns, verbs, things, endings))
            words = f"The {noun} {verb} the {thing} {ending}".replace("_", " ").split()
            if not label:
                rng.shuffle(words)
            text = " ".join(words) + "."
            if text not in taken:
                break
        taken.add(text)
        texts.append(text)
    return texts


@pytest.fixture(scope="session")
def corpora() -> dict[str, Corpus]:
    """Three splits of CoLA-like rows; two classes stand apart in every view, with noise, at scales of their own."""
    rng = np.random.default_rng(11)
    directions = {str(view): rng.normal(size=HIDDEN_SIZE) for view in VIEWS}
    scales = {str(view): np.exp(rng.normal(size=HIDDEN_SIZE)) for view in VIEWS}
    taken: set[str] = set()
    splits = {}
    for split, rows in ROWS.items():
        truth = (rng.random(rows) < SHARE_OF_ONES).astype(np.int64)
        X = {}
        for view, direction in directions.items():
            apart = np.outer(2 * truth - 1, 1.3 * direction / np.linalg.norm(direction))
            X[view] = ((apart + rng.normal(size=apart.shape)) * scales[view] + 3.0).astype(np.float32)
        splits[split] = Corpus(
            texts=_sentences(rng, truth, taken),
            labels=None if split == "test" else truth,
            truth=truth,
            idx=7000 + 3 * np.arange(rows),
            X=X,
        )
    return splits


def _identity(task: TaskSpec, view: View, texts: Sequence[str], storage_dtype: str, max_length: int) -> Identity:
    return Identity(
        weights="sha256:" + "a6" * 32,
        architecture={
            "model_type": "llama",
            "num_hidden_layers": NUM_HIDDEN_LAYERS,
            "hidden_size": HIDDEN_SIZE,
            "config": "sha256:" + "c0" * 32,
        },
        adapter=None,
        quantization={"type": "nf4", "compute_dtype": "float32", "double": True, "block_size": 64},
        tokenizer="sha256:" + "70" * 32,
        prompt=task.prompt,
        special_tokens=True,
        max_length=max_length,
        truncation=False,
        layer=int(view.layer),
        layer_norm="final" if view.layer == NUM_HIDDEN_LAYERS else "none",
        pooling=view.pooling,
        storage_dtype=storage_dtype,
        texts=f"sha256:{sha256_of_texts(texts)}",
    )


def _index(corpus: Corpus, rows: np.ndarray) -> pa.Table:
    n, labels = len(rows), corpus.labels
    return pa.table(
        {
            "row": rows,
            "idx": [corpus.idx[row] for row in rows],
            "label": pa.nulls(n, pa.int64()) if labels is None else pa.array([labels[row] for row in rows], pa.int64()),
            "text": pa.array([corpus.texts[row] for row in rows], pa.string()),
            "source": pa.array([(corpus.sources or ["bind"] * len(corpus.texts))[row] for row in rows], pa.string()),
            "n_tokens": np.full(n, 70, dtype=np.int32),
            "position": np.full(n, 60, dtype=np.int32),
            "n_pooled": np.full(n, 10, dtype=np.int32),
            "token_id": np.full(n, 504, dtype=np.int32),
        }
    )


def _shard(states: np.ndarray | list[np.ndarray], rows: np.ndarray, storage_dtype: str) -> ShardData:
    if isinstance(states, np.ndarray):
        return ShardData(states[rows], None, storage_dtype)
    parts = [states[row] for row in rows]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return ShardData(np.concatenate(parts), offsets, storage_dtype)


WriteCache = Callable[..., CacheConfig]


@pytest.fixture(scope="session")
def write_cache() -> WriteCache:
    """Write splits of a task into a folder, all views of them, as `pipeline extract` would."""

    def write(
        cache_dir: Path,
        corpora: Mapping[str, Corpus],
        *,
        task: TaskSpec = BUILT_IN["cola"],
        views: Sequence[View] = VIEWS,
        shard_rows: int = 4096,
        max_length: int = 512,
        source: str = "glue",
        storage_dtype: str = "float32",
    ) -> CacheConfig:
        for split, corpus in corpora.items():
            for view in views:
                writer = FeatureSetWriter.open(
                    cache_dir,
                    identity=_identity(task, view, corpus.texts, storage_dtype, max_length),
                    task=task.name,
                    split=split,
                    labels=task.labels,
                    labelled=corpus.labels is not None,
                    source=source,
                    backbone="smollm2-135m",
                    rows=len(corpus.texts),
                    shard_rows=shard_rows,
                    recorded={"device": "cpu"},
                )
                for number in range(writer.manifest.shards):
                    rows = writer.rows_of(number)
                    data = _shard(corpus.X[str(view)], rows, storage_dtype)
                    writer.write(number, data, _index(corpus, rows), truncated=0)
                writer.finish()
        return CacheConfig(cache_dir)

    return write


@pytest.fixture(scope="session")
def cache(write_cache: WriteCache, corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> CacheConfig:
    """The cache that tests read and do not change; train is three shards."""
    return write_cache(tmp_path_factory.mktemp("cache"), corpora, shard_rows=128)


@pytest.fixture(scope="session")
def token_corpora(corpora: dict[str, Corpus]) -> dict[str, Corpus]:
    """The same rows as 3 to 12 positions each, of which one, marked by its first feature, knows the class."""
    rng = np.random.default_rng(13)
    found = {}
    for split, corpus in corpora.items():
        rows = []
        for label in corpus.truth:
            states = rng.normal(size=(rng.integers(3, 13), HIDDEN_SIZE))
            informed = rng.integers(len(states))
            states[informed, :2] = 4.0, 3.0 * (2 * label - 1)
            rows.append((5.0 + 2.0 * states).astype(np.float32))
        found[split] = replace(corpus, X={**corpus.X, str(TOKENS): rows})
    return found


@pytest.fixture(scope="session")
def tokens_cache(
    write_cache: WriteCache, token_corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory
) -> CacheConfig:
    """A cache of the tokens view and the pooled ones; train is three shards."""
    folder = tmp_path_factory.mktemp("tokens-cache")
    return write_cache(folder, token_corpora, views=(*VIEWS, TOKENS), shard_rows=128)


@pytest.fixture(scope="session")
def config() -> HeadsConfig:
    """Logistic regression on one view of CoLA; tests replace what they are about."""
    return HeadsConfig(tasks=("cola",), heads=("logreg",), views=("L1-mean",))


Train = Callable[..., Run]


@pytest.fixture
def train(cache: CacheConfig, config: HeadsConfig, tmp_path: Path) -> Train:
    """Train one head and give its run, which lies under `tmp_path / "runs"`."""

    def run(where: CacheConfig = cache, **changes: object) -> Run:
        (run,) = train_heads(replace(config, **changes), where, RunsConfig(tmp_path / "runs"))
        return run

    return run


@pytest.fixture(scope="session")
def in_new_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run this Python with arguments, from the repository's root, with warnings as they are outside of tests."""
    root = Path(__file__).parents[2]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
