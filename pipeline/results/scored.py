"""A task's splits scored one by one: what every run enters, whatever predicted."""

from typing import Any

import numpy as np

from pipeline.results.ledger import predictions_table
from pipeline.results.metrics import majority_class, score


class ScoredSplits:
    """The scores and predictions of one task.

    Args:
        task: its name.
        labels: how many it has.
        y: `[n]` int64 labels of the training rows, whose most frequent class is the baseline.

    Attributes:
        scores, baseline: by split, of the predictions and of that class; splits without labels have none.
        tables: of predictions, one a split.
    """

    def __init__(self, task: str, labels: int, y: np.ndarray) -> None:
        self._task, self._labels, self._majority = task, labels, majority_class(y)
        self.scores: dict[str, dict[str, float]] = {}
        self.baseline: dict[str, dict[str, float]] = {}
        self.tables: list[Any] = []

    def add(
        self,
        split: str,
        sample_ids: np.ndarray,
        y: np.ndarray | None,
        predictions: np.ndarray,
        probabilities: np.ndarray | None,
        classes: np.ndarray,
    ) -> None:
        """One more split.

        Args:
            sample_ids: `[m]` the examples' own numbers.
            y: `[m]` labels, or None.
            predictions: `[m]` int64 classes.
            probabilities: `[m, c]`, or None where there are none.
            classes: `[c]` which classes these are of; all others have none.
        """
        if y is not None:
            self.scores[split] = score(y, predictions)
            self.baseline[split] = score(y, np.full_like(y, self._majority))
        self.tables.append(
            predictions_table(
                task=self._task,
                split=split,
                sample_ids=sample_ids,
                y=y,
                predictions=predictions,
                probabilities=None if probabilities is None else over_labels(probabilities, classes, self._labels),
            )
        )


def over_labels(probabilities: np.ndarray, classes: np.ndarray, labels: int) -> np.ndarray:
    """Probabilities `[m, c]` of some classes `[c]` as `[m, labels]` float64 over all of a task's labels."""
    found = np.zeros((len(probabilities), labels))
    found[:, classes] = probabilities
    return found
