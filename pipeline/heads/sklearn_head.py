"""Any scikit-learn classifier by its class name, behind the one interface that all heads have."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import HeadError, did_you_mean
from pipeline.heads.params import with_params
from pipeline.heads.rows import as_matrix
from pipeline.results.calibration import probabilities_of

LEAST_PROBABILITY = 1e-12


class SklearnHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier on standardised features.

    What the classifier lacks is made of what it has: probabilities of decision values over a temperature, decision
    values of log-probabilities.

    Args:
        name: the class name, such as `LinearSVC`.
        params: its settings.
        random_state: where it has one.

    Attributes:
        classes_: `[c]` class numbers.
        pipeline_: the scaler and the classifier, fitted.
        temperature_: what decision values are divided by before they become probabilities.
    """

    def __init__(
        self, name: str = "LogisticRegression", params: Mapping[str, Any] | None = None, random_state: int = 0
    ) -> None:
        self.name = name
        self.params = params
        self.random_state = random_state

    @classmethod
    def of(cls, pipeline: Any, temperature: float) -> "SklearnHead":
        """A head out of a fitted pipeline."""
        classifier = pipeline[-1] if isinstance(pipeline, Pipeline) else pipeline
        head = cls(type(classifier).__name__, classifier.get_params())
        head.pipeline_, head.classes_, head.temperature_ = pipeline, pipeline.classes_, temperature
        return head

    def check(self, beside: Sequence[str] = ()) -> Pipeline:
        """The classifier behind its scaler, not fitted.

        Args:
            beside: names of other heads that the caller could have meant.

        Raises:
            HeadError: there is no such classifier, it has no such setting, or it needs another classifier inside it.
        """
        from sklearn.utils import all_estimators

        known: dict[str, type[ClassifierMixin]] = dict(all_estimators(type_filter="classifier"))
        if self.name not in known:
            raise HeadError(
                "no such head",
                where="heads",
                expected=" | ".join((*beside, "a scikit-learn classifier, such as LinearSVC")),
                found=self.name,
                remedy=did_you_mean(self.name, [*beside, *known]),
            )
        try:
            classifier = known[self.name]()
        except TypeError as error:
            raise HeadError("this classifier needs another one inside it", where=self.name, found=error) from error
        if "random_state" in classifier.get_params():
            classifier.set_params(random_state=self.random_state)
        return make_pipeline(StandardScaler(), with_params(classifier, self.params or {}))

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on `X` `[n, d]`, `y` `[n]`; too few iterations are said, and no error.

        Raises:
            HeadError: there is no such classifier, or it refuses these rows or a setting.
        """
        pipeline = self.check()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                pipeline.fit(X, y)
            except (ValueError, TypeError) as error:
                raise HeadError("the classifier refuses", where=self.name, found=error) from error
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                from pipeline.progress import say

                say(f"note: {self.name} stopped before it converged: {str(warning.message).splitlines()[0]}")
        self.pipeline_, self.classes_, self.temperature_ = pipeline, pipeline.classes_, 1.0
        return self

    @property
    def n_features_in_(self) -> int:
        """Numbers a row."""
        return int(self.pipeline_.n_features_in_)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Classes `[n]` of `X` `[n, d]`."""
        return self._ask("predict", X)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Decision values of `X` `[n, d]`: `[n]` for two classes, else `[n, c]`; of log-probabilities, if need be."""
        check_is_fitted(self)
        if hasattr(self.pipeline_, "decision_function"):
            return self._ask("decision_function", X)
        log = np.log(np.clip(self._ask("predict_proba", X), LEAST_PROBABILITY, 1.0))
        return np.asarray(log[:, 1] - log[:, 0] if log.shape[1] == 2 else log)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities `[n, c]` of `X` `[n, d]`."""
        check_is_fitted(self)
        if hasattr(self.pipeline_, "predict_proba"):
            return self._ask("predict_proba", X)
        return probabilities_of(self.decision_function(X), self.temperature_)

    def _ask(self, what: str, X: np.ndarray) -> np.ndarray:
        """What the classifier answers.

        Raises:
            HeadError: the features have another width, or it has no answer, or none that is finite.
            NotFittedError: it is not fitted.
        """
        check_is_fitted(self)
        X = as_matrix(X, self.n_features_in_, kinds="fiubO")  # texts too
        try:
            answer = np.asarray(getattr(self.pipeline_, what)(X))
        except ValueError as error:
            raise HeadError("the classifier has no answer", where=self.name, found=error) from error
        if answer.dtype.kind == "f" and not np.isfinite(answer).all():
            raise HeadError("the classifier's answers are not finite", where=f"{self.name}, {what}")
        return answer
