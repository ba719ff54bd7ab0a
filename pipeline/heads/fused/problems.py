"""Many penalised linear problems on one stream: their objective and gradient, all of them from one read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.heads.fused.moments import FitRows, Moments
from pipeline.heads.fused.objectives import Loss
from pipeline.heads.fused.stream import F32, F64, FeatureStream

FAR = 8.0
"""Features whose mean is more than so many standard deviations from zero are centred before they are multiplied."""


@dataclass(frozen=True)
class Problem:
    """One head to be fitted: `mean(loss) + penalty / 2 * |weights|^2` over its rows, standardised by them.

    Args:
        rows: the number of its rows among those of the `Problems`.
        head: which of a loss's heads.
        penalty: positive.
    """

    rows: int
    head: int
    penalty: float


class Problems:
    """Objective and gradient of `k` problems with `m` decision values each.

    Weights are `[d + 1, k * m]` float32 of standardised features; the last row is the intercepts.

    Args:
        stream: the features.
        loss: of the decision values.
        fits: the sets of rows, all with as many classes.
        moments: of each of them.
        problems: what to fit.
    """

    def __init__(
        self,
        stream: FeatureStream,
        loss: Loss,
        fits: Sequence[FitRows],
        moments: Sequence[Moments],
        problems: Sequence[Problem],
    ) -> None:
        self.stream, self.loss, self.problems = stream, loss, tuple(problems)
        self.classes = fits[0].classes
        self.columns = loss.columns(self.classes)
        self._rows = torch.tensor([problem.rows for problem in problems])
        self._masks = torch.from_numpy(np.stack([each.fit for each in fits], axis=1))  # [n, f]
        pairs = dict.fromkeys((problem.rows, problem.head) for problem in problems)
        self._targets = torch.stack(
            [loss.targets(torch.from_numpy(fits[rows].y), self.classes, head) for rows, head in pairs], dim=1
        )  # [n, pairs, m]
        self._pairs = torch.tensor([list(pairs).index((problem.rows, problem.head)) for problem in problems])
        self._penalties = torch.tensor([problem.penalty for problem in problems], dtype=F64)
        self._n = torch.tensor([float(moments[problem.rows].rows) for problem in problems], dtype=F64)
        self._mean = torch.stack([each.mean for each in moments], dim=1)  # [d, f]
        self._scale = torch.stack([each.scale for each in moments], dim=1)
        self._varies = torch.stack([each.varies for each in moments], dim=1)
        first = moments[0]
        is_far = bool(((first.mean.abs() > FAR * first.scale) & first.varies).any())
        self._shift = first.mean.to(F32) if is_far else None

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def penalties(self) -> torch.Tensor:
        """`[k * m]` float64, of each column."""
        return self._penalties.repeat_interleave(self.columns)

    @property
    def rows(self) -> torch.Tensor:
        """`[k * m]` int64, the number of the set of rows that each column is of."""
        return self._rows.repeat_interleave(self.columns)

    def some(self, which: torch.Tensor) -> "Problems":
        """Only some of the problems, `[k]` bool."""
        fewer = object.__new__(Problems)
        fewer.__dict__.update(self.__dict__)
        fewer.problems = tuple(each for each, keep in zip(self.problems, which.tolist(), strict=True) if keep)
        for name in ("_rows", "_pairs", "_penalties", "_n"):
            setattr(fewer, name, getattr(self, name)[which])
        return fewer

    def evaluate(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One read of the features.

        Returns:
            each problem's objective `[k]` float64, and its gradient `[d + 1, k * m]` float64.
        """
        raw, offsets = self._on_raw_features(weights)
        summed = torch.zeros(raw.shape, dtype=F64)
        slopes = torch.zeros(raw.shape[1], dtype=F64)
        losses = torch.zeros(len(self), dtype=F64)
        for rows, block in self.stream.blocks():
            if self._shift is not None:
                block = block - self._shift
            decisions = torch.addmm(offsets, block, raw).view(len(block), len(self), self.columns)
            masks = self._masks[rows].to(F32)[:, self._rows]
            loss, slope = self.loss.on_block(decisions, self._targets[rows][:, self._pairs], masks)
            slope = slope.reshape(len(block), -1)
            losses += loss
            summed += (block.T @ slope).to(F64)
            slopes += slope.sum(dim=0, dtype=F64)
        return self._penalised(weights, losses, summed, slopes)

    def _on_raw_features(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same decisions as products with features that are not standardised, `[d, k * m]`, and offsets."""
        raw = (weights[:-1].to(F64) / self._of_columns(self._scale)) * self._of_columns(self._varies)
        raw = raw.to(F32)
        offsets = weights[-1].to(F64) - (self._centre() * raw).sum(dim=0)
        return raw, offsets.to(F32)

    def _penalised(
        self, weights: torch.Tensor, losses: torch.Tensor, summed: torch.Tensor, slopes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        of_features = (
            (summed - self._centre() * slopes) / self._of_columns(self._scale) * self._of_columns(self._varies)
        )
        gradient = torch.cat([of_features, slopes[None]]) / self._n.repeat_interleave(self.columns)
        penalised = weights.to(F64)
        if not self.loss.penalises_intercept:
            penalised[-1] = 0.0
        gradient += self.penalties * penalised
        squares = penalised.square().sum(dim=0).view(len(self), self.columns).sum(dim=1)
        return losses / self._n + 0.5 * self._penalties * squares, gradient

    def _centre(self) -> torch.Tensor:
        shift = 0.0 if self._shift is None else self._shift.to(F64)[:, None]
        return self._of_columns(self._mean - shift)

    def _of_columns(self, of_rows: torch.Tensor) -> torch.Tensor:
        """What is known by set of rows `[d, f]`, by column `[d, k * m]`."""
        return of_rows[:, self.rows]
