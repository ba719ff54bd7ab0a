"""LogME against a brute-force maximisation of the evidence, and what must not and what must change it."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from pipeline.errors import RunError
from pipeline.results.logme import logme


def drawn(n, d, *, classes=2, informative=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    X = rng.normal(size=(n, d)) * np.exp(rng.normal(size=d)) + informative * rng.normal(size=(classes, d))[y]
    return X, y


def brute_force(X, y):
    """The evidence as the density of the labels themselves, maximised over log alpha and log beta from many starts."""
    n = len(y)

    def maximum(target):
        def against(logs):
            alpha, beta = np.exp(np.clip(logs, -25, 25))
            covariance = np.eye(n) / beta + X @ X.T / alpha
            return -multivariate_normal(np.zeros(n), covariance, allow_singular=False).logpdf(target)

        settings = {"xatol": 1e-7, "fatol": 1e-10, "maxiter": 500}
        starts = [(0.0, 1.0), (5.0, 1.0)]
        return max(-minimize(against, start, method="Nelder-Mead", options=settings).fun for start in starts)

    return np.mean([maximum((y == each).astype(float)) for each in np.unique(y)]) / n


@pytest.mark.parametrize(("n", "d", "classes"), [(40, 6, 2), (30, 7, 3), (14, 20, 2)], ids=["tall", "classes", "wide"])
def test_it_is_the_maximum_of_the_evidence(n, d, classes):
    X, y = drawn(n, d, classes=classes)
    assert logme(X, y) == pytest.approx(brute_force(X, y), abs=1e-7)
    assert logme(X, y) != pytest.approx(logme(X, np.random.default_rng(3).permutation(y)), abs=1e-3)


def test_rotation_scale_and_order_change_nothing_and_scaling_one_feature_does():
    X, y = drawn(60, 8)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    order = np.random.default_rng(2).permutation(60)
    for same in ((X @ rotation, y), (1e4 * X, y), (1e-4 * X, y), (X[order], y[order]), (X, 1 - y)):
        assert logme(*same) == pytest.approx(logme(X, y), rel=1e-9)
    assert logme(X * np.r_[100.0, np.ones(7)], y) != pytest.approx(logme(X, y), rel=1e-3)


@pytest.mark.parametrize(("n", "d"), [(200, 20), (60, 200)])
def test_features_that_know_the_class_have_more_than_random_ones(n, d):
    for seed in range(5):
        X, y = drawn(n, d, informative=0.5, seed=seed)
        noise = np.random.default_rng(100 + seed).normal(size=(n, d))
        assert logme(X, y) > logme(noise, y) + 0.02
        assert logme(X, y) > logme(X, np.random.default_rng(seed).permutation(y)) + 0.02


def test_features_of_zeros_leave_labels_of_one_variance():
    y = np.arange(10) % 2
    expected = -0.5 * (np.log(2 * np.pi * 0.5) + 1)  # each class is half of the rows: their mean square is 0.5
    assert logme(np.zeros((10, 3)), y) == pytest.approx(expected)


@pytest.mark.parametrize(("X", "y"), [(np.ones((4, 2)), [0, 1]), (np.ones((4, 2)), [1, 1, 1, 1])])
def test_what_it_is_not_defined_for_is_refused(X, y):
    with pytest.raises(RunError, match="not defined"):
        logme(X, np.asarray(y))


def test_a_value_that_is_not_finite_is_said_with_its_place():
    X, y = drawn(50, 5)
    X[7, 3], X[9, 1] = np.nan, np.inf
    with pytest.raises(RunError, match="not defined") as caught:
        logme(X, y)
    assert (caught.value.where, caught.value.found) == ("row 7, column 3", "nan, the first of 2 that are not")
