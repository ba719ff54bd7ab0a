"""How a split is cut into shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract.cut import default_shard_rows, note_on_cut


@pytest.mark.parametrize(
    ("rows", "shard_rows"),
    [(1, 4096), (8551, 4096), (32_768, 4096), (32_769, 8192), (67_349, 16_384), (262_144, 32_768), (10**6, 131_072)],
)
def test_a_split_has_at_most_eight_shards_of_a_power_of_two(rows, shard_rows):
    assert default_shard_rows(rows) == shard_rows
    assert -(-rows // shard_rows) <= 8


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
