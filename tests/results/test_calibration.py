"""Probabilities that mean what they say, and the temperature that makes them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from pipeline.errors import HeadError
from pipeline.results.calibration import (
    TEMPERATURES,
    expected_calibration_error,
    fit_temperature,
    probabilities_of,
    with_sum_one,
)

FINITE = st.floats(-1e6, 1e6, allow_subnormal=True)
COLD_TO_HOT = st.floats(*TEMPERATURES)


def _calibrated(rows: int, classes: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Decision values whose probabilities are true, and classes drawn by them."""
    rng = np.random.default_rng(seed)
    decisions = rng.normal(scale=2.0, size=rows if classes is None else (rows, classes))
    cumulated = probabilities_of(decisions, 1.0).cumsum(axis=1)
    return decisions, (rng.random(rows)[:, None] > cumulated[:, :-1]).sum(axis=1)


def test_the_calibration_error_is_the_one_worked_out_by_hand():
    y = np.asarray([0, 0, 1, 1])
    probabilities = np.asarray([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.05, 0.95]])
    # confidence 0.75 in three rows, two of them right; 0.95 in one, which is right
    assert expected_calibration_error(y, probabilities) == pytest.approx((3 * abs(0.75 - 2 / 3) + 0.05) / 4)
    assert expected_calibration_error(y, probabilities, bins=1) == pytest.approx(abs(3.2 - 3) / 4)


def test_a_bin_is_closed_at_its_upper_end():
    """Two confidences in one bin make one gap, in two bins two that do not cancel."""
    y = np.asarray([0, 1])
    edge, above = 0.75, np.nextafter(0.75, 1)
    one_bin = np.asarray([[0.55, 0.45], [edge, 1 - edge]])
    two_bins = np.asarray([[0.55, 0.45], [above, 1 - above]])
    assert expected_calibration_error(y, one_bin, bins=4) == pytest.approx(abs(0.75 - 0.45) / 2)
    assert expected_calibration_error(y, two_bins, bins=4) == pytest.approx((0.75 + 0.45) / 2)


@pytest.mark.parametrize("classes", [None, 4])
def test_true_probabilities_have_hardly_an_error_and_overconfident_ones_less_after_scaling(classes):
    decisions, y = _calibrated(40_000, classes)
    true = expected_calibration_error(y, probabilities_of(decisions, 1.0))
    over = expected_calibration_error(y, probabilities_of(4 * decisions, 1.0))
    temperature = fit_temperature(4 * decisions[:20_000], y[:20_000], np.unique(y))
    scaled = expected_calibration_error(y[20_000:], probabilities_of(4 * decisions[20_000:], temperature))
    assert temperature == pytest.approx(4.0, rel=0.05)
    assert true < 0.012
    assert scaled < 0.02
    assert over > 0.08


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_no_other_temperature_has_a_lower_loss(classes, factor):
    decisions, y = _calibrated(300, classes, seed=1)
    labels = np.asarray([2, 5, 7])[: 2 if classes is None else 3]
    temperature = fit_temperature(factor * decisions, labels[y], labels)

    def loss(other: float) -> float:
        return log_loss(y, probabilities_of(factor * decisions, other), labels=np.arange(len(labels)))

    grid = np.geomspace(1e-2, 1e2, 401)
    assert loss(temperature) <= min(map(loss, grid))
    assert loss(temperature) < loss(1.5 * temperature)
    assert loss(temperature) <= loss(1.0)


def test_the_best_temperature_lies_at_an_end_where_there_is_no_best():
    y = np.asarray([0, 1, 1, 0])
    separable = np.where(y == 1, 1.0, -1.0)
    cold = fit_temperature(separable, y, np.asarray([0, 1]))
    hot = fit_temperature(-separable, y, np.asarray([0, 1]))
    assert TEMPERATURES[0] <= cold < 0.05
    assert 500 < hot <= TEMPERATURES[1]
    assert fit_temperature(np.zeros(4), y, np.asarray([0, 1])) == 1.0  # none is better than another


def test_two_columns_are_scaled_as_their_difference_is():
    decisions, y = _calibrated(200, 2, seed=3)
    classes = np.asarray([0, 1])
    temperature = fit_temperature(decisions, y, classes)
    assert fit_temperature(decisions[:, 1] - decisions[:, 0], y, classes) == pytest.approx(temperature, rel=1e-5)
    wide, narrow = (probabilities_of(each, 0.7) for each in (decisions, decisions[:, 1] - decisions[:, 0]))
    assert wide == pytest.approx(narrow, abs=1e-14)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.integers(1, 20), elements=FINITE), COLD_TO_HOT)
@example(np.asarray([0.0, -0.0, 5e-324, -5e-324, 1e-17, -1e-17, 1e300, -1e300]), 1000.0)
def test_no_temperature_changes_a_prediction_of_two_classes(decisions, temperature):
    probabilities = probabilities_of(decisions, temperature)
    assert (probabilities.argmax(axis=1) == (decisions > 0)).all()
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15
    assert (probabilities >= 0).all()


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 10), st.integers(2, 5)), elements=FINITE), COLD_TO_HOT)
@example(np.asarray([[0.0, 1e-20, 0.0], [1.0, 1.0, 1.0], [1.0, np.nextafter(1.0, 2), 1.0], [1e300, -1e300, 0]]), 1000.0)
def test_no_temperature_changes_a_prediction_of_several_classes(decisions, temperature):
    probabilities = probabilities_of(decisions, temperature)
    assert (probabilities.argmax(axis=1) == decisions.argmax(axis=1)).all()
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-14


def test_without_care_rounding_would_change_a_prediction():
    decisions = np.asarray([[0.0, 1e-20, 0.0]])
    naive = np.exp(decisions) / np.exp(decisions).sum(axis=1, keepdims=True)
    assert naive.argmax() == 0 != probabilities_of(decisions, 1.0).argmax()
    assert probabilities_of(decisions, 1.0) == pytest.approx(naive, abs=1e-15)


def test_decisions_that_do_not_go_with_rows_and_classes_are_refused():
    two, three = np.asarray([0, 1]), np.asarray([0, 1, 2])
    for decisions, y, classes in (
        (np.zeros(3), np.asarray([0, 1]), two),
        (np.zeros(2), np.asarray([0, 1]), three),
        (np.zeros((2, 2)), np.asarray([0, 1]), three),
        (np.zeros(0), np.zeros(0, dtype=int), two),
    ):
        with pytest.raises(HeadError, match="do not go with"):
            fit_temperature(decisions, y, classes)
    with pytest.raises(HeadError, match="does not know") as caught:
        fit_temperature(np.zeros(2), np.asarray([0, 2]), two)
    assert caught.value.found == [2]


def test_rows_are_made_to_sum_to_one_and_the_given_ones_stay():
    given_rows = np.asarray([[1.0, 3.0], [0.0, 0.0]])
    assert with_sum_one(given_rows).tolist() == [[0.25, 0.75], [0.0, 0.0]]
    assert given_rows[0].tolist() == [1.0, 3.0]
