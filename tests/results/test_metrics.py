"""The one scoring function, against numbers worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from pipeline.results.metrics import majority_class, score, score_probabilities


def _labels(*, tp: int, fp: int, fn: int, tn: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.asarray([1] * tp + [0] * fp + [1] * fn + [0] * tn)
    return y, np.asarray([1] * tp + [1] * fp + [0] * fn + [0] * tn)


def test_scores_are_the_ones_worked_out_by_hand():
    y, predictions = _labels(tp=6, fp=1, fn=2, tn=3)
    scores = score(y, predictions)
    assert list(scores) == ["mcc", "accuracy", "balanced_accuracy", "f1"]
    assert scores["balanced_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 2)
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
    assert score(y, y) == {"mcc": 1.0, "accuracy": 1.0, "balanced_accuracy": 1.0, "f1": 1.0}
    assert score(y, 1 - y) == {"mcc": -1.0, "accuracy": 0.0, "balanced_accuracy": 0.0, "f1": 0.0}


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_have_no_correlation(constant):
    y = np.asarray([0, 1, 1, 1, 0, 1])
    scores = score(y, np.full(6, constant))
    assert scores["mcc"] == 0.0
    assert scores["accuracy"] == pytest.approx([2 / 6, 4 / 6][constant])
    assert scores["balanced_accuracy"] == 0.5
    assert scores["f1"] == pytest.approx([0.0, 0.8][constant])
    assert score(y, np.asarray([0, 1, 1, 1, 1, 1]))["mcc"] > 0.6


def test_rows_all_of_one_class_are_scored_without_a_warning():
    """As in a small validation file of one's own."""
    right = {"mcc": 0.0, "accuracy": 1.0, "balanced_accuracy": 1.0}
    assert score(np.ones(4, dtype=int), np.ones(4, dtype=int)) == {**right, "f1": 1.0}
    assert score(np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == {**right, "f1": 0.0}
    assert score(np.zeros(4, dtype=int), np.asarray([0, 0, 0, 1]))["balanced_accuracy"] == 0.75


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
        "balanced_accuracy": balanced_accuracy_score(y, predictions),
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


def _probabilities(rng: np.random.Generator, y: np.ndarray, classes: int) -> np.ndarray:
    logits = rng.normal(size=(len(y), classes)) + 1.2 * np.eye(classes)[y]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 60), st.integers(2, 4), st.integers(0, 10_000))
def test_scores_of_probabilities_are_scikit_learns(rows, classes, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    y[:classes] = np.arange(classes)
    probabilities = _probabilities(rng, y, classes)
    scores = score_probabilities(y, probabilities)
    assert list(scores) == ["auroc", "log_loss", "ece"]
    of_one, turned = probabilities[:, 1] if classes == 2 else probabilities, np.roll(probabilities, 1, axis=1)
    assert scores["auroc"] == pytest.approx(roc_auc_score(y, of_one, multi_class="ovr", average="macro"), abs=1e-12)
    assert scores["log_loss"] == pytest.approx(log_loss(y, probabilities), abs=1e-12)
    assert scores["log_loss"] != pytest.approx(score_probabilities(y, turned)["log_loss"], abs=1e-6)


def test_rows_of_one_class_have_no_auroc():
    probabilities = np.asarray([[0.25, 0.75], [0.5, 0.5]])
    scores = score_probabilities(np.asarray([1, 1]), probabilities)
    assert list(scores) == ["log_loss", "ece"]
    assert scores["log_loss"] == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert score_probabilities(np.asarray([1, 0]), probabilities)["auroc"] == 1.0


def test_a_label_that_the_head_does_not_know_costs_as_much_as_a_certain_mistake():
    """Its column is 0, as `over_labels` has it; it is no error, and the other classes' AUROC counts alone."""
    probabilities = np.asarray([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]])
    known = score_probabilities(np.asarray([0, 1, 0, 1]), probabilities)
    assert known["auroc"] == 1.0
    unknown = score_probabilities(np.asarray([0, 1, 0, 2]), probabilities)
    assert unknown["log_loss"] > 9 > known["log_loss"]
    assert unknown["auroc"] < 1.0


def test_probabilities_of_a_float32_head_are_scored_without_a_warning():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    probabilities = _probabilities(rng, y, 3)
    rough = probabilities.astype(np.float32).astype(np.float64)
    assert (abs(rough.sum(axis=1) - 1) > 1.5e-8).any()  # what scikit-learn warns of
    assert score_probabilities(y, rough) == pytest.approx(score_probabilities(y, probabilities), abs=1e-6)


def test_probabilities_that_are_no_numbers_have_no_scores():
    assert score_probabilities(np.asarray([0, 1]), np.asarray([[0.5, 0.5], [np.nan, np.nan]])) == {}
