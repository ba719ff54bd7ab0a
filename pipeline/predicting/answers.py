"""What a run says of sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answers:
    """The predictions of some sentences, in their order.

    Args:
        labels: `c` names of the classes, by their numbers.
        predictions: `[n]` int64 class numbers.
        probabilities: `[n, c]` float64, of the classes by their numbers.
    """

    labels: tuple[str, ...]
    predictions: np.ndarray
    probabilities: np.ndarray

    @property
    def names(self) -> list[str]:
        """`[n]` the predicted classes' names."""
        return [self.labels[number] for number in self.predictions]

    def records(self, texts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """One record a sentence: `sentence`, `label`, `prediction` (its number), `probabilities` by label."""
        rows = zip(texts, self.predictions.tolist(), self.probabilities.tolist(), strict=True)
        for text, prediction, probabilities in rows:
            yield {
                "sentence": text,
                "label": self.labels[prediction],
                "prediction": prediction,
                "probabilities": dict(zip(self.labels, probabilities, strict=True)),
            }
