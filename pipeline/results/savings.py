"""What the cache saved: who shares features, and after how many experiments they are cheaper than live passes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.fitting_table import FittingTable
from pipeline.results.ledger import Run


@dataclass(frozen=True)
class Saving:
    """What runs on the same features of one task took, and would have taken without the cache.

    An experiment is one run. Without a cache it computes the hidden states of its rows itself, once, and keeps them in
    memory: the live path at its cheapest, as one pass for every epoch would take many times that.

    Args:
        task: whose features.
        backbone, quantization, data: what they are of.
        runs: how many share them.
        backbone_seconds: that their hidden states took in the backbone.
        stage_one_seconds: the same with pooling, writing and sealing: what the cache cost, once.
        experiment_seconds: of reading features and training, all runs together.
        live_seconds: what as many experiments with a pass each would have taken.
        break_even: the first number of experiments with which the cache is cheaper; None if reading takes as long as
            computing.
    """

    task: str
    backbone: str
    quantization: str
    data: str
    runs: int
    backbone_seconds: float
    stage_one_seconds: float
    experiment_seconds: float
    live_seconds: float
    break_even: int | None

    @property
    def saved_seconds(self) -> float:
        """How much longer live passes would have taken; below 0 while the cache has not paid for itself."""
        return self.live_seconds - self.stage_one_seconds - self.experiment_seconds

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"saved_seconds": self.saved_seconds}


def break_even(cost: Mapping[str, Any]) -> int | None:
    """The first number of experiments with which features that are computed once are cheaper than live passes.

    With the cache `n` experiments take `seconds + n * reading_seconds`, without it `n * backbone_seconds`; training
    takes the same in both.

    Args:
        cost: a task's of a run's `costs`.

    Returns:
        the number, or None if reading takes as long as computing.
    """
    gain = cost["backbone_seconds"] - (cost["reading_seconds"] or 0.0)
    return math.floor(cost["seconds"] / gain) + 1 if gain > 0 else None


def savings_of(runs: Sequence[Run]) -> list[Saving]:
    """What the cache saved, for each set of features that runs share; those whose cost is not known are left out."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for task, cost in run.costs.items():
            groups.setdefault((task, cost["passes"][0]), []).append(run)
    found = []
    for (task, _), sharing in groups.items():
        costs = [run.costs[task] for run in sharing]
        last = sharing[-1]
        training = sum(run.seconds for run in sharing)
        # of some runs test is predicted too, or more views: the most that was computed is what all of it cost
        most = max(costs, key=lambda cost: float(cost["seconds"]))
        found.append(
            Saving(
                task=task,
                backbone=str(last.config.get("backbone", "")),
                quantization=str(last.config.get("quantization", "")),
                data=str(last.config.get("data", "")),
                runs=len(sharing),
                backbone_seconds=most["backbone_seconds"],
                stage_one_seconds=most["seconds"],
                experiment_seconds=training + sum(cost["reading_seconds"] or 0.0 for cost in costs),
                live_seconds=training + sum(cost["backbone_seconds"] for cost in costs),
                break_even=break_even(most),
            )
        )
    return found


def of_run(run: Run, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """By task, how many runs share a run's features, itself among them, and the break-even."""
    return {
        task: {"shared_by": shared_by(run, task, runs), "break_even": break_even(cost)}
        for task, cost in run.costs.items()
    }


def shared_by(run: Run, task: str, runs: Sequence[Run]) -> int:
    """How many of some runs use features of the pass that a run's came out of; none where that is not recorded."""

    def first_pass(of: Run) -> Any:
        return of.costs.get(task, {}).get("passes", [None])[0]

    return 0 if first_pass(run) is None else sum(first_pass(other) == first_pass(run) for other in runs)


def savings_table(found: Sequence[Saving]) -> Table:
    """Savings for people: one line for each set of features."""
    table = FittingTable(
        dispensable=("backbone, s", "experiments, s", "live, s"),
        notes={
            "stage one, s": "stage one: what the features took, once",
            "backbone, s": "backbone: of that, in the backbone",
            "experiments, s": "experiments: reading and training, all runs together",
            "live, s": "live: as many experiments that each compute the hidden states again, once",
            "break-even": "break-even: from so many experiments on the cache is cheaper",
            "saved, s": "Seconds as measured, each on the machine that took them",
        },
    )
    numbers = ("runs", "stage one, s", "backbone, s", "experiments, s", "live, s", "saved, s", "break-even")
    for name in ("task", "weights, data", *numbers):
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for each in found:
        seconds = (each.stage_one_seconds, each.backbone_seconds, each.experiment_seconds, each.live_seconds)
        table.add_row(
            escape(each.task),
            escape(", ".join((each.backbone, each.quantization, each.data))),
            str(each.runs),
            *(f"{value:,.1f}" for value in (*seconds, each.saved_seconds)),
            "never" if each.break_even is None else str(each.break_even),
        )
    return table
