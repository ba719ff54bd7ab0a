"""Whether an estimate ranks contenders as their scores do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

LEAST = 3
"""Contenders, below which a rank correlation is 1 or -1 whatever the estimate is worth."""
UNLIKELY = 0.05


@dataclass(frozen=True)
class Agreement:
    """How two rankings of the same contenders agree.

    Args:
        kendall: tau-b, from -1 to 1.
        spearman: rho, alike.
        p: how likely a tau this far from 0 is, were the two rankings independent of each other.
        contenders: how many there are.
    """

    kendall: float
    spearman: float
    p: float
    contenders: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """For people, with what so few contenders can say."""
        verdict = "which chance alone can bring about"
        if self.p < UNLIKELY:
            verdict = "unlikely by chance, were all contenders independent; forms of one backbone are not"
        return (
            f"Kendall's tau {self.kendall:+.2f}, Spearman's rho {self.spearman:+.2f} over {self.contenders} contenders "
            f"(p {self.p:.3f}: {verdict})"
        )


def rank_agreement(estimates: Sequence[float], scores: Sequence[float]) -> Agreement | None:
    """How an estimate's ranking agrees with the scores'; None where there are too few, or one of both ranks nothing.

    Args:
        estimates, scores: `[n]`, the higher the better.
    """
    if len(scores) < LEAST or len(np.unique(estimates)) < 2 or len(np.unique(scores)) < 2:
        return None
    tau, rho = kendalltau(estimates, scores), spearmanr(estimates, scores)
    return Agreement(float(tau.statistic), float(rho.statistic), float(tau.pvalue), len(scores))
