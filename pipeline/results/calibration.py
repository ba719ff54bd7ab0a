"""Do probabilities mean what they say? How far they are off, and the one number that mends most of it."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from pipeline.errors import HeadError

BINS = 15
"""Equal-width bins of confidence, as Guo et al. (2017) take them."""
TEMPERATURES = (1e-3, 1e3)
"""The coldest and the hottest temperature that is tried."""


def expected_calibration_error(y: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The mean distance between confidence and accuracy over bins of confidence, each weighted by its rows.

    Confidence is the probability of the class that is predicted, which is the most probable one. Guo et al. (2017),
    "On Calibration of Modern Neural Networks", arXiv:1706.04599.

    Args:
        y: `[n]` int64 true classes.
        probabilities: `[n, c]` of the classes 0 to c - 1.
        bins: of equal width from 0 to 1, each closed at its upper end.
    """
    return float(np.abs(confidence_gaps(y, probabilities, bins).sum(axis=0)).sum() / len(y))


def confidence_gaps(y: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """By row and bin, confidence less 1 where the row is predicted right; 0 in bins that the row is not in.

    Args:
        y, probabilities, bins: as in `expected_calibration_error`, which is made of sums over these rows.

    Returns:
        `[n, bins]` float64.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0].astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    gaps = np.zeros((len(y), bins))
    gaps[np.arange(len(y)), place] = confidence - (predicted == y)
    return gaps


def fit_temperature(decisions: np.ndarray, y: np.ndarray, classes: np.ndarray) -> float:
    """The temperature T at which `probabilities_of(decisions, T)` has the lowest log-loss on some rows.

    Guo et al. (2017), arXiv:1706.04599. The rows should not be those that the head was fitted on. The loss is convex in
    1 / T, so there is one minimum; where every row is on its right side it lies at T = 0, and where decisions say
    nothing at infinity: then what comes out is near an end of `TEMPERATURES`, times the
    decisions' spread where that is above 1. It is never worse there than T = 1.

    Args:
        decisions: `[n]` for two classes, above 0 where the second one is predicted, as scikit-learn's
            `decision_function` has it; or `[n, c]`. Finite.
        y: `[n]` true classes, all of them in `classes`.
        classes: `[c]` ascending, what the decision values are of.

    Raises:
        HeadError: a row has another class, or decision values do not go with these rows and classes.
    """
    decisions = np.asarray(decisions, dtype=np.float64)
    shapes = {(len(y), len(classes)), *([(len(y),)] if len(classes) == 2 else [])}
    if decisions.shape not in shapes or not len(y):
        raise HeadError(
            "decision values do not go with the rows and classes",
            expected=" or ".join(map(str, sorted(shapes))),
            found=decisions.shape,
        )
    if unknown := sorted(set(y.tolist()) - set(classes.tolist())):
        raise HeadError("a row to calibrate on has a class that the head does not know", found=unknown)
    if decisions.ndim == 1:
        decisions = np.stack([np.zeros_like(decisions), decisions], axis=1)
    shifted = decisions - decisions.max(axis=1, keepdims=True)
    true = np.take_along_axis(shifted, np.searchsorted(classes, y)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        coldness = np.exp(-log_temperature)
        return float((np.log(np.exp(shifted * coldness).sum(axis=1)) - true * coldness).mean())

    spread = float(np.std(shifted)) or 1.0  # decision values may be of any size
    bounds = tuple(np.log(TEMPERATURES) + np.log(max(spread, 1.0)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8, "maxiter": 500})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def probabilities_of(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """Decision values over a temperature as probabilities: logistic for two classes, softmax for more.

    No temperature changes a prediction: the most probable class is the one with the highest decision value, of equals
    the first; of two classes the second where its decision value is above 0. Where rounding would make that one's
    probability equal to another's, it gets the next larger number.

    Args:
        decisions: `[n]` or `[n, c]`, as in `fit_temperature`.
        temperature: above 0; 1 leaves the decision values as they are.

    Returns:
        `[n, c]` float64.
    """
    decisions = np.asarray(decisions, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        if decisions.ndim == 1:
            predicted = (decisions > 0).astype(np.int64)
            scaled = decisions / temperature
            probabilities = np.stack([expit(-scaled), expit(scaled)], axis=1)
        else:
            predicted = decisions.argmax(axis=1)
            weights = np.exp((decisions - decisions.max(axis=1, keepdims=True)) / temperature)
            probabilities = weights / weights.sum(axis=1, keepdims=True)
    moved = np.flatnonzero(probabilities.argmax(axis=1) != predicted)
    probabilities[moved, predicted[moved]] = np.nextafter(probabilities[moved].max(axis=1), 1.0)
    return probabilities


def with_sum_one(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `[n, c]` as float64 rows that sum to one, which those of a float32 head do but roughly."""
    wide = np.array(probabilities, dtype=np.float64)
    sums = wide.sum(axis=1, keepdims=True)
    np.divide(wide, sums, out=wide, where=sums > 0)
    return wide
