"""Metrics of many samples at once: of tables that count predictions, and of rows that count several times."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import ConfigError
from pipeline.results.calibration import confidence_gaps, with_sum_one

COUNTED = ("mcc", "accuracy", "balanced_accuracy", "f1")
"""Metrics of predicted classes: the table of true and predicted classes is all that they need."""
METRIC_NAMES = {"mcc": "MCC", "accuracy": "accuracy", "f1": "F1"}
"""What people call those that a task can be decided by."""
OF_PROBABILITIES = ("auroc", "log_loss", "ece")

Statistic = Callable[[np.ndarray], np.ndarray]
"""How often each of `k` cells or rows counts, `[m, k]` float64, to `m` values."""


def check_metric(metric: str) -> None:
    """Refuse a metric that there is not.

    Raises:
        ConfigError: it is so.
    """
    if metric not in (*COUNTED, *OF_PROBABILITIES):
        raise ConfigError(
            "there is no such metric",
            where="metric",
            expected=" | ".join((*COUNTED, *OF_PROBABILITIES)),
            found=metric,
        )


def metric_of_counts(metric: str, counts: np.ndarray) -> np.ndarray:
    """A metric of predicted classes, as `score` has it, of many tables of counts.

    Args:
        metric: one of `COUNTED`.
        counts: `[m, c, c]` rows by true and predicted class; no table is empty.

    Returns:
        `[m]` float64.
    """
    counts = np.asarray(counts, dtype=np.float64)
    hits = np.einsum("mii->mi", counts)
    of_class, predicted = counts.sum(axis=2), counts.sum(axis=1)
    rows, right = of_class.sum(axis=1), hits.sum(axis=1)
    if metric == "accuracy":
        return np.asarray(right / rows)
    if metric == "balanced_accuracy":
        return _mean_where(hits, of_class)
    if metric == "f1":
        if counts.shape[1] == 2:
            return _mean_where(2 * hits[:, 1:], (of_class + predicted)[:, 1:])
        return _mean_where(2 * hits, of_class + predicted)
    if metric == "mcc":
        covariance = right * rows - (of_class * predicted).sum(axis=1)
        spreads = [rows**2 - (sums**2).sum(axis=1) for sums in (of_class, predicted)]
        return _ratio(covariance, np.sqrt(spreads[0] * spreads[1]))  # one root: 1 is then 1 to the bit
    raise ConfigError("no metric of predicted classes", where="metric", expected=" | ".join(COUNTED), found=metric)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient that is 0 where there is nothing to divide by."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def _mean_where(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The mean quotient over the classes `[m, c]` that have something to divide by; 0 where none has."""
    return _ratio(_ratio(above, below).sum(axis=1), (below > 0).sum(axis=1).astype(np.float64))


def tables_of(counts: np.ndarray, places: np.ndarray, classes: int) -> np.ndarray:
    """Counts of cells `[m, k]` as tables `[m, c, c]`.

    Args:
        places: `[k]` a cell's place in the table, row by row; cells of one place are added.
    """
    tables = np.zeros((len(counts), classes * classes))
    for column, place in enumerate(places):
        tables[:, place] += counts[:, column]
    return tables.reshape(-1, classes, classes)


def weighted_metric(metric: str, y: np.ndarray, probabilities: np.ndarray) -> Statistic:
    """A metric of probabilities, as `score_probabilities` has it, of rows that count several times or not at all.

    Args:
        metric: one of `OF_PROBABILITIES`.
        y: `[n]` true classes.
        probabilities: `[n, c]`.

    Returns:
        What makes `[m]` values of weights `[m, n]`; NaN for an AUROC of rows that are all of one class.
    """
    if metric == "auroc":
        of = [1] if probabilities.shape[1] == 2 else np.unique(y).tolist()
        parts = [_weighted_auroc(y == label, probabilities[:, label]) for label in of]
        return lambda weights: _mean_of_defined(np.stack([part(weights) for part in parts]))
    if metric == "log_loss":
        epsilon = np.finfo(np.float64).eps
        true = np.take_along_axis(with_sum_one(probabilities), y[:, None], axis=1)[:, 0]
        losses = -np.log(np.clip(true, epsilon, 1 - epsilon))
        return lambda weights: (weights @ losses) / weights.sum(axis=1)
    if metric == "ece":
        gaps = confidence_gaps(y, probabilities)
        return lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
    raise ConfigError("no metric of probabilities", where="metric", expected=" | ".join(OF_PROBABILITIES), found=metric)


def _weighted_auroc(positive: np.ndarray, scores: np.ndarray) -> Statistic:
    order = np.argsort(scores, kind="stable")
    ranked, of_class = scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # rows with equal scores are ranked together

    def auroc(weights: np.ndarray) -> np.ndarray:
        in_order = weights[:, order]
        positives = np.add.reduceat(in_order * of_class, starts, axis=1)
        negatives = np.add.reduceat(in_order * (1 - of_class), starts, axis=1)
        won = (positives * (negatives.cumsum(axis=1) - negatives / 2)).sum(axis=1)
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return np.asarray(np.divide(won, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0))

    return auroc


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where all is."""
    defined = ~np.isnan(values)
    number = defined.sum(axis=0)
    sums = np.where(defined, values, 0.0).sum(axis=0)
    return np.asarray(np.divide(sums, number, out=np.full_like(sums, np.nan), where=number > 0))
