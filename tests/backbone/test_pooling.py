"""Pooling takes the tokens that it names, and no padding."""

import numpy as np
import pytest
import torch

from pipeline.backbone.batch import plain_batch
from pipeline.backbone.plan import plan_batches
from pipeline.backbone.pooling import pool


def padded():
    batch = plain_batch([np.arange(5, dtype=np.int32), np.arange(3, dtype=np.int32)])
    hidden = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)
    hidden[1, 3:] = 1e30  # padding: must touch nothing
    return hidden, batch, np.array([1, 0]), np.array([3, 2])


def pooled(pooling):
    hidden, batch, start, stop = padded()
    return pool(hidden, batch, pooling, start, stop)


def test_last_is_the_last_real_token_of_the_whole_text():
    hidden, *_ = padded()
    assert torch.equal(pooled("last"), torch.stack((hidden[0, 4], hidden[1, 2])))


def test_first_is_the_sentences_first_token():
    hidden, *_ = padded()
    assert torch.equal(pooled("first"), torch.stack((hidden[0, 1], hidden[1, 0])))


def test_mean_is_over_the_sentences_own_tokens():
    hidden, *_ = padded()
    assert torch.allclose(pooled("mean"), torch.stack((hidden[0, 1:3].mean(0), hidden[1, 0:2].mean(0))))


def test_tokens_keeps_the_sentence_and_what_follows_it():
    hidden, *_ = padded()
    first, second = pooled("tokens").split([4, 3])
    assert torch.equal(first, hidden[0, 1:5])
    assert torch.equal(second, hidden[1, 0:3])


def test_rows_of_a_tree_are_pooled_over_their_own_paths():
    rows = [np.array(ids, dtype=np.int32) for ids in ([5, 6, 7, 8], [5, 6], [5, 6, 9], [4])]
    (batch,) = plan_batches(rows, 100)
    hidden = torch.from_numpy(batch.ids)[..., None].float() * torch.tensor([1.0, 10.0])  # a token's state is its id
    start, stop = np.zeros(4, dtype=np.int64), np.array([len(rows[row]) for row in batch.rows])
    mean = dict(zip(batch.rows.tolist(), pool(hidden, batch, "mean", start, stop)[:, 0].tolist(), strict=True))
    assert mean == pytest.approx({0: 6.5, 1: 5.5, 2: 20 / 3, 3: 4.0})
    last = dict(zip(batch.rows.tolist(), pool(hidden, batch, "last", start, stop)[:, 1].tolist(), strict=True))
    assert last == {0: 80.0, 1: 60.0, 2: 90.0, 3: 40.0}
    first = np.minimum(start + 1, stop - 1)
    tokens = pool(hidden, batch, "tokens", first, stop).split((stop - first).tolist())
    assert {row: states[:, 0].tolist() for row, states in zip(batch.rows.tolist(), tokens, strict=True)} == {
        0: [6, 7, 8], 1: [6], 2: [6, 9], 3: [4],
    }  # fmt: skip
