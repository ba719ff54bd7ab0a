"""The Pareto front against its definition, point by point."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.results.pareto import pareto_front

FEW = st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 1.0, math.inf, math.nan])
POINTS = st.lists(st.tuples(FEW | st.floats(), FEW | st.floats()), max_size=12)


@given(POINTS)
def test_it_is_what_no_other_point_dominates(points):
    def dominates(one, other):
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    expected = [
        not any(map(math.isnan, each)) and not any(dominates(other, each) for other in points) for each in points
    ]
    assert pareto_front([cost for cost, _ in points], [score for _, score in points]) == expected


def test_a_front_of_four_points_with_twins():
    costs, scores = [3.0, 1.0, 2.0, 2.0, 2.0, 9.0], [0.9, 0.5, 0.7, 0.7, 0.6, 0.9]
    assert pareto_front(costs, scores) == [True, True, True, True, False, False]


def test_as_many_scores_as_costs():
    with pytest.raises(ValueError, match="2, found 1"):
        pareto_front([1.0, 2.0], [0.5])
