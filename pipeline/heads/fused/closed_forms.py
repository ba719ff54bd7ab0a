"""Heads that need no iterations: ridge and LDA from one decomposition for every strength, and the nearest centroid.

All in float64 on standardised features; weights are `[d, m]` and intercepts `[m]`, one column for two classes.
"""

import torch

from pipeline.heads.fused.moments import Moments
from pipeline.heads.fused.spectrum import Spectrum
from pipeline.heads.fused.stream import F64

Solution = tuple[torch.Tensor, torch.Tensor]


def ridge(moments: Moments, spectrum: Spectrum, alpha: float) -> Solution:
    """Least squares to targets of 1 and -1, as scikit-learn's `RidgeClassifier`.

    Args:
        spectrum: all eigenvectors of the correlation matrix of the rows.
        alpha: the penalty on the squared weights, beside the summed squares.
    """
    n, shares = moments.rows, moments.counts / moments.counts.sum()
    own = [1] if len(shares) == 2 else range(len(shares))
    targets = torch.stack([2.0 * torch.eye(len(shares), dtype=F64)[label] - 1.0 for label in own], dim=1)  # [c, m]
    means = shares @ targets
    covariances = (moments.class_means * shares[:, None]).T @ (targets - means)  # of features with targets
    penalties = torch.full((len(means),), alpha / n, dtype=F64)
    return spectrum.solve(covariances, 1.0, penalties), means


def lda(moments: Moments, spectrum: Spectrum, shrinkage: float) -> Solution:
    """Linear discriminant analysis, as scikit-learn's with `solver="lsqr"`.

    The classes' common covariance, `correlation - between`, is shrunk towards a multiple of the identity; its inverse
    follows from the correlation matrix's eigenvectors, of which `between` has rank `c` (Woodbury's identity).

    Args:
        spectrum: all eigenvectors of the correlation matrix of the rows.
        shrinkage: from 0 (none) to 1.
    """
    means, shares = moments.class_means, moments.counts / moments.counts.sum()
    trace = spectrum.values.sum() - (shares * means.square().sum(dim=1)).sum()
    towards = shrinkage * float(trace) / means.shape[1]
    solved = spectrum.solve(means.T.contiguous(), 1.0 - shrinkage, torch.full((len(means),), towards, dtype=F64))
    inner = torch.eye(len(means), dtype=F64) - (1.0 - shrinkage) * shares[:, None] * (means @ solved)
    weights = torch.linalg.solve(inner.T, solved.T).T
    intercepts = -0.5 * (means * weights.T).sum(dim=1) + shares.log()
    return _of_two(weights, intercepts)


def nearest_centroid(moments: Moments) -> Solution:
    """The class whose mean is nearest, as scikit-learn's `NearestCentroid`; of two, the direction is the difference of
    the means (mass-mean, Marks & Tegmark, 2023, arXiv:2310.06824).
    """
    means = moments.class_means
    return _of_two(means.T, -0.5 * means.square().sum(dim=1))


def _of_two(weights: torch.Tensor, intercepts: torch.Tensor) -> Solution:
    if len(intercepts) != 2:
        return weights, intercepts
    return weights[:, 1:] - weights[:, :1], intercepts[1:] - intercepts[:1]
