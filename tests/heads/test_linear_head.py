"""A linear head has scikit-learn's manners, and gives scikit-learn's probabilities."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from pipeline.errors import HeadError
from pipeline.heads import LinearHead, SklearnHead, TorchHead, load_head, save_head

KINDS = {
    "logreg": LogisticRegression(C=0.3, tol=1e-10, max_iter=10000),
    "svm": LinearSVC(C=0.3, tol=1e-10, max_iter=100000, dual=False),
    "ridge": RidgeClassifier(alpha=1 / 0.6),
    "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2),
}


def _rows(classes, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, 400)
    X = random.normal(size=(400, 12)) + random.normal(size=(classes, 12))[y]
    return (3 * X + 20).astype(np.float32), 10 * y + 3  # classes need not be 0, 1, …


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_it_decides_as_scikit_learn_does(kind, classes):
    X, y = _rows(classes)
    head = LinearHead(kind, C=0.3, shrinkage=0.2).fit(X, y)
    theirs = make_pipeline(StandardScaler(), clone(KINDS[kind])).fit(X.astype(np.float64), y)
    assert head.classes_.tolist() == theirs.classes_.tolist()
    decisions, expected = head.decision_function(X), theirs.decision_function(X)
    np.testing.assert_allclose(decisions, expected, atol=2e-3 * np.abs(expected).max())
    assert (head.predict(X) == theirs.predict(X)).mean() > 0.995
    if hasattr(theirs, "predict_proba"):
        np.testing.assert_allclose(head.predict_proba(X), theirs.predict_proba(X), atol=2e-3)
    other, _ = _rows(classes, seed=1)
    assert np.abs(head.decision_function(other) - decisions).max() > 0.1


@pytest.mark.parametrize("kind", [*KINDS, "centroid"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_go_with_predictions_at_any_temperature(kind, classes):
    X, y = _rows(classes)
    head = LinearHead(kind).fit(X, y)
    predictions = head.predict(X)
    before = head.predict_proba(X)
    head.temperature_ = 7.0
    after = head.predict_proba(X)
    for probabilities in (before, after):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert np.array_equal(head.classes_[probabilities.argmax(axis=1)], predictions)
    assert after.max(axis=1).mean() < before.max(axis=1).mean() - 0.01
    assert np.array_equal(head.predict(X), predictions)


def test_it_is_cloned_as_any_estimator_and_fits_again():
    X, y = _rows(2)
    head = LinearHead("ridge", C=0.01).fit(X, y)
    again = clone(head)
    assert again.get_params() == {"kind": "ridge", "C": 0.01, "shrinkage": 0.1}
    assert not hasattr(again, "coef_")
    np.testing.assert_array_equal(again.fit(X, y).coef_, head.coef_)


MAKES = [LinearHead, TorchHead, lambda **settings: SklearnHead("LogisticRegression", settings)]
GRIDS = {
    LinearHead: {"C": np.asarray([1e-9, 0.1])},
    TorchHead: {"hidden_size": np.asarray([0, 8]), "max_epochs": np.asarray([1, 60])},
    MAKES[2]: {"params": [{"C": 1e-9}, {"C": 0.1}]},
}


@pytest.mark.parametrize("make", MAKES)
def test_it_goes_where_scikit_learns_classifiers_go(make, tmp_path):
    X, numbers = _rows(2)
    y = np.where(numbers == numbers.min(), "no", "yes")
    search = GridSearchCV(make(), GRIDS[make], cv=3).fit(X, y)
    assert max(search.cv_results_["mean_test_score"]) > min(search.cv_results_["mean_test_score"]) + 0.05
    assert search.score(X, y) > 0.8
    assert set(search.predict(X)) == {"no", "yes"}
    scores = cross_val_score(make_pipeline(StandardScaler(), make()), X, y, cv=3, scoring="roc_auc")
    assert scores.min() > 0.8
    save_head(search.best_estimator_, tmp_path)  # with NumPy's numbers for settings
    np.testing.assert_array_equal(load_head(tmp_path).predict(X), search.predict(X))


@pytest.mark.parametrize("make", MAKES)
def test_lists_are_features_too_and_what_is_none_is_refused(make):
    X, y = _rows(2)
    head = make().fit(X.tolist(), y.tolist())
    np.testing.assert_array_equal(head.predict(X.tolist()), make().fit(X, y).predict(X))
    with pytest.raises(NotFittedError):
        make().predict(X)
    for features, message in (
        (csr_matrix(X), "sparse"),
        (X[0], "one vector a row"),
        ([[1.0, 2.0], [3.0]], "one vector a row"),
        (X.astype(str), "one vector a row"),
    ):
        with pytest.raises(HeadError, match=message):
            head.predict(features)
        if make is not MAKES[2]:  # scikit-learn has words of its own
            with pytest.raises(HeadError, match=message):
                make().fit(features, y)
    if make is not MAKES[2]:
        with pytest.raises(HeadError, match="do not fit together") as caught:
            make().fit(X, y[:-1])
        assert (caught.value.expected, caught.value.found) == ("[400] labels", [399])


def test_wrong_settings_are_named_together():
    X, y = _rows(2)
    with pytest.raises(HeadError) as caught:
        LinearHead("perceptron", C=-1, shrinkage=2).fit(X, y)
    assert all(part in str(caught.value) for part in ("kind: ", "C: ", "shrinkage: "))


@pytest.mark.parametrize("make", [lambda: LinearHead(), lambda: SklearnHead("GaussianNB")])
def test_features_of_another_width_are_refused(make):
    X, y = _rows(2)
    head = make().fit(X, y)
    with pytest.raises(HeadError, match="of the width that") as caught:
        head.predict(X[:, :5])
    assert (caught.value.expected, caught.value.found) == ("[n, 12]", "[400, 5]")


@pytest.mark.parametrize(
    "name", ["GaussianNB", "KNeighborsClassifier", "LinearSVC", "RidgeClassifier", "SGDClassifier"]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_classifier_of_scikit_learn_has_both_kinds_of_output(name, classes):
    X, y = _rows(classes)
    head = SklearnHead(name).fit(X, y)
    decisions, probabilities = head.decision_function(X), head.predict_proba(X)
    assert decisions.shape == ((400,) if classes == 2 else (400, 3))
    assert probabilities.shape == (400, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    by_decision = (decisions > 0).astype(int) if classes == 2 else decisions.argmax(axis=1)
    assert (head.classes_[by_decision] == head.predict(X)).mean() > 0.99  # but for ties
    assert (head.predict(X) == y).mean() > 0.8
