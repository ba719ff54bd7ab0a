"""How sure a share of few rows is."""

import numpy as np
from scipy.special import ndtri

from pipeline.results.intervals import LEVEL


def wilson_interval(right: int, rows: int, level: float = LEVEL) -> tuple[float, float]:
    """The ends of Wilson's score interval of a share, which holds also for few rows, and where none or all are right.

    Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.

    Args:
        right: how many of the rows.
        rows: how many, at least one.
        level: how often such an interval holds the true share.
    """
    z = float(ndtri((1 + level) / 2))
    share = right / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * float(np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)))
    return max(0.0, middle - half), min(1.0, middle + half)
