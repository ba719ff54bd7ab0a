"""The Pareto front: what nothing else beats in cost and in score at once."""

from collections.abc import Sequence

import numpy as np


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Which points no other dominates: one that costs no more and scores no less, and is better in one of both.

    Points that are alike in both are on the front together. A point whose cost or score is not a number is never on it,
    and dominates none.

    Args:
        costs: `[n]` the less the better.
        scores: `[n]` the more the better.

    Returns:
        `[n]` whether each is on the front, in the order given.

    Raises:
        ValueError: there are not as many scores as costs.
    """
    if len(costs) != len(scores):
        raise ValueError(f"expected as many scores as costs, {len(costs)}, found {len(scores)}")
    cost, score = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = ~(np.isnan(cost) | np.isnan(score))
    front = np.zeros(len(cost), dtype=bool)
    best, last = -np.inf, -np.inf  # the best score so far, and what it cost
    for place in np.lexsort((-score, cost)):  # from the cheapest on, of equal costs the best first
        if known[place] and (score[place] > best or (score[place] == best and cost[place] == last) or not front.any()):
            front[place] = True
            best, last = score[place], cost[place]
    return [bool(each) for each in front]
