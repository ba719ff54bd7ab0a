"""The plan is pure: every row once, nearly equal lengths together, within the budget."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract.plan import default_shard_rows, note_on_cut, plan_batches


@given(st.lists(st.integers(1, 300), min_size=1, max_size=400), st.integers(1, 2000))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(st.lists(st.integers(1, 60), min_size=50, max_size=400))
def test_no_shorter_row_waits_in_a_batch_of_longer_ones(lengths):
    batches = plan_batches(lengths, 512)
    for earlier, later in itertools.pairwise(batches):
        assert min(lengths[row] for row in earlier) >= max(lengths[row] for row in later)


def test_real_lengths_are_hardly_padded():
    lengths = np.random.default_rng(0).poisson(10, 4096) + 1
    batches = plan_batches(lengths, 1024)
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert computed < 1.03 * lengths.sum()
    unsorted = sum(len(b) * b.max() for b in np.array_split(lengths, len(batches)))
    assert unsorted > 1.3 * lengths.sum()  # what sorting saves


@pytest.mark.parametrize(
    ("rows", "shard_rows"),
    [(1, 4096), (8551, 4096), (65_536, 4096), (65_537, 8192), (67_349, 8192), (262_144, 16_384), (1_000_000, 65_536)],
)
def test_a_split_has_at_most_sixteen_shards_of_a_power_of_two(rows, shard_rows):
    assert default_shard_rows(rows) == shard_rows
    assert -(-rows // shard_rows) <= 16


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
