"""Heads that are fitted together are those that scikit-learn fits one by one."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from pipeline.errors import HeadError
from pipeline.heads.fused import fit, spectrum
from pipeline.heads.fused.fit import Candidate, decide
from pipeline.heads.fused.fit import fit_candidates as fit_to_tolerance
from pipeline.heads.fused.moments import FitRows
from pipeline.heads.fused.stream import FeatureStream

fit_candidates = partial(fit_to_tolerance, tolerance=1e-10)
N, D = 1500, 24
STRENGTHS = (1e-3, 1e-1, 10.0)
CANDIDATES = [
    *(Candidate(kind, C) for kind in ("logreg", "svm", "ridge") for C in STRENGTHS),
    *(Candidate("lda", shrinkage) for shrinkage in (0.0, 0.1, 0.9)),
    Candidate("centroid", None),
]
ALIKE = {"logreg": 2e-3, "svm": 2e-3, "ridge": 1e-9, "lda": 1e-6, "centroid": 1e-9}
"""The greatest difference of coefficients, as a share of the greatest: float32 and a tolerance, or closed forms."""


def of_sklearn(candidate):
    if candidate.kind == "logreg":
        return LogisticRegression(C=candidate.strength, tol=1e-10, max_iter=10000)
    if candidate.kind == "svm":
        return LinearSVC(C=candidate.strength, tol=1e-10, max_iter=100000, dual=False)
    if candidate.kind == "ridge":
        return RidgeClassifier(alpha=1 / (2 * candidate.strength))
    if candidate.kind == "lda":
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=candidate.strength or None)
    return NearestCentroid()


def random_rows(classes, seed=0):
    """Correlated features far from zero at scales of their own, classes that overlap, and three sets of rows."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((N, D)) @ random.standard_normal((D, D)) * np.exp(random.normal(size=D))
    y = (StandardScaler().fit_transform(X) @ random.normal(size=(D, classes)) * 0.3).__add__(
        random.gumbel(size=(N, classes))
    )
    X = (X + 50 * random.normal(size=D)).astype(np.float32)
    return X, y.argmax(axis=1), [random.random(N) < share for share in (0.9, 0.8, 1.1)]


@pytest.fixture(scope="module", params=[2, 3], ids=["two classes", "three classes"])
def fitted(request):
    X, y, masks = random_rows(request.param)
    fits = [FitRows(mask, y, request.param) for mask in masks]
    return X, y, masks, fit_candidates(FeatureStream.of_matrix(X), fits, CANDIDATES)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_each_head_is_scikit_learns_own_on_its_rows(fitted, candidate):
    X, y, masks, found = fitted
    coefs = []
    for mask, heads in zip(masks, found, strict=True):
        scaler = StandardScaler().fit(X[mask].astype(np.float64))
        Z = scaler.transform(X[mask].astype(np.float64))
        expected, head = of_sklearn(candidate).fit(Z, y[mask]), heads[CANDIDATES.index(candidate)]
        np.testing.assert_allclose(head.mean, scaler.mean_, rtol=1e-10)
        np.testing.assert_allclose(head.scale, scaler.scale_, rtol=1e-9)
        decisions = Z @ head.coef.T + head.intercept
        if candidate.kind == "centroid":  # scikit-learn's has no linear form to compare with
            predicted = (decisions[:, 0] > 0).astype(int) if decisions.shape[1] == 1 else decisions.argmax(axis=1)
            assert np.array_equal(predicted, expected.predict(Z))
        else:
            off = np.abs(head.coef - expected.coef_).max() / np.abs(expected.coef_).max()
            assert off < ALIKE[candidate.kind]
            np.testing.assert_allclose(head.intercept, expected.intercept_, atol=ALIKE[candidate.kind])
        coefs.append(head.coef)
    assert np.abs(coefs[0] - coefs[1]).max() > 10 * ALIKE[candidate.kind] * np.abs(coefs[0]).max()  # other rows tell


def objective(X, y, C, coef, intercept):
    z = X @ coef + intercept
    return C * (np.logaddexp(0, z) - y * z).sum() + 0.5 * coef @ coef


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
def test_the_optimum_is_an_optimum(C):
    X, y, _ = random_rows(2, seed=3)
    head = fit_candidates(FeatureStream.of_matrix(X), [FitRows(np.ones(N, bool), y, 2)], [Candidate("logreg", C)])[0][0]
    Z = (X.astype(np.float64) - head.mean) / head.scale
    best = LogisticRegression(C=C, tol=1e-12, max_iter=10000).fit(Z, y)
    least = objective(Z, y, C, best.coef_[0], best.intercept_[0])
    assert objective(Z, y, C, head.coef[0], head.intercept[0]) < least * (1 + 1e-6)
    assert objective(Z, y, C, 0.9 * head.coef[0], head.intercept[0]) > least * (1 + 1e-6)


def test_heads_fitted_together_are_the_heads_fitted_alone():
    X, y, masks = random_rows(3, seed=5)
    fits = [FitRows(mask, y, 3) for mask in masks]
    stream = FeatureStream.of_matrix(X)
    together = fit_candidates(stream, fits, CANDIDATES)
    for candidate in CANDIDATES:
        alone = fit_candidates(stream, [fits[1]], [candidate])[0][0]
        place = CANDIDATES.index(candidate)
        scale = np.abs(alone.coef).max()
        assert np.abs(alone.coef - together[1][place].coef).max() < 2 * ALIKE[candidate.kind] * scale
        assert np.abs(alone.coef - together[0][place].coef).max() > 2 * ALIKE[candidate.kind] * scale


def test_rows_that_are_not_fitted_on_have_no_part_in_a_head():
    X, y, masks = random_rows(2)
    other = X.copy()
    other[~masks[0]] = 1000 * other[~masks[0]] + 7
    fits = [FitRows(masks[0], y, 2)]
    some = [Candidate("ridge", 1.0), Candidate("lda", 0.1), Candidate("centroid", None), Candidate("logreg", 1.0)]
    first = fit_candidates(FeatureStream.of_matrix(X), fits, some)[0]
    then = fit_candidates(FeatureStream.of_matrix(other), fits, some)[0]
    for one, another in zip(first, then, strict=True):
        np.testing.assert_allclose(one.coef, another.coef, rtol=5e-3, atol=5e-4 * np.abs(one.coef).max())
    everywhere = fit_candidates(FeatureStream.of_matrix(other), [FitRows(np.ones(N, bool), y, 2)], some)[0]
    assert np.abs(everywhere[0].coef - first[0].coef).max() > 0.1 * np.abs(first[0].coef).max()


@pytest.mark.parametrize("kind", ["logreg", "svm", "ridge", "lda", "centroid"])
def test_a_feature_that_does_not_vary_has_no_weight_and_moves_no_other(kind):
    X, y, masks = random_rows(2)
    candidate = Candidate(kind, None if kind == "centroid" else 0.1)
    fits = [FitRows(masks[0], y, 2)]
    without = fit_candidates(FeatureStream.of_matrix(X), fits, [candidate])[0][0]
    constant = np.insert(X, 5, np.float32(3.3), axis=1)
    head = fit_candidates(FeatureStream.of_matrix(constant), fits, [candidate])[0][0]
    assert head.coef[0, 5] == 0
    assert head.scale[5] == 1
    rest = np.delete(head.coef[0], 5)
    share = 0.05 if kind == "lda" else 1e-3  # LDA shrinks towards the mean variance of all features
    assert np.abs(rest - without.coef[0]).max() < share * np.abs(rest).max()


def test_a_direction_that_few_rows_have_does_not_slow_the_others_down():
    """Steps are measured by the features' spectrum: where a sample of rows missed it, iterations went on for ever."""
    random = np.random.default_rng(8)
    n, d = 6000, 40
    X = random.normal(size=(n, d)).astype(np.float32)
    X[:, 1:] = X[:, :1] + 1e-2 * X[:, 1:]  # nearly one direction
    few = random.choice(n, 6, replace=False)
    X[few] += 30 * random.normal(size=d).astype(np.float32)
    y = (X[:, 0] + random.normal(size=n) > 0).astype(np.int64)
    reads = []
    told = lambda kind, read, done: reads.append(read)  # noqa: E731
    found = fit_to_tolerance(
        FeatureStream.of_matrix(X), [FitRows(np.ones(n, bool), y, 2)], [Candidate("logreg", 1.0)], told
    )
    head = found[0][0]
    Z = (X.astype(np.float64) - head.mean) / head.scale
    best = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(Z, y)
    least = objective(Z, y, 1.0, best.coef_[0], best.intercept_[0])
    assert objective(Z, y, 1.0, head.coef[0], head.intercept[0]) < least * (1 + 1e-5)
    assert max(reads) < 60


def test_a_feature_that_is_constant_in_one_way_and_varies_in_another():
    random = np.random.default_rng(0)
    n = 2000
    X = random.normal(size=(n, 8)).astype(np.float32)
    X[:, 5] = 0
    X[:200, 5] = 1e4 * random.normal(size=200)
    y = (X[:, 0] + 1e-4 * X[:, 5] + random.normal(size=n) > 0).astype(np.int64)
    ways = [FitRows(np.arange(n) >= 200, y, 2), FitRows(np.arange(n) < 1800, y, 2)]
    found = fit_to_tolerance(FeatureStream.of_matrix(X), ways, [Candidate("logreg", 1.0)])
    for way, (head,) in zip(ways, found, strict=True):
        Z = (X[way.fit].astype(np.float64) - head.mean) / head.scale
        best = LogisticRegression(C=1.0, tol=1e-12, max_iter=10000).fit(Z, y[way.fit])
        least = objective(Z, y[way.fit], 1.0, best.coef_[0], best.intercept_[0])
        assert objective(Z, y[way.fit], 1.0, head.coef[0], head.intercept[0]) < least * (1 + 1e-5)


def test_lda_without_shrinkage_where_features_repeat_is_the_pseudo_inverse():
    X, y, _ = random_rows(2, seed=2)
    X = np.concatenate([X, X[:, :3]], axis=1)
    head = fit_candidates(FeatureStream.of_matrix(X), [FitRows(np.ones(N, bool), y, 2)], [Candidate("lda", 0.0)])[0][0]
    Z = (X.astype(np.float64) - head.mean) / head.scale
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(Z, y)
    assert ((Z @ head.coef[0] + head.intercept[0] > 0) == expected.predict(Z)).mean() > 0.99


def test_decisions_of_features_far_from_zero_keep_their_digits():
    random = np.random.default_rng(6)
    X = (random.normal(size=(400, 60)) + 1e4 * random.choice([-1, 1], 60)).astype(np.float32)
    y = (random.normal(size=400) + X[:, 0] - X[:, 0].mean() > 0).astype(np.int64)
    rows = [FitRows(np.ones(400, bool), y, 2)]
    stream = FeatureStream.of_matrix(X)
    [heads] = fit_candidates(stream, rows, [Candidate("ridge", 0.1)])
    exact = ((X.astype(np.float64) - heads[0].mean) / heads[0].scale) @ heads[0].coef[0] + heads[0].intercept[0]
    found = decide(stream, heads, np.ones(400, bool))[:, 0, 0]
    assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()


def test_closed_forms_whose_matrices_do_not_fit_into_memory_together_are_the_same(monkeypatch):
    X, y, masks = random_rows(2)
    fits = [FitRows(mask, y, 2) for mask in (*masks, masks[0], ~masks[0])]  # the fourth is the first once more
    closed = [each for each in CANDIDATES if each.kind in ("ridge", "lda", "centroid")]
    together = fit_candidates(FeatureStream.of_matrix(X), fits, closed)
    monkeypatch.setattr(fit, "matrices_at_once", lambda width: 1)
    one_by_one = fit_candidates(FeatureStream.of_matrix(X), fits, closed)
    for few, many in zip(one_by_one, together, strict=True):
        for a, b in zip(few, many, strict=True):
            np.testing.assert_allclose(a.coef, b.coef, rtol=1e-7, atol=1e-10)
            np.testing.assert_allclose(a.intercept, b.intercept, rtol=1e-7, atol=1e-10)


def test_features_too_wide_for_a_matrix_are_refused_before_it_is_summed(monkeypatch):
    X, y, masks = random_rows(2)
    stream, rows = FeatureStream.of_matrix(X), [FitRows(masks[0], y, 2)]
    monkeypatch.setattr(spectrum, "free_bytes", lambda: 8 * 20**2 * (1 + spectrum.BESIDE) / spectrum.MEMORY_SHARE)
    with pytest.raises(HeadError, match=r"too wide for ridge and lda(.|\n)*at most 20 numbers"):
        fit_candidates(stream, rows, [Candidate("ridge", 1.0)])
    assert fit_candidates(stream, rows, [Candidate("logreg", 1.0), Candidate("centroid", None)])


@pytest.mark.parametrize("classes", [2, 3])
def test_iterations_come_to_the_same_optimum_whatever_they_are_preconditioned_by(monkeypatch, classes):
    X, y, masks = random_rows(classes)
    stream, fits = FeatureStream.of_matrix(X), [FitRows(mask, y, classes) for mask in masks]
    some = [each for each in CANDIDATES if each.kind in ("logreg", "svm")]
    made, real = [], fit.Preconditioner
    monkeypatch.setattr(fit, "Preconditioner", lambda spectra: made.append(spectra) or real(spectra))
    common = fit_candidates(stream, fits, some)
    of_each_set = fit_candidates(stream, fits, [*some, Candidate("ridge", 1.0)])  # which takes these spectra anyway
    monkeypatch.setattr(spectrum, "WHOLE_WIDTH", D - 1)
    monkeypatch.setattr(spectrum, "MOST_VECTORS", 8)
    greatest = fit_candidates(stream, fits, some)
    assert [[each.vectors.shape[1] for each in spectra] for spectra in made] == [[D], [D] * 3, [8]]
    assert made[1][0].vectors.dtype == torch.float32
    for one, *others in zip(common, of_each_set, greatest, strict=True):
        for other in others:
            for candidate, a, b in zip(some, one, other[: len(some)], strict=True):
                assert np.abs(a.coef - b.coef).max() < 2 * ALIKE[candidate.kind] * np.abs(a.coef).max()
