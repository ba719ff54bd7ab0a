"""What a comparison of backbones came to."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.cache import Cost
from pipeline.choosing.agreement import Agreement, rank_agreement
from pipeline.choosing.contender import Contender
from pipeline.choosing.sample import Sample
from pipeline.results.intervals import Interval
from pipeline.results.ledger import Run
from pipeline.results.pareto import pareto_front
from pipeline.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Measured:
    """One contender on one task.

    Args:
        contender: its specification.
        task: on which.
        layer, num_hidden_layers: where it is cut, and how many blocks there are.
        run: the selected head's, as the ledger has it.
        score: on the sample's validation rows, with its interval over them.
        held_out: the mean score that the head was selected by.
        views: that the head looks at.
        logme: of the training rows' features, by view; also of both side by side.
        cost: of the passes that made the features.
        bytes_per_thousand: that the head's views of a thousand sentences take in the cache.
        machines: that computed.
    """

    contender: Contender
    task: str
    layer: int
    num_hidden_layers: int
    run: Run
    score: Interval
    held_out: float
    views: str
    logme: Mapping[str, float]
    cost: Cost
    bytes_per_thousand: float
    machines: tuple[str, ...]

    @property
    def seconds_per_thousand(self) -> float:
        """Seconds in the backbone for a thousand sentences."""
        return 1000 * self.cost.backbone_seconds / self.cost.rows

    @property
    def processor_seconds_per_thousand(self) -> float | None:
        """The same of all of the CPU's threads together, which other work beside them hardly changes."""
        seconds = self.cost.processor_seconds
        return None if seconds is None else 1000 * seconds / self.cost.rows

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "contender": str(self.contender),
            "task": self.task,
            "layer": self.layer,
            "num_hidden_layers": self.num_hidden_layers,
            "head": self.run.head,
            "views": self.views,
            "metric": self.run.config["metric"],
            "score": self.score.to_dict(),
            "held_out": self.held_out,
            "logme": self.logme[self.views],
            "logme_by_views": dict(self.logme),
            "seconds_per_thousand": self.seconds_per_thousand,
            "processor_seconds_per_thousand": self.processor_seconds_per_thousand,
            "peak_memory_bytes": self.cost.peak_memory_bytes,
            "weights_bytes": self.cost.weights_bytes,
            "bytes_per_thousand": self.bytes_per_thousand,
            "machines": list(self.machines),
            "run": self.run.run,
        }


@dataclass(frozen=True)
class NotHad:
    """A contender that could not be measured.

    Args:
        contender: which.
        reason: why.
    """

    contender: Contender
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"contender": str(self.contender), "reason": self.reason}


@dataclass(frozen=True)
class Same:
    """A contender whose features are another's: it scores and costs what that one does, and is measured once.

    Args:
        contender: which, such as one that is cut behind its last layer.
        same_as: the one that was measured.
    """

    contender: Contender
    same_as: Contender


@dataclass(frozen=True)
class Comparison:
    """What a comparison of backbones came to.

    Args:
        tasks: that were compared on.
        samples: the rows.
        measured: contenders on tasks, in the order of the contenders.
        not_had: those that could not be measured.
        same: those that need not be.
    """

    tasks: tuple[TaskSpec, ...]
    samples: tuple[Sample, ...]
    measured: tuple[Measured, ...]
    not_had: tuple[NotHad, ...]
    same: tuple[Same, ...] = ()

    def of_task(self, name: str) -> list[Measured]:
        """Every contender on one task."""
        return [each for each in self.measured if each.task == name]

    def front(self, name: str) -> list[bool]:
        """Which contenders of a task no other beats in seconds and in score at once."""
        of_task = self.of_task(name)
        return pareto_front([each.seconds_per_thousand for each in of_task], [each.score.estimate for each in of_task])

    def agreement(self, name: str) -> Agreement | None:
        """Whether LogME ranks a task's contenders as their scores do."""
        of_task = self.of_task(name)
        return rank_agreement([each.logme[each.views] for each in of_task], [each.score.estimate for each in of_task])

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        names = [task.name for task in self.tasks]
        agreements = {name: self.agreement(name) for name in names}
        return {
            "samples": [asdict(sample) for sample in self.samples],
            "contenders": [record for name in names for record in self._records(name)],
            "not_had": [each.to_dict() for each in self.not_had],
            "agreement": {name: None if found is None else found.to_dict() for name, found in agreements.items()},
        }

    def _records(self, name: str) -> Iterator[dict[str, Any]]:
        """Of every contender on one task: behind each that was measured those that are the same."""
        for each, on_front in zip(self.of_task(name), self.front(name), strict=True):
            record = {**each.to_dict(), "on_front": on_front, "same_as": None}
            yield record
            for twin in self.same:
                if twin.same_as == each.contender:
                    yield {**record, "contender": str(twin.contender), "same_as": str(twin.same_as)}
