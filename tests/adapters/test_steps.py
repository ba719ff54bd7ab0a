"""Which rows each step trains on: every row is seen, the order is the seed's, and the mixing rule is kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.steps import StepPlan

PLANS = st.builds(
    lambda sizes, batch_size, seed: (dict(zip("abc", map(np.arange, sizes), strict=False)), batch_size, seed),
    st.lists(st.integers(1, 70), min_size=1, max_size=3),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)


def rows_of(steps, task):
    return np.concatenate([step.rows for step in steps if step.task == task])


@given(PLANS, st.integers(0, 3))
def test_in_proportion_an_epoch_is_each_row_of_every_task_once(plan, epoch):
    fit, batch_size, seed = plan
    steps = StepPlan(fit, batch_size, "proportional", seed).epoch(epoch)
    for task, rows in fit.items():
        np.testing.assert_array_equal(np.sort(rows_of(steps, task)), rows)
    assert all(0 < len(step.rows) <= batch_size for step in steps)


@given(PLANS)
def test_in_equal_parts_an_epoch_has_as_many_steps_of_each_task_as_the_smallest_has(plan):
    fit, batch_size, seed = plan
    steps = StepPlan(fit, batch_size, "equal", seed).epoch(0)
    smallest = -(-min(map(len, fit.values())) // batch_size)
    assert {task: sum(step.task == task for step in steps) for task in fit} == dict.fromkeys(fit, smallest)


def test_in_equal_parts_a_larger_task_goes_on_where_it_stopped_until_all_its_rows_were_seen():
    plan = StepPlan({"small": np.arange(8), "large": np.arange(100, 132)}, 4, "equal", seed=3)
    epochs = [rows_of(plan.epoch(number), "large") for number in range(8)]
    np.testing.assert_array_equal(np.sort(np.concatenate(epochs[:4])), np.arange(100, 132))
    np.testing.assert_array_equal(np.sort(np.concatenate(epochs[4:])), np.arange(100, 132))
    assert not np.array_equal(np.concatenate(epochs[:4]), np.concatenate(epochs[4:]))


@given(PLANS, st.sampled_from(["proportional", "equal"]))
def test_the_steps_are_counted_before_they_are_made(plan, mixing):
    fit, batch_size, seed = plan
    made = StepPlan(fit, batch_size, mixing, seed)
    assert len(made.epoch(0)) == len(made.epoch(1)) == made.steps_an_epoch


@pytest.mark.parametrize("mixing", ["proportional", "equal"])
def test_the_order_is_the_seeds_and_another_in_every_epoch(mixing):
    fit = {"a": np.arange(50), "b": np.arange(70)}

    def order(seed, epoch):
        return [(step.task, *step.rows) for step in StepPlan(fit, 8, mixing, seed).epoch(epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_the_tasks_stand_in_no_fixed_order():
    plan = StepPlan({"a": np.arange(200), "b": np.arange(200)}, 10, "proportional", 0)
    tasks = [step.task for step in plan.epoch(0)]
    assert tasks != sorted(tasks)
    assert sum(one != other for one, other in itertools.pairwise(tasks)) > 5
