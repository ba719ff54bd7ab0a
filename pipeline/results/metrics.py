"""The one scoring function: of predicted classes, and of their probabilities."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef, recall_score, roc_auc_score

from pipeline.results.calibration import expected_calibration_error, with_sum_one


def score(y: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Score predicted classes.

    Args:
        y: `[n]` int64 true classes.
        predictions: `[n]` int64 predicted classes.

    Returns:
        `mcc` (Matthews correlation, 0 where only one class is predicted), `accuracy`, `balanced_accuracy` (the mean
        recall of the classes in `y`), and `f1`: of class 1 for two classes, as GLUE has it; the macro mean for more.
    """
    average = "binary" if max(y.max(), predictions.max()) <= 1 else "macro"
    one_class = len(np.union1d(y, predictions)) < 2
    # balanced_accuracy_score is this, with a warning where a class is predicted that no row has
    recall = recall_score(y, predictions, labels=np.unique(y), average="macro", zero_division=0.0)
    return {
        "mcc": 0.0 if one_class else float(matthews_corrcoef(y, predictions)),
        "accuracy": float(accuracy_score(y, predictions)),
        "balanced_accuracy": float(recall),
        "f1": float(f1_score(y, predictions, average=average, zero_division=0.0)),
    }


def score_probabilities(y: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score probabilities.

    Args:
        y: `[n]` int64 true classes.
        probabilities: `[n, c]` over all labels of a task; those of a class that a head does not know are 0.

    Returns:
        `auroc` (of two labels, of class 1; of more, the mean over the classes in `y` of each against the rest; left
        out where `y` holds one class only), `log_loss`, and `ece` (`expected_calibration_error`). Nothing where a
        probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        return {}
    found, present = {}, np.unique(y)
    if len(present) > 1:
        of = [1] if probabilities.shape[1] == 2 else present
        found["auroc"] = float(np.mean([roc_auc_score(y == label, probabilities[:, label]) for label in of]))
    labels = np.arange(probabilities.shape[1])
    found["log_loss"] = float(log_loss(y, with_sum_one(probabilities), labels=labels))
    found["ece"] = expected_calibration_error(y, probabilities)
    return found


def majority_class(y: np.ndarray) -> int:
    """The most frequent class of `[n]` labels; the lower number where two are equal."""
    return int(np.bincount(y).argmax())
