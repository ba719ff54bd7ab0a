"""How a split is cut into shards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backbone.tokens import TokenRows
from pipeline.extract.cut import choose_order, default_shard_rows, note_on_cut, ordered_rows


@pytest.mark.parametrize(
    ("rows", "shard_rows"),
    [(1, 4096), (8551, 4096), (131_072, 4096), (131_073, 8192), (262_145, 16_384), (10**6, 32_768)],
)
def test_a_split_has_at_most_32_shards_of_a_power_of_two(rows, shard_rows):
    assert default_shard_rows(rows) == shard_rows
    assert -(-rows // shard_rows) <= 32


def rows_of_tokens(rows):
    lengths = np.array([len(row) for row in rows])
    return TokenRows(
        ids=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        start=np.full(len(rows), 2),
        stop=lengths,
        truncated_rows=np.zeros(len(rows), dtype=bool),
    )


def test_rows_are_ordered_by_their_tokens_where_neighbours_then_share_work():
    random = np.random.default_rng(0)
    sentences = [np.concatenate(([1, 2], random.integers(3, 99, 10))) for _ in range(6)]
    phrases = rows_of_tokens([sentence[: 4 + 4 * long] for long in range(3) for sentence in sentences])
    strangers = rows_of_tokens([np.concatenate(([1, 2, 100 + n], random.integers(3, 99, 9))) for n in range(18)])
    assert choose_order(phrases, 6) == "tokens"
    assert choose_order(strangers, 6) == "split"
    assert choose_order(phrases, 18) == "split"  # one shard: all meet anyway
    by_tokens = ordered_rows(phrases)
    assert sorted(by_tokens) == list(range(18))
    assert all(len({row % 6 for row in three}) == 1 for three in by_tokens.reshape(6, 3))  # a sentence's phrases meet


@pytest.mark.parametrize(
    ("rows", "shard_rows", "row_bytes", "multiple"),
    [
        (8551, 4096, 576 * 2, None),
        (8551, 1000, 4096, None),  # a row is a page
        (8551, 9000, 576 * 4, None),  # one shard
        (8551, 8551, 576 * 4, None),
        (8551, 1000, 576 * 4, 16),
        (8551, 1008, 576 * 4, None),
        (8551, 1008, 576 * 2, 32),
        (9, 8, 6 * 4, 512),
    ],
)
def test_a_cut_that_cannot_be_mapped_is_said_with_what_can(rows, shard_rows, row_bytes, multiple):
    note = note_on_cut(rows, shard_rows, row_bytes)
    if multiple is None:
        assert note == ""
        return
    assert f"shards of {shard_rows} rows" in note
    assert f"a multiple of {multiple} " in note
    assert note_on_cut(rows, multiple, row_bytes) == ""
    assert note_on_cut(2 * multiple, multiple // 2, row_bytes)  # it is the least


@given(st.integers(1, 40_000), st.integers(1, 5000))
def test_the_default_cut_can_always_be_mapped(rows, row_bytes):
    assert note_on_cut(rows, default_shard_rows(rows), row_bytes) == ""
