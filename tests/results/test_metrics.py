"""The one scoring function, against numbers worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pipeline.results.metrics import majority_class, score


def _labels(*, tp: int, fp: int, fn: int, tn: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.asarray([1] * tp + [0] * fp + [1] * fn + [0] * tn)
    return y, np.asarray([1] * tp + [1] * fp + [0] * fn + [0] * tn)


def test_scores_are_the_ones_worked_out_by_hand():
    y, predictions = _labels(tp=6, fp=1, fn=2, tn=3)
    scores = score(y, predictions)
    assert set(scores) == {"mcc", "accuracy", "f1"}
    assert scores["accuracy"] == pytest.approx(9 / 12)
    assert scores["f1"] == pytest.approx(2 * 6 / (2 * 6 + 1 + 2))
    assert scores["mcc"] == pytest.approx((6 * 3 - 1 * 2) / math.sqrt(7 * 8 * 4 * 5))
    assert all(type(value) is float for value in scores.values())


def test_f1_is_of_class_one_as_glue_has_it():
    y, predictions = _labels(tp=6, fp=1, fn=2, tn=3)
    turned = score(1 - y, 1 - predictions)
    assert turned["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert turned["f1"] != score(y, predictions)["f1"]
    assert turned["mcc"] == pytest.approx(score(y, predictions)["mcc"])


def test_perfect_and_opposite_predictions_are_the_ends_of_the_scale():
    y = np.asarray([0, 1, 1, 0, 1])
    assert score(y, y) == {"mcc": 1.0, "accuracy": 1.0, "f1": 1.0}
    assert score(y, 1 - y) == {"mcc": -1.0, "accuracy": 0.0, "f1": 0.0}


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_have_no_correlation(constant):
    y = np.asarray([0, 1, 1, 1, 0, 1])
    scores = score(y, np.full(6, constant))
    assert scores["mcc"] == 0.0
    assert scores["accuracy"] == pytest.approx([2 / 6, 4 / 6][constant])
    assert scores["f1"] == pytest.approx([0.0, 0.8][constant])
    assert score(y, np.asarray([0, 1, 1, 1, 1, 1]))["mcc"] > 0.6


def test_rows_all_of_one_class_are_scored_without_a_warning():
    """As in a small validation file of one's own."""
    assert score(np.ones(4, dtype=int), np.ones(4, dtype=int)) == {"mcc": 0.0, "accuracy": 1.0, "f1": 1.0}
    assert score(np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == {"mcc": 0.0, "accuracy": 1.0, "f1": 0.0}


def test_of_three_classes_f1_is_the_mean_over_classes():
    y = np.asarray([0, 0, 1, 1, 2, 2])
    predictions = np.asarray([0, 0, 1, 2, 2, 1])
    assert score(y, predictions)["f1"] == pytest.approx((1.0 + 0.5 + 0.5) / 3)
    assert score(y, predictions)["accuracy"] == pytest.approx(4 / 6)
    assert score(y, np.zeros(6, dtype=int))["f1"] == pytest.approx((0.5 + 0 + 0) / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_scores_are_scikit_learns(rows, seed):
    rng = np.random.default_rng(seed)
    y, predictions = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    y[:2] = 0, 1
    assert score(y, predictions) == {
        "mcc": matthews_corrcoef(y, predictions),
        "accuracy": accuracy_score(y, predictions),
        "f1": f1_score(y, predictions, zero_division=0.0),
    }


def test_the_order_of_the_rows_decides_nothing_and_their_pairing_everything():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    predictions = np.where(rng.random(60) < 0.8, y, 1 - y)
    order = rng.permutation(60)
    assert score(y[order], predictions[order]) == pytest.approx(score(y, predictions))
    assert score(y[order], predictions)["accuracy"] < score(y, predictions)["accuracy"]


def test_the_majority_class_is_the_most_frequent_one():
    assert majority_class(np.asarray([0, 1, 1])) == 1
    assert majority_class(np.asarray([0, 0, 1])) == 0
    assert majority_class(np.asarray([2, 2, 0, 1])) == 2
    assert majority_class(np.asarray([1, 0, 0, 1])) == 0  # the lower number where two are equal
    assert type(majority_class(np.asarray([1]))) is int
