"""A task's splits scored one by one: what every run enters, whatever predicted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.digests import sha256_of_texts
from pipeline.results.breakdown import score_domains, score_sources
from pipeline.results.entering import predictions_table
from pipeline.results.intervals import bootstrap_interval
from pipeline.results.metrics import majority_class, score, score_probabilities

WITH_INTERVAL = ("mcc", "accuracy", "f1")
"""What can decide a task."""


class ScoredSplits:
    """The scores and predictions of one task.

    Args:
        task: its name.
        labels: how many it has.
        y: `[n]` int64 labels of the training rows, whose most frequent class is the baseline.
        sources: `[n]` codes of where the training rows are from, or None where nobody says.

    Attributes:
        scores, baseline: by split, of the predictions and of that class; splits without labels have none.
        statistics: by split, the digest of its `texts`, `intervals` of scores, and where sources are known the scores
            of `sources` and `domains`.
        tables: of predictions, one a split.
    """

    def __init__(self, task: str, labels: int, y: np.ndarray, sources: Sequence[str | None] | None = None) -> None:
        self._task, self._labels, self._majority = task, labels, majority_class(y)
        self._trained_on = {source for source in sources or () if source}
        self.scores: dict[str, dict[str, float]] = {}
        self.baseline: dict[str, dict[str, float]] = {}
        self.statistics: dict[str, dict[str, Any]] = {}
        self.tables: list[Any] = []

    def add(
        self,
        split: str,
        sample_ids: np.ndarray,
        texts: Sequence[str],
        y: np.ndarray | None,
        predictions: np.ndarray,
        probabilities: np.ndarray | None,
        classes: np.ndarray,
        sources: Sequence[str | None] | None = None,
    ) -> None:
        """One more split.

        Args:
            sample_ids: `[m]` the examples' own numbers.
            texts: `[m]` the sentences.
            y: `[m]` labels, or None.
            predictions: `[m]` int64 classes.
            probabilities: `[m, c]`, or None where there are none.
            classes: `[c]` which classes these are of; all others have none.
            sources: `[m]` codes of where the rows are from, or None.
        """
        if probabilities is not None:
            probabilities = over_labels(probabilities, classes, self._labels)
        if y is not None:
            self.scores[split] = score(y, predictions)
            if probabilities is not None:
                self.scores[split] |= score_probabilities(y, probabilities)
            self.baseline[split] = score(y, np.full_like(y, self._majority))
            self.statistics[split] = {
                "texts": f"sha256:{sha256_of_texts(texts)}",
                **self._statistics(y, predictions, sources),
            }
        self.tables.append(
            predictions_table(
                task=self._task,
                split=split,
                sample_ids=sample_ids,
                texts=texts,
                y=y,
                predictions=predictions,
                probabilities=probabilities,
                sources=sources,
            )
        )

    def _statistics(
        self, y: np.ndarray, predictions: np.ndarray, sources: Sequence[str | None] | None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "intervals": {name: bootstrap_interval(name, y, predictions).to_dict() for name in WITH_INTERVAL}
        }
        if sources is not None and any(sources):
            found["sources"] = score_sources(y, predictions, sources)
            if self._trained_on:
                found["domains"] = score_domains(y, predictions, sources, self._trained_on)
        return found


def over_labels(probabilities: np.ndarray, classes: np.ndarray, labels: int) -> np.ndarray:
    """Probabilities `[m, c]` of some classes `[c]` as `[m, labels]` float64 over all of a task's labels."""
    found = np.zeros((len(probabilities), labels))
    found[:, classes] = probabilities
    return found
