"""Two sets of predictions for the same rows."""

import numpy as np
import pytest
import scipy.stats

from pipeline.errors import RunError
from pipeline.results.intervals import bootstrap_interval
from pipeline.results.metrics import score, score_probabilities
from pipeline.results.paired import mcnemar_exact, paired_bootstrap


def _predictions(rows: int = 400, seed: int = 0, better: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, and two predictions that go wrong on much the same rows, the second a little less often."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < 0.65).astype(np.int64)
    a = np.where(rng.random(rows) < 0.78, y, 1 - y)
    b = np.where((a != y) & (rng.random(rows) < better / 0.22), y, a)
    noise = rng.random(rows) < 0.03
    return y, a, np.where(noise, 1 - b, b)


def test_mcnemar_is_the_one_worked_out_by_hand():
    """One row that the first alone has right and five that the second alone has: p = 2 (1 + 6) / 2 ** 6."""
    y = np.ones(10, dtype=int)
    a = np.asarray([1, 0, 0, 0, 0, 0, 1, 1, 0, 0])
    b = np.asarray([0, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    found = mcnemar_exact(y, a, b)
    assert found.to_dict() == {"b": 1, "c": 5, "p": pytest.approx(14 / 64)}
    turned = mcnemar_exact(y, b, a)
    assert (turned.b, turned.c, turned.p) == (5, 1, found.p)


def test_mcnemar_is_the_binomial_test_of_the_rows_that_one_has_right():
    for seed in range(20):
        y, a, b = _predictions(seed=seed)
        found = mcnemar_exact(y, a, b)
        assert found.b - found.c == (a == y).sum() - (b == y).sum()
        assert found.p == scipy.stats.binomtest(found.b, found.b + found.c, 0.5, alternative="two-sided").pvalue


def test_right_on_the_same_rows_is_no_difference_and_p_one():
    y, a, b = _predictions()
    same = paired_bootstrap("mcc", y, a, a)
    assert (same.difference.estimate, same.difference.low, same.difference.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert "not defined" in same.difference.method
    assert mcnemar_exact(y, a, a).to_dict() == {"b": 0, "c": 0, "p": 1.0}
    other = paired_bootstrap("mcc", y, a, b)
    assert other.difference.estimate > 0
    assert other.p < 1


@pytest.mark.parametrize("metric", ["mcc", "accuracy", "balanced_accuracy", "f1"])
def test_the_difference_is_of_the_scores_and_turns_with_them(metric):
    y, a, b = _predictions()
    found, turned = paired_bootstrap(metric, y, a, b), paired_bootstrap(metric, y, b, a)
    expected = score(y, b)[metric] - score(y, a)[metric]
    assert found.difference.estimate == pytest.approx(expected, abs=1e-12)
    assert found.difference.low < expected < found.difference.high
    ends = (-turned.difference.high, -turned.difference.low)
    assert (found.difference.low, found.difference.high) == pytest.approx(ends, abs=0.01)
    assert found.p == pytest.approx(turned.p, abs=0.02)


def test_the_interval_of_a_difference_is_scipys():
    y, a, b = _predictions()

    def difference(y, a, b, axis=-1):
        return (b == y).mean(axis=axis) - (a == y).mean(axis=axis)

    theirs = scipy.stats.bootstrap(
        (y, a, b), difference, paired=True, vectorized=True, n_resamples=9_999, rng=np.random.default_rng(1), batch=500
    ).confidence_interval
    ours = paired_bootstrap("accuracy", y, a, b).difference
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.004)
    assert ours.high - ours.low > 0.02


def test_pairing_tells_more_than_two_intervals_apart():
    y, a, b = _predictions(rows=1000)
    paired = paired_bootstrap("mcc", y, a, b).difference
    alone = [bootstrap_interval("mcc", y, each) for each in (a, b)]
    assert paired.high - paired.low < 0.8 * min(each.high - each.low for each in alone)
    shuffled = np.random.default_rng(0).permutation(1000)  # the same scores of rows that have nothing in common
    y2 = np.concatenate([y, y[shuffled]])
    unpaired = paired_bootstrap("mcc", y2, np.concatenate([a, y[shuffled]]), np.concatenate([y, b[shuffled]]))
    assert unpaired.difference.high - unpaired.difference.low > 0.8 * (paired.high - paired.low)


def test_p_goes_with_the_percentile_interval():
    sides = set()
    for seed in range(30):
        y, a, b = _predictions(seed=seed, better=0.05)
        found = paired_bootstrap("accuracy", y, a, b, method="percentile", resamples=1_999)
        if min(abs(found.difference.low), abs(found.difference.high)) < 1e-9:
            continue  # an end is 0 itself
        leaves_out = found.difference.low > 0 or found.difference.high < 0
        assert (found.p < 0.05) == leaves_out
        sides.add(leaves_out)
    assert sides == {True, False}


def test_p_is_low_as_often_as_it_says_where_there_is_no_difference():
    low = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 300)
        a, b = (np.where(rng.random(300) < 0.8, y, 1 - y) for _ in range(2))
        low += paired_bootstrap("mcc", y, a, b, resamples=599, method="percentile").p < 0.1
    assert 0.05 < low / 300 < 0.16
    y, a, b = _predictions(rows=2000, better=0.15)
    assert paired_bootstrap("mcc", y, a, b).p == pytest.approx(2 / 10_000)  # never 0


def test_three_classes_and_probabilities_are_compared_too():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 300)
    logits = [rng.normal(size=(300, 3)) + strength * np.eye(3)[y] for strength in (1.0, 2.0)]
    a, b = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in logits)
    for metric in ("auroc", "log_loss", "ece"):
        found = paired_bootstrap(metric, y, a, b, resamples=499)
        expected = score_probabilities(y, b)[metric] - score_probabilities(y, a)[metric]
        assert found.difference.estimate == pytest.approx(expected, abs=1e-12)
    assert paired_bootstrap("log_loss", y, a, b, resamples=499).difference.high < 0
    found = paired_bootstrap("mcc", y, a.argmax(axis=1), b.argmax(axis=1))
    expected = score(y, b.argmax(axis=1))["mcc"] - score(y, a.argmax(axis=1))["mcc"]
    assert found.difference.estimate == pytest.approx(expected, abs=1e-12)
    assert found.difference.low > 0


def test_predictions_of_other_rows_are_refused():
    y, a, b = _predictions()
    for compare in (mcnemar_exact, lambda *each: paired_bootstrap("mcc", *each)):
        with pytest.raises(RunError, match="do not go with the rows") as caught:
            compare(y, a, b[:-1])
        assert caught.value.found == "400, 399"
        with pytest.raises(RunError, match="do not go with the rows"):
            compare(y[:0], a[:0], b[:0])


@pytest.mark.parametrize("metric", ["mcc", "log_loss"])
def test_exchanged_the_two_differ_by_the_sign_alone(metric):
    y, a, b = _predictions()
    if metric == "log_loss":
        a, b = (np.stack([1 - p, p], axis=1) for p in (0.1 + 0.8 * a, 0.2 + 0.6 * b))
    there, back = paired_bootstrap(metric, y, a, b), paired_bootstrap(metric, y, b, a)
    assert there.p == back.p
    assert (there.difference.low, there.difference.high) == (-back.difference.high, -back.difference.low)
    assert there.difference == -back.difference
    assert there.difference.low != -there.difference.high
