"""Fit one head: what is chosen (a strength, when to stop) is chosen on held-out training rows, never on validation."""

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.errors import HeadError
from pipeline.heads.torch_head import TorchHead
from pipeline.results.metrics import score

STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Inverse strengths `C` of logistic regression's L2 penalty that are tried, on standardised features.

The lowest held-out log-loss decides: on few rows it is far steadier than a score that counts errors.
"""
MAX_ITER = 1000
TORCH_HEADS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"hidden_size": 0, "weight_decay": 0.1},
    "mlp": {"hidden_size": 256, "dropout": 0.3, "weight_decay": 0.1},
}


@dataclass(frozen=True)
class Fitted:
    """A fitted head.

    Args:
        head: with scikit-learn's `predict`.
        held_out: its scores on the held-out rows, which it had not been fitted on when these were taken.
        selection: what was chosen there.
    """

    head: Any
    held_out: dict[str, float]
    selection: dict[str, Any]


@dataclass(frozen=True)
class TrainingRows:
    """A task's training rows, some of them held out.

    Args:
        X: `[n, d]`.
        y: `[n]`.
        fit, held: row numbers.
    """

    X: np.ndarray
    y: np.ndarray
    fit: np.ndarray
    held: np.ndarray


def check_head(kind: str, params: Mapping[str, Any]) -> None:
    """Refuse a head that does not exist, or that has no such setting, before anything is trained.

    Raises:
        HeadError: it is so.
    """
    if kind in TORCH_HEADS:
        _with_params(TorchHead(**TORCH_HEADS[kind]), params)._check_params()
    elif kind == "logreg":
        _with_params(LogisticRegression(), params)
    else:
        _sklearn_classifier(kind, params, seed=0)


def fit_head(kind: str, rows: TrainingRows, *, params: Mapping[str, Any], seed: int) -> Fitted:
    """Fit a head of a kind.

    Args:
        kind: `logreg`, `linear`, `mlp`, or the class name of a scikit-learn classifier.
        params: settings of the head, by their scikit-learn names.
        seed: of everything random.

    Raises:
        HeadError: there is no such head, or it has no such setting.
    """
    if kind == "logreg" and "C" not in params:
        return _fit_logreg(rows, params, seed)
    if kind in TORCH_HEADS:
        return _fit_torch(kind, rows, params, seed)
    name = "LogisticRegression" if kind == "logreg" else kind
    settings = {"max_iter": MAX_ITER, **params} if kind == "logreg" else params
    return _fit_sklearn(name, rows, settings, seed)


def _fit_logreg(rows: TrainingRows, params: Mapping[str, Any], seed: int) -> Fitted:
    scaler = StandardScaler().fit(rows.X[rows.fit])
    X_fit, X_held = scaler.transform(rows.X[rows.fit]), scaler.transform(rows.X[rows.held])
    losses: dict[float, float] = {}
    held_out: dict[float, dict[str, float]] = {}
    search = _with_params(LogisticRegression(max_iter=MAX_ITER, warm_start=True, random_state=seed), params)
    for C in STRENGTHS:  # each begins where the stronger penalty before it ended
        _fit_quietly(search.set_params(C=C), X_fit, rows.y[rows.fit])
        probabilities = search.predict_proba(X_held)
        losses[C] = float(log_loss(rows.y[rows.held], probabilities, labels=search.classes_))
        held_out[C] = score(rows.y[rows.held], search.classes_[probabilities.argmax(axis=1)])
    best = min(STRENGTHS, key=lambda C: losses[C])
    final = LogisticRegression(C=best, max_iter=MAX_ITER, random_state=seed)
    head = _fit_quietly(make_pipeline(StandardScaler(), _with_params(final, params)), rows.X, rows.y)
    return Fitted(head, held_out[best], {"C": best, "tried": len(STRENGTHS)})


def _fit_torch(kind: str, rows: TrainingRows, params: Mapping[str, Any], seed: int) -> Fitted:
    head = _with_params(TorchHead(**TORCH_HEADS[kind], random_state=seed), params)
    head.fit(rows.X[rows.fit], rows.y[rows.fit], rows.X[rows.held], rows.y[rows.held])
    held_out = score(rows.y[rows.held], head.predict(rows.X[rows.held]))
    return Fitted(head, held_out, {"epochs": head.best_epoch_, "tried": len(head.losses_)})


def _fit_sklearn(name: str, rows: TrainingRows, params: Mapping[str, Any], seed: int) -> Fitted:
    trial = _sklearn_classifier(name, params, seed)
    _fit_quietly(trial, rows.X[rows.fit], rows.y[rows.fit])
    held_out = score(rows.y[rows.held], trial.predict(rows.X[rows.held]))
    head = _fit_quietly(_sklearn_classifier(name, params, seed), rows.X, rows.y)
    return Fitted(head, held_out, {"tried": 1})


def fit_sklearn(name: str, X: np.ndarray, y: np.ndarray, *, seed: int = 0) -> Any:
    """A scikit-learn classifier by its class name, on standardised features, fitted on `X` `[n, d]`, `y` `[n]`.

    Raises:
        HeadError: there is no such classifier, or it refuses.
    """
    return _fit_quietly(_sklearn_classifier(name, {}, seed), X, y)


def _sklearn_classifier(name: str, params: Mapping[str, Any], seed: int) -> Pipeline:
    from sklearn.utils import all_estimators

    known: dict[str, type[ClassifierMixin]] = dict(all_estimators(type_filter="classifier"))
    if name not in known:
        near = difflib.get_close_matches(name, ["logreg", *TORCH_HEADS, *known], n=1)
        raise HeadError(
            "no such head",
            where="heads",
            expected=f"logreg | {' | '.join(TORCH_HEADS)} | a scikit-learn classifier, such as LinearSVC",
            found=name,
            remedy=f"did you mean {near[0]}?" if near else None,
        )
    try:
        classifier = known[name]()
    except TypeError as error:
        raise HeadError("this classifier needs another one inside it", where=name, found=error) from error
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=seed)
    return make_pipeline(StandardScaler(), _with_params(classifier, params))


def _with_params(head: Any, params: Mapping[str, Any]) -> Any:
    if unknown := set(params) - set(head.get_params()):
        raise HeadError(
            "the head has no such setting",
            where=type(head).__name__,
            expected=", ".join(sorted(head.get_params())),
            found=", ".join(sorted(unknown)),
        )
    return head.set_params(**params)


def _fit_quietly(head: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """Fit; a value that the classifier refuses, or too few iterations, is an error in the project's words."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            head.fit(X, y)
        except (ValueError, TypeError) as error:
            raise HeadError("the classifier refuses", where=type(head).__name__, found=error) from error
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            from pipeline.progress import say

            name = type(head[-1] if isinstance(head, Pipeline) else head).__name__
            say(f"note: {name} stopped before it converged: {str(warning.message).splitlines()[0]}")
    return head
