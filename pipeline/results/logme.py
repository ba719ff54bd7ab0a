"""LogME: how well features would transfer to a task, from the features and labels alone, without training a head."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr, svd

from pipeline.errors import RunError

TOLERANCE = 1e-10
"""Relative change of alpha / beta at which the iteration has arrived."""
MOST_STEPS = 2000
BOUNDS = (1e-14, 1e14)
"""Of alpha / beta, over the features' mean squared singular value: where an optimum at 0 or infinity ends."""


@dataclass(frozen=True)
class _Spectrum:
    """Features and labels after one decomposition: all that the evidence depends on.

    Args:
        squares: `[k]` squared singular values of the features, those above rounding.
        projected: `[k, c]` squares of the labels' coordinates along the left singular vectors.
        beyond: `[c]` the squared length of the labels that the features cannot reach.
        rows: `n`.
    """

    squares: np.ndarray
    projected: np.ndarray
    beyond: np.ndarray
    rows: int


def logme(X: np.ndarray, y: np.ndarray) -> float:
    """The maximum log evidence of a Bayesian linear model on features, a row and class: the higher, the better.

    For each class, labels `t` (1 for its rows, else 0) are modelled as `t ~ N(X w, 1/beta)` with `w ~ N(0, I/alpha)`.
    Integrated over the weights `w`,

        log p(t | X, alpha, beta) = n/2 log beta + d/2 log alpha - n/2 log 2 pi
                                    - beta/2 |X m - t|^2 - alpha/2 |m|^2 - 1/2 log |A|,
        A = alpha I + beta X^T X,   m = beta A^-1 X^T t,

    which is maximised over alpha and beta; LogME is the mean of the maxima over the classes, divided by `n` (You et
    al., 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", arXiv:2102.11005). Both are
    found by iterating the fixed point of their ratio (You et al., 2022, "Ranking and Tuning Pre-trained Models: A New
    Paradigm for Exploiting Model Hubs", arXiv:2110.10545):

        alpha/beta <- (gamma / (n - gamma)) |X m - t|^2 / |m|^2,   gamma = sum s^2 / (alpha/beta + s^2),

    over the singular values `s` of `X`, which are computed once. The features are taken as they are, without intercept
    and not standardised; neither a rotation of them nor one scale for all of them changes the result.

    Args:
        X: `[n, d]` features, with `n` above or below `d`.
        y: `[n]` class numbers.

    Raises:
        RunError: there are not as many labels as rows, fewer than two classes, or a value that is not finite.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
    classes = np.unique(y)
    if X.ndim != 2 or y.shape != X.shape[:1] or len(classes) < 2:
        raise RunError(
            "LogME is not defined for these features",
            expected="finite features [n, d] and n labels of two or more classes",
            found=f"features {list(X.shape)}, labels {list(y.shape)} of {len(classes)} classes",
        )
    if not (finite := np.isfinite(X)).all():
        row, column = np.argwhere(~finite)[0]
        raise RunError(
            "LogME is not defined for these features",
            where=f"row {row}, column {column}",
            expected="finite features",
            found=f"{X[row, column]}, the first of {(~finite).sum():,} that are not",
            remedy="pipeline cache verify --deep finds the file that has it",
        )
    spectrum = _decompose(X, (y[:, None] == classes).astype(np.float64))
    return float(np.mean([_evidence(spectrum, place) for place in range(len(classes))])) / len(y)


def _decompose(X: np.ndarray, targets: np.ndarray) -> _Spectrum:
    n, d = X.shape
    beyond = np.zeros(targets.shape[1])
    if n > d + len(beyond):  # what matters of tall features is a triangle of d rows, and what lies outside their span
        (triangle,) = qr(np.concatenate([X, targets], axis=1), mode="r", overwrite_a=True, check_finite=False)
        beyond = (triangle[d:, d:] ** 2).sum(axis=0)
        X, targets = triangle[:d, :d], triangle[:d, d:]
    vectors, values, _ = svd(X, full_matrices=False, check_finite=False)
    kept = values > values[0] * max(n, d) * np.finfo(np.float64).eps
    projected = (vectors[:, kept].T @ targets) ** 2
    if kept.sum() < len(X):  # else the features reach all of it, and what is left is rounding
        beyond = beyond + np.maximum((targets**2).sum(axis=0) - projected.sum(axis=0), 0.0)
    return _Spectrum(values[kept] ** 2, projected, beyond, n)


def _evidence(spectrum: _Spectrum, place: int) -> float:
    """The maximum log evidence of one class's labels.

    With `r = alpha / beta` known, the best beta is `n / q`, where `q = |X m - t|^2 + r |m|^2`; both norms are sums over
    the singular values.
    """
    squares, projected, beyond, n = (
        spectrum.squares,
        spectrum.projected[:, place],
        spectrum.beyond[place],
        spectrum.rows,
    )
    unit = squares.mean() if len(squares) else 1.0
    ratio = unit
    for _ in range(MOST_STEPS):
        shrunk = ratio + squares
        error = (projected * (ratio / shrunk) ** 2).sum() + beyond
        length = (projected * squares / shrunk**2).sum()
        gamma = (squares / shrunk).sum()
        left = (ratio / shrunk).sum() + (n - len(squares))  # n - gamma, without cancellation
        found = gamma / left * error / length if length > 0 else np.inf
        before, ratio = ratio, float(np.clip(found, BOUNDS[0] * unit, BOUNDS[1] * unit))
        if abs(ratio - before) <= TOLERANCE * before:
            break
    q = (projected * ratio / (ratio + squares)).sum() + beyond
    return float(n / 2 * (np.log(n / q) - 1 - np.log(2 * np.pi)) - np.log1p(squares / ratio).sum() / 2)
