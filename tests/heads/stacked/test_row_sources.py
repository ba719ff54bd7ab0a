"""Rows come in the order that a generator decides, each once, whether in memory or read window by window."""

import numpy as np
import pytest
import torch

from pipeline.cache import FeatureCache
from pipeline.heads.fused.stream import FeatureStream, Matrix
from pipeline.heads.stacked import rows as rows_module
from pipeline.heads.stacked.adamw import Schedule
from pipeline.heads.stacked.rows import FeatureRows, Ragged, RowSource, WithHeldOut
from pipeline.heads.stacked.stack import ClassifierStack
from pipeline.heads.stacked.training import held_out_logits, train_stack
from pipeline.heads.token_rows import TokenRows

N, D = 300, 7
X = np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)


class Counted(Matrix):
    """A part that is no matrix to the reader, and remembers how many rows it was asked for at once."""

    def __init__(self, X: np.ndarray) -> None:
        super().__init__(X)
        object.__setattr__(self, "asked", [])

    def block(self, first: int, stop: int) -> np.ndarray:
        self.asked.append(stop - first)
        return super().block(first, stop)


def _streamed() -> tuple[FeatureRows, Counted]:
    """The same rows as two views side by side, which are read and never held as a matrix."""
    part = Counted(X[:, :4])
    return FeatureRows(FeatureStream([part, Matrix(X[:, 4:])], np.arange(N))), part


def _epoch(source: RowSource, seed: int, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    batches = list(source.batches(batch_size, torch.Generator().manual_seed(seed)))
    assert all(len(rows) == len(batch) <= batch_size for rows, batch in batches)
    return torch.cat([rows for rows, _ in batches]).numpy(), torch.cat([batch for _, batch in batches]).numpy()


@pytest.fixture(params=["matrix", "map", "stream"])
def source(request, tmp_path, monkeypatch) -> FeatureRows:
    monkeypatch.setattr(rows_module, "WINDOW_BLOCK_BYTES", 20 * 4 * D)
    if request.param == "map":
        np.save(tmp_path / "X.npy", X)
        return FeatureRows.of(np.load(tmp_path / "X.npy", mmap_mode="r"))
    return FeatureRows.of(X) if request.param == "matrix" else _streamed()[0]


def test_an_epoch_holds_every_row_once_with_its_own_features(source):
    rows, features = _epoch(source, seed=1)
    assert sorted(rows.tolist()) == list(range(N))
    np.testing.assert_array_equal(features, X[rows])
    assert not np.array_equal(features, X)


def test_the_generator_decides_the_order_and_goes_on(source):
    np.testing.assert_array_equal(_epoch(source, 1)[0], _epoch(source, 1)[0])
    assert not np.array_equal(_epoch(source, 1)[0], _epoch(source, 2)[0])
    generator = torch.Generator().manual_seed(1)
    first, second = ([rows.tolist() for rows, _ in source.batches(32, generator)] for _ in range(2))
    assert first != second


def test_blocks_hold_the_wanted_rows_in_order(source):
    wanted = torch.arange(N) % 3 == 0
    blocks = list(source.blocks(wanted))
    rows = torch.cat([rows for rows, _ in blocks])
    assert bool(wanted[rows].sum() == wanted.sum())
    assert bool((rows.diff() > 0).all())
    np.testing.assert_array_equal(torch.cat([batch for _, batch in blocks]), X[rows])


def test_a_stream_is_read_in_stretches_and_never_held_as_a_whole(monkeypatch):
    monkeypatch.setattr(rows_module, "WINDOW_BLOCK_BYTES", 20 * 4 * D)
    source, part = _streamed()
    rows, _ = _epoch(source, 1, batch_size=16)
    assert max(part.asked) <= 4 * 20 < N
    assert len(part.asked) <= np.ceil(N / 20)  # by block, not by row
    assert np.abs(np.diff(rows)).mean() > 20  # and well mixed nonetheless


def test_training_on_a_stream_learns_what_training_in_memory_does(monkeypatch):
    monkeypatch.setattr(rows_module, "WINDOW_BLOCK_BYTES", 20 * 4 * D)
    y = (X[:, 0] + X[:, 5] > 0).astype(np.int64)
    held = np.arange(N)[None] % 5 == 0
    stack, schedule = ClassifierStack([0], D, 2), Schedule(learning_rate=0.05, max_epochs=60)
    source, _ = _streamed()
    streamed, in_memory = (train_stack(stack, data, y, ~held, held, schedule) for data in (source, X))
    np.testing.assert_allclose(
        held_out_logits(streamed.stack, source, held)[0], held_out_logits(streamed.stack, X, held)[0], atol=1e-4
    )
    assert streamed.best_losses[0] == pytest.approx(in_memory.best_losses[0], abs=0.02)
    assert max(streamed.best_losses[0], in_memory.best_losses[0]) < 0.1


def test_rows_held_out_apart_are_evaluated_on_and_never_drawn():
    held = np.random.default_rng(4).normal(size=(50, D)).astype(np.float32)
    both = WithHeldOut(FeatureRows.of(X), FeatureRows.of(held))
    assert (len(both), both.width) == (N + 50, D)
    assert sorted(_epoch(both, 1)[0].tolist()) == list(range(N))
    blocks = list(both.blocks(torch.arange(N + 50) >= N))
    assert torch.cat([rows for rows, _ in blocks]).tolist() == list(range(N, N + 50))
    np.testing.assert_array_equal(torch.cat([batch for _, batch in blocks]), held)
    everything = torch.cat([batch for _, batch in both.blocks(torch.ones(N + 50, dtype=torch.bool))])
    np.testing.assert_array_equal(everything, np.concatenate([X, held]))


def _rows(batch: Ragged) -> list[list[list[float]]]:
    return [row.tolist() for row in torch.split(batch.X, batch.lengths.tolist())]


def test_rows_of_differing_length_are_picked_whole():
    parts = [np.full((length, 2), length, dtype=np.float32) + np.arange(length)[:, None] for length in (3, 1, 4, 2)]
    batch = TokenRows(parts).read(np.arange(4))
    assert batch.row_of_position.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
    assert _rows(batch[torch.tensor([2, 0, 2])]) == [parts[2].tolist(), parts[0].tolist(), parts[2].tolist()]
    assert _rows(batch[torch.tensor([False, True, False, True])]) == [parts[1].tolist(), parts[3].tolist()]
    assert len(batch[torch.zeros(4, dtype=torch.bool)]) == 0


@pytest.fixture(params=["in memory", "in one shard", "in three shards", "in bfloat16"])
def tokens(request, write_cache, token_corpora, tmp_path) -> tuple[TokenRows, list[np.ndarray]]:
    parts = token_corpora["train"].X["L2-tokens"]
    if request.param == "in memory":
        return TokenRows(parts), parts
    from pipeline.views import View

    dtype = "bfloat16" if request.param == "in bfloat16" else "float32"
    if dtype == "bfloat16":  # the nearest numbers that it has
        bits = [(part.view(np.uint32) >> 16).astype(np.uint16) for part in parts]
        parts = [(of_row.astype(np.uint32) << 16).view(np.float32) for of_row in bits]
        from dataclasses import replace

        corpora = {"train": replace(token_corpora["train"], X={"L2-tokens": bits})}
    else:
        corpora = {"train": token_corpora["train"]}
    where = write_cache(
        tmp_path / "cache",
        corpora,
        views=(View(2, "tokens"),),
        storage_dtype=dtype,
        shard_rows=128 if request.param == "in three shards" else 4096,
    )
    return TokenRows(FeatureCache(where.cache_dir).open("cola", "train", layer=2, pooling="tokens")), parts


def test_tokens_come_as_they_were_stored(tokens, monkeypatch):
    monkeypatch.setattr("pipeline.heads.token_rows.WINDOW_BLOCK_BYTES", 2000)
    rows, parts = tokens
    assert len(rows) == len(parts)
    assert rows.width == parts[0].shape[1]
    assert rows.lengths.tolist() == [len(part) for part in parts]
    epoch = list(rows.batches(32, torch.Generator().manual_seed(0)))
    assert sorted(torch.cat([numbers for numbers, _ in epoch]).tolist()) == list(range(len(parts)))
    assert torch.cat([numbers for numbers, _ in epoch]).tolist() != list(range(len(parts)))
    for numbers, batch in epoch:
        assert _rows(batch) == [parts[number].tolist() for number in numbers]
    wanted = torch.arange(len(parts)) % 7 == 2
    blocks = list(rows.blocks(wanted))
    assert torch.cat([numbers for numbers, _ in blocks]).tolist() == wanted.nonzero()[:, 0].tolist()
    assert [row for _, batch in blocks for row in _rows(batch)] == [parts[n].tolist() for n in range(2, len(parts), 7)]


def test_some_of_the_tokens_rows_are_rows_of_their_own(tokens):
    rows, parts = tokens
    some = rows[np.array([250, 3, 140])][np.array([True, False, True])]
    assert len(some) == 2
    assert _rows(some.read(np.array([1, 0]))) == [parts[140].tolist(), parts[250].tolist()]


def test_an_epoch_of_tokens_reads_each_row_once_and_holds_a_few_blocks(tokens_cache, monkeypatch):
    monkeypatch.setattr("pipeline.heads.token_rows.WINDOW_BLOCK_BYTES", 10_000)
    rows = TokenRows(FeatureCache(tokens_cache.cache_dir).open("cola", "train", layer=2, pooling="tokens"))
    read, asked = rows._tokens.read, []
    monkeypatch.setattr(rows._tokens, "read", lambda numbers: asked.append(len(numbers)) or read(numbers))
    list(rows.batches(8, torch.Generator().manual_seed(0)))
    assert sum(asked) == len(rows)
    assert len(asked) > 3
    assert max(asked) * rows.lengths.mean() * 4 * rows.width < 1.5 * 4 * 10_000 < rows.lengths.sum() * 4 * rows.width
