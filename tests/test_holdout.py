"""The held-out rows: every row once, stratified, and a phrase stays with the sentence around it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import HeadError
from pipeline.holdout import hold_out, hold_outs, sentence_groups, source_groups, whole_texts


def test_a_phrase_is_grouped_with_the_sentence_that_contains_it():
    groups = sentence_groups(
        [
            "a gripping film from start to finish",
            "gripping film",
            "a dull one",
            "dull",
            "from start",
            "start to Finish ",
        ]
    )
    sentence, film, other, dull, start, finish = groups
    assert sentence == film == start == finish
    assert other == dull
    assert sentence != other


def test_parts_of_words_and_words_apart_are_no_phrase():
    groups = sentence_groups(["a gripping film about art", "grip", "a film", "film a", "art"])
    assert len(set(groups[:4])) == 4
    assert groups[4] == groups[0]


def test_a_phrase_of_two_sentences_joins_the_longer():
    groups = sentence_groups(["very good", "a very good film", "a very good film indeed , yes"])
    assert groups[0] == groups[2] == groups[1]
    apart = sentence_groups(["very good", "it was very good", "a very good film indeed , yes"])
    assert apart[0] == apart[2] != apart[1]


def test_texts_alike_but_for_case_and_white_space_are_one():
    assert len(set(sentence_groups(["The cat sat.", " the cat sat. ", "THE CAT SAT."]))) == 1
    assert len(set(sentence_groups(["The cat sat.", "The cat sits."]))) == 2


def test_groups_do_not_depend_on_the_order_of_the_rows():
    texts = ["a b c d", "b c", "e f", "f", "c d e", "d e", "x"]
    order = np.random.default_rng(0).permutation(len(texts))
    straight, shuffled = sentence_groups(texts), sentence_groups([texts[i] for i in order])
    assert straight[order].tolist() == shuffled.tolist()


def _contains(longer: tuple[str, ...], shorter: tuple[str, ...]) -> bool:
    n = len(shorter)
    return any(longer[first : first + n] == shorter for first in range(len(longer) - n + 1))


phrases = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(tuple)


@settings(max_examples=200, deadline=None)
@given(st.lists(phrases, min_size=1, max_size=14))
def test_every_text_shares_the_group_of_a_longest_text_that_contains_it(rows):
    groups = dict(zip(rows, sentence_groups([" ".join(row) for row in rows]), strict=True))
    distinct = set(rows)
    containers = {row: {other for other in distinct if _contains(other, row)} for row in distinct}
    for row in distinct:
        longest = max(map(len, containers[row]))
        assert groups[row] in {groups[other] for other in containers[row] if len(other) == longest}
    outermost = [row for row in distinct if containers[row] == {row}]
    assert len({groups[row] for row in outermost}) == len(outermost)
    assert sorted(set(groups.values())) == list(range(len(outermost)))


@pytest.fixture
def phrases_of_sentences():
    """SST-2 in small: 120 sentences, each with some of its own phrases, labels that lean one way."""
    rng = np.random.default_rng(4)
    texts, y = [], []
    for number in range(120):
        words = [f"w{number}x{place}" for place in range(12)]
        label = int(rng.random() < 0.6)
        spans = [(0, 12)] + [tuple(sorted(rng.choice(13, 2, replace=False))) for _ in range(rng.integers(1, 6))]
        for first, last in spans:
            texts.append(" ".join(words[first:last]))
            y.append(label if rng.random() < 0.8 else 1 - label)
    order = rng.permutation(len(texts))
    return [texts[i] for i in order], np.asarray(y)[order]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_the_two_parts_hold_every_row_once_and_no_sentence_on_both_sides(phrases_of_sentences, share):
    texts, y = phrases_of_sentences
    fit, held = hold_out(texts, y, share=share, seed=0)
    assert sorted([*fit, *held]) == list(range(len(y)))
    assert fit.tolist() == sorted(fit)
    assert held.tolist() == sorted(held)
    groups = sentence_groups(texts)
    assert not set(groups[fit]) & set(groups[held])
    assert len(held) / len(y) == pytest.approx(share, abs=0.03)
    by_lot = np.random.default_rng(0).permutation(len(y))[: len(held)]
    assert set(groups[by_lot]) & set(np.delete(groups, by_lot))  # a split by lot does not keep sentences together


def test_both_parts_have_about_the_same_share_of_every_class(phrases_of_sentences):
    texts, y = phrases_of_sentences
    for seed in range(5):
        fit, held = hold_out(texts, y, share=0.2, seed=seed)
        assert y[held].mean() == pytest.approx(y[fit].mean(), abs=0.05)
    in_order = np.argsort(y, kind="stable")
    assert abs(y[in_order[:60]].mean() - y.mean()) > 0.05


def test_a_seed_decides_which_rows_are_held_out(phrases_of_sentences):
    texts, y = phrases_of_sentences
    state = np.random.get_state()[1].copy()
    first, again, other = (hold_out(texts, y, share=0.1, seed=seed)[1] for seed in (5, 5, 6))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_too_few_rows_are_refused():
    texts = [f"sentence number {n}" for n in range(40)]
    with pytest.raises(HeadError, match="too few training rows") as caught:
        hold_out(texts, np.asarray([0] * 9 + [1] * 31), share=0.1, seed=0)
    assert "{0: 9, 1: 31}" in str(caught.value)
    hold_out(texts, np.asarray([0] * 10 + [1] * 30), share=0.1, seed=0)


def test_a_single_class_is_refused_for_what_it_is():
    with pytest.raises(HeadError, match="only one class") as caught:
        hold_out([f"sentence {number}" for number in range(20)], np.zeros(20, dtype=np.int64), share=0.25, seed=0)
    assert "--held-out" not in str(caught.value)


def test_too_few_sentences_are_refused():
    words = [f"w{n}" for n in range(60)]
    texts = [" ".join(words), *words[:39]]
    with pytest.raises(HeadError, match=r"\{0: 1, 1: 1\}"):
        hold_out(texts, np.asarray([0, 1] * 20), share=0.1, seed=0)


def test_a_class_that_lives_in_one_sentence_is_refused():
    """All rows of class 0 are phrases of one sentence: they cannot stand on both sides."""
    words = [f"w{n}" for n in range(30)]
    texts = [" ".join(words), *words[:19], *(f"another sentence {n}" for n in range(60))]
    y = np.asarray([0] * 20 + [1] * 60)
    with pytest.raises(HeadError):
        hold_out(texts, y, share=0.1, seed=0)


def test_whole_texts_are_those_that_no_other_contains():
    texts = ["a very good film", "very good", "good", "dull", "a Very good film ", "a dull film"]
    assert whole_texts(texts).tolist() == [True, False, False, False, True, True]


@given(st.lists(phrases, min_size=1, max_size=20))
def test_a_text_is_whole_just_where_no_longer_one_contains_it(words):
    whole = whole_texts([" ".join(phrase) for phrase in words])
    for phrase, is_whole in zip(words, whole, strict=True):
        assert is_whole == (not any(other != phrase and _contains(other, phrase) for other in words))


def test_ways_of_holding_out_are_folds_and_then_others():
    rng = np.random.default_rng(4)
    texts = [f"sentence number {n} is {rng.integers(1000)}" for n in range(200)]
    y = rng.integers(0, 2, 200)
    ways = hold_outs(texts, y, share=0.2, seed=3, count=7)
    assert np.array_equal(np.sort(np.concatenate([held for _, held in ways[:5]])), np.arange(200))
    assert len({tuple(held) for _, held in ways}) == 7
    for fit, held in ways:
        assert np.array_equal(np.sort(np.concatenate([fit, held])), np.arange(200))
    first = hold_out(texts, y, share=0.2, seed=3)
    assert np.array_equal(first[1], ways[0][1])
    assert np.array_equal(hold_out(texts, y, share=0.2, seed=4)[1], ways[5][1])


def test_rows_of_one_source_stay_together_and_those_of_none_stay_with_their_sentence():
    texts = ["a b c", "b c", "x y", "y", "p q", "q", "a b c"]
    groups = source_groups(texts, ["ks08", "l-93", "ks08", None, None, "l-93", None])
    assert groups[0] == groups[2] != groups[1] == groups[5]
    assert len({groups[0], groups[1], groups[3], groups[4], groups[6]}) == 5
    rng = np.random.default_rng(5)
    sources = [f"source {n}" for n in rng.integers(0, 12, 300)]
    y = rng.integers(0, 2, 300)
    sentences = [f"sentence {n}" for n in range(300)]
    ways = hold_outs(sentences, y, share=0.2, seed=0, count=5, groups=source_groups(sentences, sources))
    for fit, held in ways:
        assert not {sources[row] for row in fit} & {sources[row] for row in held}
    assert np.array_equal(np.sort(np.concatenate([held for _, held in ways])), np.arange(300))
