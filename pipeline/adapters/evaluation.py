"""How a live training is doing: held-out rows scored now and then, which evaluation is the best, and what is amiss."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.adapters.rows import LiveRows, TaskRows
from pipeline.live_config import SelectBy
from pipeline.results.metrics import score

if TYPE_CHECKING:
    from pipeline.adapters.training import LiveNetwork


def predict_logits(network: "LiveNetwork", rows: LiveRows, numbers: np.ndarray) -> np.ndarray:
    """Logits `[m, c]` float32 of some rows of a split, in the order of `numbers`; no gradient flows."""
    found = np.empty((len(numbers), len(network.classes_of(rows.task.name))), dtype=np.float32)
    with torch.inference_mode():
        for batch in network.batches(rows, numbers):
            found[batch.rows] = network.logits(rows, numbers, batch).float().cpu().numpy()
    return found


class HeldOut:
    """The held-out rows of all tasks that are evaluated on.

    Args:
        tasks: by name.
        most: so many rows of each task at most, drawn by the seed.
        seed: of the draw.

    Attributes:
        first: by task, the classes `[m]` that were predicted at the first evaluation.
    """

    def __init__(self, tasks: Mapping[str, TaskRows], most: int, seed: int) -> None:
        self._tasks = tasks
        self._numbers = {
            task: np.sort(np.random.default_rng(seed).permutation(rows.held)[:most]) for task, rows in tasks.items()
        }
        self.first: dict[str, np.ndarray] = {}

    def evaluate(self, network: "LiveNetwork") -> dict[str, Any]:
        """Score a network: `{"held_out": {task: …}}` with the loss, the scores, which of them decides, how many rows
        each class was given, and the share of rows that are given another class than at the first evaluation.
        """
        found = {}
        for task, numbers in self._numbers.items():
            rows = self._tasks[task]
            logits = predict_logits(network, rows.train, numbers)
            classes, y = network.classes_of(task), rows.y[numbers]
            wanted = torch.from_numpy(np.searchsorted(classes, y))
            predictions = classes[logits.argmax(axis=1)]
            first = self.first.setdefault(task, predictions)
            found[task] = {
                "loss": float(network.loss(torch.from_numpy(logits), wanted)) / len(y),
                **score(y, predictions),
                "metric": rows.task.metric,
                "predicted": np.bincount(predictions, minlength=len(rows.task.labels)).tolist(),
                "moved": float(np.mean(predictions != first)),
            }
        return {"held_out": found}


class Evaluations:
    """All evaluations of one training.

    Args:
        select_by: what makes one better: the mean of the tasks' deciding scores, the lower loss deciding between
            equals; or the mean of their losses alone. The earliest of equals is the best.
    """

    def __init__(self, select_by: SelectBy) -> None:
        self._select_by = select_by
        self.records: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """One more."""
        self.records.append(record)

    @property
    def best(self) -> int:
        """The place of the best one."""
        return max(range(len(self.records)), key=lambda place: (self._goodness(place), -place))

    def _goodness(self, place: int) -> tuple[float, ...]:
        of_tasks = list(self.records[place]["held_out"].values())
        loss = sum(of_task["loss"] for of_task in of_tasks) / len(of_tasks)
        points = sum(of_task[of_task["metric"]] for of_task in of_tasks) / len(of_tasks)
        return (points, -loss) if self._select_by == "score" else (-loss,)

    def warnings(self) -> list[str]:
        """What a person must know of a training that did nothing."""
        first, later = self.records[0]["held_out"], [record["held_out"] for record in self.records[1:]]
        found = []
        for task in first:
            if not any(one[task]["loss"] < first[task]["loss"] for one in later):
                found.append(f"{task}: the held-out loss never fell below {first[task]['loss']:.4f}, its first value")
            if not any(one[task]["moved"] for one in later):
                found.append(f"{task}: not one prediction moved")
            elif sum(count > 0 for count in later[-1][task]["predicted"]) == 1:
                found.append(f"{task}: at the end every held-out row is given the same class")
        if self.best == 0:
            found.append("no evaluation was better than the one before training: the first weights were kept")
            losses = [sum(one[task]["loss"] for task in one) for one in (first, *later)]
            if self._select_by == "score" and min(losses) < losses[0]:
                found.append("the held-out loss did fall: --select-by loss keeps the weights where it was lowest")
        return found


def in_words(record: Mapping[str, Any]) -> str:
    """An evaluation for people."""
    return "; ".join(
        f"{task} held-out {of_task['metric']} {of_task[of_task['metric']]:.3f}, loss {of_task['loss']:.4f}"
        for task, of_task in record["held_out"].items()
    )
