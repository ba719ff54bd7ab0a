"""The planner: every row once, shared beginnings once, hardly any padding, and nothing but the arguments decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backbone.plan import SLOT_TOKENS, distinct_prefixes, order_by_ids, plan_batches, plan_live


def path_of(batch, row):
    places = batch.places[batch.offsets[row] : batch.offsets[row + 1]]
    return places, batch.ids.ravel()[places]


def check(rows, batches, *, budget):
    """Every row stands once; its path holds its ids, each behind the one before it, and sees these alone."""
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(len(rows)))
    for batch in batches:
        slots, width = batch.ids.shape
        assert slots == 1 or batch.ids.size <= budget
        used = set()
        for place, number in enumerate(batch.rows):
            places, ids = path_of(batch, place)
            assert np.array_equal(ids, rows[number])
            slot, within = np.divmod(places, width)
            assert len(set(slot)) == 1
            assert batch.parent[slot[0], within].tolist() == [-1, *within[:-1]]
            assert batch.depth[slot[0], within].tolist() == list(range(len(ids)))
            assert np.flatnonzero(batch.sees[slot[0], within[-1]]).tolist() == sorted(within)
            used |= set(places.tolist())
        assert batch.tokens == len(used)


row = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(lambda ids: np.array(ids, dtype=np.int32))


@settings(deadline=None, max_examples=150)
@given(st.lists(row, min_size=1, max_size=60), st.sampled_from([1, 16, 64, 300]), st.booleans())
def test_every_row_is_a_path_through_its_batch(rows, budget, share):
    check(rows, plan_batches(rows, budget, share=share), budget=budget)


@settings(deadline=None, max_examples=100)
@given(st.lists(row, min_size=1, max_size=30), row, st.sampled_from([1, 16, 64, 300]), st.booleans())
def test_a_live_batch_is_what_all_rows_begin_with_and_trees_behind_it(ends, beginning, budget, share):
    rows = [np.concatenate((beginning, end)) for end in ends]
    batches = plan_live(rows, len(beginning), budget, share=share)
    (trunk,) = {tuple(batch.trunk.tolist()) for batch in batches}
    assert trunk == (tuple(beginning.tolist()) if share else ())
    check([row[len(trunk) :] for row in rows], batches, budget=max(1, budget - len(trunk)))
    for batch in batches:
        assert len(batch.flat_ids) == len(trunk) + batch.tokens
        assert batch.flat_ids[len(trunk) :].tolist() == batch.ids.ravel()[batch.filled].tolist()


@settings(deadline=None, max_examples=50)
@given(st.lists(row, min_size=1, max_size=40))
def test_sharing_never_computes_more(rows):
    shared = sum(batch.tokens for batch in plan_batches(rows, 64))
    assert shared <= sum(batch.tokens for batch in plan_batches(rows, 64, share=False)) == sum(map(len, rows))


def prefixes(rows):
    return len({tuple(row[:stop].tolist()) for row in rows for stop in range(1, len(row) + 1)})


def test_rows_that_fit_one_slot_are_a_perfect_tree():
    rows = [np.array(ids, dtype=np.int32) for ids in ([5, 6, 7], [5, 6], [5, 6, 8, 9], [1], [5, 6], [2, 6])]
    (batch,) = plan_batches(rows, 1024)
    assert batch.tokens == batch.ids.size == prefixes(rows) == 8
    assert not batch.is_plain


def test_without_sharing_each_row_has_a_slot():
    rows = [np.arange(1, n + 1, dtype=np.int32) for n in (3, 5, 5, 2)]
    batches = plan_batches(rows, 10, share=False)
    assert [batch.rows.tolist() for batch in batches] == [[1, 2], [0, 3]]
    assert all(batch.is_plain for batch in batches)
    assert [batch.ids.shape for batch in batches] == [(2, 5), (2, 3)]


def phrases(count):
    """Rows as a corpus of phrases has them: many begin alike, lengths vary."""
    rng = np.random.default_rng(0)
    rows = []
    while len(rows) < count:
        sentence = rng.zipf(1.3, rng.integers(2, 40)) % 5000
        cuts = rng.integers(1, len(sentence) + 1, 4)
        rows += [np.append(sentence[:cut], 9999).astype(np.int32) for cut in cuts]
    return rows[:count]


def test_a_corpus_of_phrases_is_computed_nearly_once_and_nearly_without_padding():
    rows = phrases(4000)
    batches = plan_batches(rows, 1024)
    check(rows, batches, budget=1024)
    computed, tokens = sum(batch.ids.size for batch in batches), sum(batch.tokens for batch in batches)
    assert 1 - tokens / computed < 0.03
    assert computed < 1.1 * prefixes(rows)
    assert tokens < 0.8 * sum(map(len, rows))


def test_a_row_longer_than_a_slot_has_one_of_its_own_width():
    rng = np.random.default_rng(0)
    long = rng.integers(0, 50, 5 * SLOT_TOKENS).astype(np.int32)
    rows = [long, long[:200], long[:50], *(rng.integers(0, 50, 9).astype(np.int32) for _ in range(40))]
    batches = plan_batches(rows, 512)
    check(rows, batches, budget=512)
    assert batches[0].ids.shape == (1, len(long))
    assert sorted(batches[0].rows) == [0, 1, 2]


def test_a_great_many_equal_rows_are_one():
    rows = [np.array([3, 4, 5], dtype=np.int32)] * 20_000
    (batch,) = plan_batches(rows, 1024)
    assert batch.tokens == 3 and len(batch.rows) == 20_000


def test_the_plan_is_the_same_every_time():
    rows = phrases(500)
    one, other = plan_batches(rows, 256), plan_batches([row.copy() for row in rows], 256)
    assert [batch.ids.tobytes() + batch.places.tobytes() for batch in one] == [
        batch.ids.tobytes() + batch.places.tobytes() for batch in other
    ]


@pytest.mark.parametrize("budget", [1, 100, 128, 1000])
def test_a_batch_stays_within_its_budget_unless_one_slot_is_larger(budget):
    for batch in plan_batches(phrases(300), budget):
        assert batch.ids.size <= budget or len(batch.ids) == 1


def test_distinct_prefixes_are_the_nodes_of_a_trie():
    rows = [np.array(ids) for ids in ([1, 2, 3], [1, 2], [1, 4], [5], [1, 2, 3])]
    assert distinct_prefixes(rows) == 5


@given(st.lists(st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), min_size=1, max_size=6), max_size=20))
def test_the_order_of_ids_is_that_of_their_numbers_and_of_equal_rows_that_of_the_split(rows):
    order = order_by_ids([np.array(row, dtype=np.int32) for row in rows]).tolist()
    assert order == sorted(range(len(rows)), key=rows.__getitem__)
