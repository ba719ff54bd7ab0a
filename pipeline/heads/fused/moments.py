"""What is known of several sets of rows after one read of their features: counts, means, scales, class means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from pipeline.errors import HeadError
from pipeline.heads.fused.stream import F32, F64, FeatureStream


@dataclass(frozen=True)
class FitRows:
    """Rows of a stream that heads are fitted on, and what they are to learn there.

    Args:
        fit: `[n]` bool, in the stream's order.
        y: `[n]` int64 classes from 0 to `classes - 1`; each stands among the rows fitted on.
        classes: how many, `c`.
    """

    fit: np.ndarray
    y: np.ndarray
    classes: int


@dataclass(frozen=True)
class Moments:
    """Of one set of rows, in float64.

    Args:
        counts: `[c]` rows by class.
        mean: `[d]`.
        scale: `[d]` standard deviation, as scikit-learn's `StandardScaler` has it: 1 where a feature is constant.
        varies: `[d]` bool, whether a feature does.
        class_means: `[c, d]` of the standardised features.
    """

    counts: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    varies: torch.Tensor
    class_means: torch.Tensor

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.counts.sum())


def measure_moments(stream: FeatureStream, fits: Sequence[FitRows], where: str | None = None) -> list[Moments]:
    """The moments of every set of rows, in one read.

    Sums are of the features less the first block's mean, in float64: features far from zero lose nothing.

    Args:
        where: what errors call the features.

    Raises:
        HeadError: no feature varies among the rows of a set, or a value is not finite (its row and feature are named).
    """
    members = [_members(each) for each in fits]  # [c, n] each
    ends = np.cumsum([0, *(len(each) for each in members)])
    member_of = torch.from_numpy(np.concatenate(members))
    sums = torch.zeros(int(ends[-1]), stream.width, dtype=F64)
    squares = torch.zeros(len(fits), stream.width, dtype=F64)
    any_class = torch.from_numpy(np.stack([each.fit for each in fits]))
    shift = None
    for rows, block in stream.blocks():
        if shift is None:
            shift = block.mean(dim=0, dtype=F64)
        shifted = block.to(F64) - shift
        sums.addmm_(member_of[:, rows].to(F64), shifted)
        squares.addmm_(any_class[:, rows].to(F64), shifted.square_())
    assert shift is not None
    if not bool(torch.isfinite(sums).all() and torch.isfinite(squares).all()):
        _refuse_what_is_not_finite(stream, where)
    return [
        _moments_of(sums[first:stop], squares[number], torch.from_numpy(each.sum(axis=1)), shift, where)
        for number, (each, first, stop) in enumerate(zip(members, ends[:-1], ends[1:], strict=True))
    ]


def _members(rows: FitRows) -> np.ndarray:
    """`[c, n]` bool: the rows fitted on, by class."""
    return np.asarray((rows.y[None, :] == np.arange(rows.classes)[:, None]) & rows.fit[None, :])


def varies(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Whether a feature does: a deviation within float32's rounding of the mean is none."""
    return variance > (torch.finfo(F32).eps * mean.abs()).square() + torch.finfo(F64).tiny


def _refuse_what_is_not_finite(stream: FeatureStream, where: str | None) -> NoReturn:
    for rows, block in stream.blocks():
        wrong = (~torch.isfinite(block)).nonzero()
        if len(wrong):
            row, feature = wrong[0].tolist()
            place = f"row {int(stream.order[rows.start + row])}, feature {feature}"
            raise HeadError(
                "a feature is not finite",
                where=f"{where}, {place}" if where else place,
                expected="finite numbers",
                found=float(block[row, feature]),
            )
    raise AssertionError("the sums are not finite, and all features are")


def _moments_of(
    sums: torch.Tensor, squares: torch.Tensor, counts: torch.Tensor, shift: torch.Tensor, where: str | None
) -> Moments:
    n = counts.sum()
    shifted = sums.sum(dim=0) / n
    mean = shifted + shift
    variance = (squares / n - shifted.square()).clamp_min(0.0)
    varying = varies(mean, variance)
    if not bool(varying.any()):
        raise HeadError(
            "no feature varies among the training rows",
            where=where,
            expected=f"some of {len(mean)} to vary",
            found="all constant",
        )
    scale = torch.where(varying, variance.sqrt(), torch.ones_like(variance))
    class_means = (sums / counts[:, None] - shifted) / scale
    return Moments(counts.to(F64), mean, scale, varying, class_means * varying)
