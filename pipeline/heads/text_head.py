"""What the words alone say: TF-IDF of n-grams and logistic regression, on the texts that lie beside the features."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from pipeline.heads.selection import Selected, as_selected, best_of
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.results.calibration import fit_temperature
from pipeline.results.metrics import score
from pipeline.threads import limited_threads

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths `C` of the penalty that are tried."""
TOKENS = r"\w+|[^\w\s]"
"""Words of any length, and marks one by one: what is left out by default (a, I, ?) matters in short sentences."""
SOLVER: Mapping[str, Any] = {"solver": "newton-cg", "tol": 1e-6, "max_iter": 200}
"""The default one stops so early on these features that predictions differ with the number of threads; this one is at
the optimum sooner."""


def text_pipeline(C: float) -> Pipeline:
    """scikit-learn's pipeline from texts `[n, 1]` to classes: TF-IDF of words and pairs of words, their logarithm
    taken, and logistic regression.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKENS)
    classifier = LogisticRegression(C=C, **SOLVER)
    # a column's transformer makes of it a classifier of [n, 1], which is stored and loaded as any other
    return make_pipeline(ColumnTransformer([("words", words, 0)]), classifier)


def text_column(texts: Sequence[str]) -> np.ndarray:
    """Texts as one column, `[n, 1]` of Python's str."""
    column = np.empty((len(texts), 1), dtype=object)
    column[:, 0] = texts
    return column


def select_text_head(
    texts: Sequence[str],
    y: np.ndarray,
    fits: Sequence[np.ndarray],
    counts: np.ndarray,
    metric: str,
    strengths: Sequence[float] = STRENGTHS,
) -> Selected:
    """Choose `C` by the mean score on rows held out, of equals the smaller, and fit it on all rows.

    The vocabulary and the weights of its words come from the rows that are fitted on, each time.

    Args:
        texts, y: `[n]` the training rows.
        fits: `[n]` bool each, the rows to fit on; the others are held out. One for each way of holding out.
        counts: `[n]` bool, the rows that count where they are held out.
        metric: what decides.
        strengths: what is tried.
    """
    # the solver's short products on long vectors take ten times as long where several threads share them
    with limited_threads(1):
        return _select(texts, y, fits, counts, metric, sorted(strengths))


def _select(
    texts: Sequence[str],
    y: np.ndarray,
    fits: Sequence[np.ndarray],
    counts: np.ndarray,
    metric: str,
    strengths: Sequence[float],
) -> Selected:
    began, X = time.monotonic(), text_column(texts)
    scores: list[list[dict[str, float]]] = [[] for _ in strengths]
    decisions: list[list[np.ndarray]] = [[] for _ in strengths]
    for fit in fits:
        scored = ~fit & counts
        words = text_pipeline(1.0)[0]
        seen, unseen = words.fit_transform(X[fit]), words.transform(X[scored])
        for place, C in enumerate(strengths):
            classifier = text_pipeline(C)[1].fit(seen, y[fit])
            scores[place].append(score(y[scored], classifier.predict(unseen)))
            decisions[place].append(classifier.decision_function(unseen))
    best = best_of(scores, metric)
    pipeline = text_pipeline(strengths[best]).fit(X, y)
    held = np.concatenate([y[~fit & counts] for fit in fits])
    temperature = fit_temperature(np.concatenate(decisions[best]), held, pipeline.classes_)
    head = SklearnHead.of(pipeline, temperature)
    seconds = time.monotonic() - began
    return as_selected(strengths[best], head, len(strengths), scores[best], metric, seconds)
