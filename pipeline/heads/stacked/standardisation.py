"""Means and scales of many sets of rows from one read."""

import torch

from pipeline.errors import HeadError
from pipeline.heads.fused.moments import varies
from pipeline.heads.stacked.rows import Ragged, RowSource


def measure_standardisation(data: RowSource, fit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the standard deviation of each head's rows; of ragged rows, over their positions.

    Sums are of the features less the first block's mean, in float64: features far from zero lose nothing. A deviation
    within the rounding of its own sum is none, and given as 0.

    Args:
        fit: `[K, n]` bool, the rows that each head is fitted on.

    Returns:
        `[K, d]` float64 each.

    Raises:
        HeadError: a value is not finite.
    """
    masks, which = torch.unique(fit, dim=0, return_inverse=True)
    count = torch.zeros(len(masks), 1, dtype=torch.float64)
    sums = torch.zeros(len(masks), data.width, dtype=torch.float64)
    squares = torch.zeros_like(sums)
    shift = None
    for rows, batch in data.blocks(masks.any(dim=0)):
        members = masks[:, rows]
        if isinstance(batch, Ragged):
            members, X = members[:, batch.row_of_position], batch.X
        else:
            X = batch
        if not bool((used := members.any(dim=0)).all()):
            members, X = members[:, used], X[used]
        if shift is None:
            shift = X.mean(dim=0, dtype=torch.float64)
        shifted, weights = X.double() - shift, members.double()
        count += weights.sum(dim=1, keepdim=True)
        sums.addmm_(weights, shifted)
        squares.addmm_(weights, shifted.square_())
    assert shift is not None
    if not bool(torch.isfinite(squares).all()):
        raise HeadError("a feature is not finite", expected="finite numbers")
    mean = sums / count + shift
    variance = squares / count - (sums / count).square()
    scale = torch.where(varies(mean, variance), variance.clamp_min(0.0).sqrt(), 0.0)
    return mean[which], scale[which]
