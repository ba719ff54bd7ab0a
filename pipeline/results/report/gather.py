"""What a report is of: the runs, task by task, those that can be compared, and those that are shown in detail."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.progress import say
from pipeline.results.ledger import Run, find_run, read_runs
from pipeline.results.lines import deciding_metric
from pipeline.results.report.entries import Entry, choose, entry_of, legend_names
from pipeline.results.report.predicted import Predicted, read_predicted
from pipeline.results.trials import TRIALS, read_trials

DETAILED = 8
"""Runs of a task that are shown in detail, at most, unless others are named."""
TITLES = {"cola": "CoLA", "sst2": "SST-2"}
METRICS = {"mcc": "MCC", "accuracy": "accuracy", "f1": "F1"}

Features = Mapping[str, Mapping[str, Any]]
"""By fingerprint: `name`, `task`, `split`, `identity`, `passport`, `recorded`, `rows` of a feature set at hand."""


@dataclass(frozen=True)
class Task:
    """A task with its runs.

    Args:
        name: in records.
        title: for people.
        metric: what decides it.
        labels: its classes' names.
        entries: every run of it, the best on validation first.
        peers: those that predicted the same rows as the most do; scores of others are of something else.
        chosen: those shown in detail, the best first.
        names: a short name for each chosen run, by run.
    """

    name: str
    title: str
    metric: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    peers: tuple[Entry, ...]
    chosen: tuple[Entry, ...]
    names: Mapping[str, str]

    @property
    def metric_title(self) -> str:
        """The deciding metric's name for people."""
        return METRICS.get(self.metric, self.metric)

    @property
    def best(self) -> Entry:
        """The best on validation of those that can be compared; a baseline only where there is nothing else."""
        trained = [each for each in self.peers if each.kind != "baseline"]
        return max(trained or self.peers or self.entries, key=lambda each: each.estimate)

    @property
    def majority(self) -> float | None:
        """What always saying the commonest class of the training rows scores."""
        value = self.best.run.baseline.get(self.name, {}).get("validation", {}).get(self.metric)
        return None if value is None else float(value)

    @property
    def rows(self) -> int:
        """How many validation rows."""
        return 0 if self.best.predicted is None else len(self.best.predicted.y)


@dataclass(frozen=True)
class Gathered:
    """What a report is made of.

    Args:
        tasks: in the order in which most runs have them.
        runs: all of them, the oldest first.
        trials: of each sweep among them, by run.
        features: what is known of the feature sets that the runs name.
    """

    tasks: tuple[Task, ...]
    runs: tuple[Run, ...]
    trials: Mapping[str, pa.Table]
    features: Features


def gather(
    runs_dir: Path, *, chosen: Sequence[str] = (), labels: Mapping[str, Sequence[str]], features: Features
) -> Gathered:
    """Read all runs of a folder.

    Args:
        chosen: names of runs, or their beginnings, that are shown in detail in place of the best of each kind.
        labels: the classes' names by task, as far as known.
        features: what is known of feature sets.

    Raises:
        RunError: there are no runs, one cannot be read, or a name is of none.
    """
    runs = read_runs(runs_dir)
    if not runs:
        raise RunError(
            "there are no runs to report",
            where=runs_dir,
            expected="folders with a run.json",
            remedy="train something first: make demo, or pipeline heads",
        )
    named = [find_run(runs_dir, name).name for name in chosen]
    predictions = {run.run: _predictions(runs_dir, run) for run in runs}
    trials = {}
    for run in runs:
        if (runs_dir / run.run / TRIALS).is_file():
            with contextlib.suppress(RunError):
                trials[run.run] = read_trials(runs_dir / run.run / TRIALS)
    counted = Counter(task for run in runs for task in run.tasks)
    names = sorted(counted, key=lambda task: (task not in TITLES, list(TITLES).index(task) if task in TITLES else task))
    tasks = tuple(_task(name, runs, predictions, named, tuple(labels.get(name, ()))) for name in names)
    return Gathered(tasks, tuple(runs), trials, features)


def _predictions(runs_dir: Path, run: Run) -> Mapping[str, Predicted]:
    try:
        return read_predicted(runs_dir / run.run, run)
    except RunError as error:
        say(f"note: {error}\n  the report has this run's scores alone")
        return {}


def _task(
    name: str,
    runs: Sequence[Run],
    predictions: Mapping[str, Mapping[str, Predicted]],
    named: Sequence[str],
    labels: tuple[str, ...],
) -> Task:
    of_task = [run for run in runs if name in run.tasks]
    metric = Counter(deciding_metric(run, name) for run in of_task).most_common(1)[0][0]
    entries = [entry_of(run, name, metric, predictions[run.run].get(name)) for run in of_task]
    entries.sort(key=lambda each: -each.estimate)
    keys = Counter(each.predicted.key for each in entries if each.predicted is not None and each.kind != "baseline")
    most = keys.most_common(1)[0][0] if keys else None
    peers = [each for each in entries if each.predicted is not None and each.predicted.key == most] or entries
    shown = [each for each in entries if each.name in named and each.predicted is not None]
    shown = shown or choose(peers, DETAILED)
    seen = max((each.predicted.classes for each in entries if each.predicted is not None), default=2)
    labels = labels if len(labels) >= seen else tuple(f"class {number}" for number in range(seen))
    return Task(
        name=name,
        title=TITLES.get(name, name),
        metric=metric,
        labels=labels,
        entries=tuple(entries),
        peers=tuple(peers),
        chosen=tuple(shown),
        names=legend_names(shown),
    )
