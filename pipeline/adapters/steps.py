"""Which rows each step trains on: a pure function of the rows, the settings and the seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.live_config import Mixing


@dataclass(frozen=True)
class Step:
    """One step of the optimizer.

    Args:
        task: whose rows.
        rows: `[b]` int64, numbers of rows in the task's training split.
    """

    task: str
    rows: np.ndarray


@dataclass(frozen=True)
class StepPlan:
    """The steps of a training, epoch by epoch; a step's rows are of one task.

    Args:
        fit: by task, the rows to train on.
        batch_size: rows a step.
        mixing: `proportional`: an epoch is each row of every task once; `equal`: it is each row of the smallest task
            once, and as many of every other task, which goes on where it stopped. The tasks' steps stand in random
            order.
        seed: of all orders.
    """

    fit: Mapping[str, np.ndarray]
    batch_size: int
    mixing: Mixing
    seed: int

    @property
    def steps_an_epoch(self) -> int:
        """In all tasks together."""
        return sum(self._steps_of(task) for task in self.fit)

    def _steps_of(self, task: str) -> int:
        rows = len(self.fit[task]) if self.mixing == "proportional" else min(map(len, self.fit.values()))
        return -(-rows // self.batch_size)

    def epoch(self, number: int) -> list[Step]:
        """The steps of an epoch, counted from 0."""
        waiting = {task: self._of_task(task, number) for task in self.fit}
        order = np.concatenate([np.full(self._steps_of(task), place) for place, task in enumerate(self.fit)])
        np.random.default_rng([self.seed, number]).shuffle(order)
        tasks = list(self.fit)
        return [Step(tasks[place], next(waiting[tasks[place]])) for place in order]

    def _of_task(self, task: str, number: int) -> Iterator[np.ndarray]:
        rows, steps = self.fit[task], self._steps_of(task)
        if self.mixing == "proportional":
            shuffled = self._shuffled(task, number)
            return (shuffled[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size))
        a_round = -(-len(rows) // self.batch_size)  # steps until each row of the task was seen
        return (self._nth(task, *divmod(number * steps + step, a_round)) for step in range(steps))

    def _nth(self, task: str, a_round: int, step: int) -> np.ndarray:
        return self._shuffled(task, a_round)[step * self.batch_size : (step + 1) * self.batch_size]

    def _shuffled(self, task: str, a_round: int) -> np.ndarray:
        place = list(self.fit).index(task)
        return np.random.default_rng([self.seed, a_round, place]).permutation(self.fit[task])
