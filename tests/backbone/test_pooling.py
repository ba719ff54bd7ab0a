"""Pooling takes the tokens that it names, and no padding."""

import torch

from pipeline.backbone.pooling import pool


def batch():
    hidden = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)
    start, stop, length = torch.tensor([1, 0]), torch.tensor([3, 2]), torch.tensor([5, 3])
    hidden[1, 3:] = float("nan")  # padding: must touch nothing
    return hidden, start, stop, length


def test_last_is_the_last_real_token_of_the_whole_text():
    hidden, *span = batch()
    pooled = pool(hidden, "last", *span)
    assert torch.equal(pooled[0], hidden[0, 4])
    assert torch.equal(pooled[1], hidden[1, 2])


def test_first_is_the_sentences_first_token():
    hidden, *span = batch()
    assert torch.equal(pool(hidden, "first", *span)[0], hidden[0, 1])
    assert torch.equal(pool(hidden, "first", *span)[1], hidden[1, 0])


def test_mean_is_over_the_sentences_own_tokens():
    hidden, start, stop, length = batch()
    pooled = pool(hidden, "mean", start, stop, length)
    assert torch.allclose(pooled[0], hidden[0, 1:3].mean(0))
    assert torch.allclose(pooled[1], hidden[1, 0:2].mean(0))


def test_tokens_keeps_the_sentence_and_what_follows_it():
    hidden, *span = batch()
    pooled = pool(hidden, "tokens", *span)
    assert torch.equal(pooled[0], hidden[0, 1:5])
    assert torch.equal(pooled[1], hidden[1, 0:3])
