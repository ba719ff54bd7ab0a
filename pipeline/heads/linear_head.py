"""A linear head: standardisation, weights and intercepts, however they were found, with scikit-learn's manners."""

import json
from numbers import Real
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import HeadError
from pipeline.heads.fused.fit import FITS, Candidate, LinearFit, fit_candidates
from pipeline.heads.fused.moments import FitRows
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.params import plain_params
from pipeline.heads.rows import as_matrix, check_decisions, check_rows
from pipeline.results.calibration import probabilities_of

TOLERANCE = 1e-9
"""Of a head that is fitted alone."""
ROWS_AT_ONCE = 4096
"""In float64; the features themselves are float32, and may be many."""
ARRAYS = ("mean", "scale", "coef", "intercept")


class LinearHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear classifier on standardised features.

    Args:
        kind: how it is fitted. `logreg`, as scikit-learn's `LogisticRegression`; `svm`, as `LinearSVC`; `ridge`, as
            `RidgeClassifier` with `alpha=1 / (2 * C)`; `lda`, as `LinearDiscriminantAnalysis(solver="lsqr")`;
            `centroid`, as `NearestCentroid`.
        C: inverse strength of the penalty of `logreg`, `svm` and `ridge`.
        shrinkage: of `lda`, from 0 to 1.

    Attributes:
        classes_: `[c]` class numbers.
        coef_: `[m, d]` float64 on standardised features; `m` is 1 for two classes, else `c`.
        intercept_: `[m]` float64.
        mean_, scale_: `[d]` float64, the standardisation; `scale_` is 1 where a feature was constant.
        temperature_: what decision values are divided by before they become probabilities: 1 until `calibrate`.
    """

    def __init__(self, kind: str = "logreg", *, C: float = 1.0, shrinkage: float = 0.1) -> None:
        self.kind = kind
        self.C = C
        self.shrinkage = shrinkage

    @classmethod
    def of(cls, candidate: Candidate, fit: LinearFit, classes: np.ndarray) -> "LinearHead":
        """A head out of what many were fitted together with."""
        head = cls(candidate.kind)
        if name := FITS[candidate.kind].strength:
            head.set_params(**{name: candidate.strength})
        return head._take(fit, classes)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on `X` `[n, d]`, `y` `[n]`.

        Raises:
            HeadError: a setting is wrong, or the rows cannot be learned from (one class, nothing varies, not finite).
        """
        self.check_params()
        name = FITS[self.kind].strength
        candidate = Candidate(self.kind, getattr(self, name) if name else None)
        X, y = np.ascontiguousarray(as_matrix(X), dtype=np.float32), np.asarray(y)
        check_rows(X, y)
        classes, numbers = np.unique(y, return_inverse=True)
        rows = FitRows(np.ones(len(y), dtype=bool), numbers.astype(np.int64), len(classes))
        return self._take(
            fit_candidates(FeatureStream.of_matrix(X), [rows], [candidate], tolerance=TOLERANCE)[0][0], classes
        )

    def check_params(self) -> None:
        """Raise one error for all settings that are wrong."""
        problems = []
        if self.kind not in FITS:
            problems.append(f"kind: expected {' | '.join(FITS)}, found {self.kind!r}")
        if not isinstance(self.C, Real) or not 0 < self.C < float("inf"):
            problems.append(f"C: expected a number above 0, found {self.C!r}")
        if not isinstance(self.shrinkage, Real) or not 0 <= self.shrinkage <= 1:
            problems.append(f"shrinkage: expected 0 to 1, found {self.shrinkage!r}")
        if problems:
            raise HeadError("the head's settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))

    def _take(self, fit: LinearFit, classes: np.ndarray) -> Self:
        self.mean_, self.scale_ = fit.mean, fit.scale
        self.coef_, self.intercept_ = fit.coef, fit.intercept
        self.classes_, self.temperature_ = np.asarray(classes), 1.0
        return self

    @property
    def n_features_in_(self) -> int:
        """Numbers a row."""
        return len(self.mean_)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Decision values of `X` `[n, d]`: `[n]` for two classes (positive is the second), else `[n, c]`.

        Raises:
            HeadError: the features have another width than those fitted on, or are not finite.
            NotFittedError: the head is not fitted.
        """
        check_is_fitted(self)
        X = as_matrix(X, len(self.mean_))
        weights = (self.coef_ / self.scale_).T
        offset = self.intercept_ - self.mean_ @ weights
        decisions = np.empty((len(X), len(offset)))
        for first in range(0, len(X), ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            decisions[some] = X[some].astype(np.float64) @ weights + offset
        return check_decisions(decisions[:, 0] if len(offset) == 1 else decisions)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities `[n, c]`: of decision values over the temperature, logistic for two classes, else softmax."""
        return probabilities_of(self.decision_function(X), self.temperature_)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Classes `[n]` of `X` `[n, d]`."""
        decisions = self.decision_function(X)
        numbers = (decisions > 0).astype(np.int64) if decisions.ndim == 1 else decisions.argmax(axis=1)
        return np.asarray(self.classes_[numbers])

    def save(self, path: Path) -> None:
        """Store the head as one safetensors file."""
        record = {"kind": "linear_model", "params": plain_params(self), "classes": self.classes_.tolist()}
        record["temperature"] = self.temperature_
        tensors = {name: np.ascontiguousarray(getattr(self, f"{name}_")) for name in ARRAYS}
        save_file(tensors, path, metadata={"head": json.dumps(record)})

    @classmethod
    def load(cls, path: Path) -> "LinearHead":
        """Read a head that `save` wrote.

        Raises:
            HeadError: the file is no such head.
        """
        try:
            with safe_open(path, framework="np") as file:
                record = json.loads((file.metadata() or {})["head"])
                arrays = {name: file.get_tensor(name) for name in ARRAYS}
            head = cls(**record["params"])
            head._take(LinearFit(**arrays), np.asarray(record["classes"]))
            head.temperature_ = float(record["temperature"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
        width, columns = len(head.mean_), 1 if len(head.classes_) == 2 else len(head.classes_)
        shapes = {"mean": (width,), "scale": (width,), "coef": (columns, width), "intercept": (columns,)}
        if found := {name: arrays[name].shape for name in ARRAYS if arrays[name].shape != shapes[name]}:
            raise HeadError("a head's arrays do not fit together", where=path, expected=shapes, found=found)
        return head
