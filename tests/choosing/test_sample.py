"""The draw: as many rows as were asked for, each class by its share, and no sentence on two sides."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.choosing.sample import Sample, draw, quotas
from pipeline.config import DataConfig
from pipeline.holdout import sentence_groups, whole_texts
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import BUILT_IN


@pytest.fixture(scope="module")
def phrases(sample_dir):
    """SST-2's training rows of the sample: phrases and the sentences that they are from."""
    return read_task(BUILT_IN["sst2"], DataConfig(data="sample", sample_dir=sample_dir), ("train",))["train"]


@pytest.mark.parametrize("rows", [1, 100, 272, 400, 519])
def test_a_draw_has_the_rows_that_were_asked_for_as_they_are_in_the_split(phrases, rows):
    drawn = draw(phrases, rows, seed=3)
    assert len(drawn) == rows == len(set(drawn.idx))
    assert list(drawn.idx) == sorted(drawn.idx)
    for name in ("texts", "labels", "lines"):
        assert getattr(drawn, name) == tuple(getattr(phrases, name)[idx] for idx in drawn.idx)
    assert drawn == draw(phrases, rows, seed=3)


def test_whole_sentences_come_first_and_each_class_has_its_share(phrases):
    whole = whole_texts(phrases.texts)
    groups = sentence_groups(phrases.texts)
    drawn = draw(phrases, 100, seed=0)
    assert whole[list(drawn.idx)].all()
    assert len(set(groups[list(drawn.idx)])) == 100
    share = np.asarray(phrases.labels)[whole].mean()
    assert abs(sum(drawn.labels) - 100 * share) <= 1
    assert not whole[np.random.default_rng(0).permutation(len(phrases))[:100]].all()  # any hundred rows are not so
    other = draw(phrases, 100, seed=1)
    assert 20 < len(set(other.idx) & set(drawn.idx)) < 80


def test_phrases_come_with_the_sentences_that_hold_them(phrases):
    groups = sentence_groups(phrases.texts)
    drawn = draw(phrases, len(set(groups.tolist())) + 40, seed=0)
    of_drawn = groups[list(drawn.idx)].tolist()
    assert set(of_drawn) == set(groups.tolist())
    own = sentence_groups(drawn.texts).tolist()  # so what belongs together is known of the sample alone
    assert len(set(own)) == len(set(of_drawn)) == len(set(zip(own, of_drawn, strict=True)))


def test_all_rows_where_there_are_no_more_or_none_were_asked_for(phrases):
    assert draw(phrases, 0, seed=0) is phrases
    assert draw(phrases, 520, seed=0) is phrases


def test_a_sample_says_which_rows_it_is_of(phrases):
    drawn = draw(phrases, 100, seed=0)
    sample = Sample.of_draw(drawn, len(phrases), 0)
    assert (sample.rows, sample.of, sum(sample.classes.values())) == (100, 520, 100)
    assert "100 of 520 rows" in str(sample)
    assert sample.texts != Sample.of_draw(draw(phrases, 100, seed=1), len(phrases), 1).texts
    flipped = replace(drawn, labels=tuple(1 - label for label in drawn.labels))
    assert sample.labels != Sample.of_draw(flipped, len(phrases), 0).labels


def test_what_rounding_leaves_goes_to_the_largest_remainders():
    assert quotas([1, 1, 1], 10) == [4, 3, 3]
    assert quotas([70, 29, 1], 10) == [7, 3, 0]
    assert quotas([5, 5], 10) == [5, 5]
