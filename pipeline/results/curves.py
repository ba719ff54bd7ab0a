"""Learning curves: what a training measured on its way, as every kind of run has it in its record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.results.counts import COUNTED
from pipeline.results.ledger import Run

Part = Literal["held_out", "training"]
Unit = Literal["step", "epoch"]
WORDS: Mapping[Part, str] = {"held_out": "held-out", "training": "training"}


@dataclass(frozen=True)
class Curve:
    """One number of one training over time.

    Args:
        task: whose.
        part: of the training rows, those held out or those trained on.
        metric: `loss`, or a score of predicted classes.
        unit: what the points are counted in.
        points: when and how much, `[m, 2]`; 0 is before anything was trained.
    """

    task: str
    part: Part
    metric: str
    unit: Unit
    points: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        """For people: `held-out loss`."""
        return f"{WORDS[self.part]} {self.metric}"

    @property
    def tag(self) -> str:
        """For trackers, as `tag_of` has it."""
        return tag_of(self.task, self.part, self.metric)


def tag_of(task: str, part: Part, metric: str) -> str:
    """A curve's name in trackers: `cola/curve/held_out/loss`, and `cola/loss` of the rows trained on.

    A score of the weights that were kept is `cola/held_out/mcc` there, which the last point of a curve need not be.
    """
    return f"{task}/{metric}" if part == "training" else f"{task}/curve/{part}/{metric}"


def curves_of(run: Run) -> list[Curve]:
    """The learning curves of a run; none of a head that was not trained step by step."""
    found: dict[tuple[str, Part, str, Unit], list[tuple[float, float]]] = {}
    for record in run.selection.get("evaluations", ()):
        unit: Unit = "step" if "step" in record else "epoch"
        for task, part, metric, value in _values(record, run):
            found.setdefault((task, part, metric, unit), []).append((float(record[unit]), float(value)))
    return [Curve(*key, points=tuple(points)) for key, points in found.items()]


def _values(record: Mapping[str, Any], run: Run) -> Iterator[tuple[str, Part, str, float]]:
    losses = record.get("held_out_loss", {})  # of cached features; a head of one task has the number alone
    for task, loss in (losses if isinstance(losses, Mapping) else {run.tasks[0]: losses}).items():
        yield task, "held_out", "loss", loss
    for task, values in record.get("held_out", {}).items():
        for metric in ("loss", *COUNTED):
            if metric in values:
                yield task, "held_out", metric, values[metric]
    for task, loss in record.get("train_loss", {}).items():
        yield task, "training", "loss", loss
