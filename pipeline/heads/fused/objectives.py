"""The convex objectives of linear heads: loss and slope of many heads on a block of rows."""

from typing import Protocol

import torch
from torch.nn import functional

from pipeline.heads.fused.stream import F64


class Loss(Protocol):
    """A loss that is convex in the decision values."""

    curvature: float
    """About the mean second derivative by a decision value: where a preconditioner begins."""
    penalises_intercept: bool

    def columns(self, classes: int) -> int:
        """Decision values a head, `m`."""

    def heads(self, classes: int) -> int:
        """Heads that are trained apart from each other for one task: one for each class, or one for all."""

    def targets(self, y: torch.Tensor, classes: int, head: int) -> torch.Tensor:
        """What a head is to say, `[n, m]` float32, of classes `y` `[n]`."""

    def on_block(
        self, decisions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and slope on some rows.

        Args:
            decisions, targets: `[b, k, m]`; the decisions may be overwritten.
            weights: `[b, k]`, 1 for a row that the head is fitted on, else 0.

        Returns:
            the summed loss `[k]` float64, and its derivative by each decision `[b, k, m]`.
        """


class Logistic:
    """The log-loss: of one decision value for two classes, of `c` (multinomial) for more.

    As scikit-learn's `LogisticRegression`: the intercept bears no penalty.
    """

    curvature = 0.25
    penalises_intercept = False

    def columns(self, classes: int) -> int:
        """One for two classes, else one a class."""
        return 1 if classes == 2 else classes

    def heads(self, classes: int) -> int:
        """One: the classes are learned together."""
        return 1

    def targets(self, y: torch.Tensor, classes: int, head: int) -> torch.Tensor:
        """0 or 1 for two classes, else one-hot rows."""
        return y[:, None].float() if classes == 2 else functional.one_hot(y, classes).float()

    def on_block(
        self, decisions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and slope on some rows."""
        if decisions.shape[2] == 1:
            z, t = decisions[..., 0], targets[..., 0]
            loss = functional.softplus(z).addcmul_(z, t, value=-1.0).mul_(weights)
            slope = torch.sigmoid(z).sub_(t).mul_(weights)
            return loss.sum(dim=0, dtype=F64), slope[..., None]
        normaliser = torch.logsumexp(decisions, dim=2)
        loss = (normaliser - (decisions * targets).sum(dim=2)).mul_(weights)
        slope = torch.softmax(decisions, dim=2).sub_(targets).mul_(weights[..., None])
        return loss.sum(dim=0, dtype=F64), slope


class SquaredHinge:
    """The squared hinge loss, one class against the rest, as scikit-learn's `LinearSVC`: the intercept is penalised."""

    curvature = 1.0
    penalises_intercept = True

    def columns(self, classes: int) -> int:
        """One."""
        return 1

    def heads(self, classes: int) -> int:
        """One for two classes, else one a class."""
        return 1 if classes == 2 else classes

    def targets(self, y: torch.Tensor, classes: int, head: int) -> torch.Tensor:
        """1 for the head's own class, which of two is the second, else -1."""
        own = 1 if classes == 2 else head
        return (2.0 * (y == own).float() - 1.0)[:, None]

    def on_block(
        self, decisions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and slope on some rows."""
        short = (1.0 - decisions * targets).clamp_min_(0.0).mul_(weights[..., None])
        return short.square().sum(dim=(0, 2), dtype=F64), (short * targets).mul_(-2.0)
