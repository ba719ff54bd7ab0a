"""The one scoring function."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def score(y: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Score predicted classes.

    Args:
        y: `[n]` int64 true classes.
        predictions: `[n]` int64 predicted classes.

    Returns:
        `mcc` (Matthews correlation, 0 where only one class is predicted), `accuracy`, and `f1`: of class 1 for two
        classes, as GLUE has it; the macro mean for more.
    """
    average = "binary" if max(y.max(), predictions.max()) <= 1 else "macro"
    one_class = len(np.union1d(y, predictions)) < 2
    return {
        "mcc": 0.0 if one_class else float(matthews_corrcoef(y, predictions)),
        "accuracy": float(accuracy_score(y, predictions)),
        "f1": float(f1_score(y, predictions, average=average, zero_division=0.0)),
    }


def majority_class(y: np.ndarray) -> int:
    """The most frequent class of `[n]` labels; the lower number where two are equal."""
    return int(np.bincount(y).argmax())
