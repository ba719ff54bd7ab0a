"""A task's head beside its baselines: what each scores on validation, and how much more the head does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from pipeline.fitting_table import FittingTable
from pipeline.results.compare import Comparison, compare_runs
from pipeline.results.counts import metric_of_counts
from pipeline.results.intervals import ROUNDING, Interval, bootstrap_interval, seeds_interval
from pipeline.results.ledger import Run, read_predictions

SPLIT = "validation"
HEAD, MAJORITY, TFIDF, RANDOM, CONTROL, ZERO_SHOT = (
    "head", "majority", "tfidf", "random-features", "control", "zero-shot",
)  # fmt: skip
BASELINES = {
    HEAD: "the head",
    MAJORITY: "commonest class",
    TFIDF: "TF-IDF and logreg",
    RANDOM: "random features",
    CONTROL: "control: random labels",
    ZERO_SHOT: "zero-shot LLM",
}
"""What each line is called in records, and for people."""


@dataclass(frozen=True)
class Control:
    """What heads on labels drawn at random say of the head (Hewitt & Liang, 2019, arXiv:1909.03368).

    Args:
        draws: of labels, each of training and validation rows.
        scores: of each draw, against its own labels.
        chance: mean over the draws of the score that as many predictions of each class get where they have nothing to
            do with the labels: an MCC of 0, and for accuracy what both shares of the classes give.
        above_chance: mean over the draws of score less chance, with its interval over the draws (Student's t); of one
            draw, over its rows (bootstrap).
        at_chance: whether that interval holds 0.
        selectivity: the head's score less the mean of these.
    """

    draws: int
    scores: tuple[float, ...]
    chance: float
    above_chance: Interval
    at_chance: bool
    selectivity: float


@dataclass(frozen=True)
class BaselineRow:
    """One line of a task's table.

    Args:
        baseline: one of `BASELINES`.
        runs: their names in the ledger: of the control task one a draw, of what was not measured none.
        score: the task's metric with its interval over rows; of the control task the mean over its draws, with its
            interval over them; None where it was not measured.
        scores: all scores on validation; of the control task the means of them.
        comparison: the head held against this on the same rows; None for the head itself, for the control task, whose
            labels are others, and where nothing was measured.
        control: of the control task.
        note: what was chosen, or why nothing was measured.
    """

    baseline: str
    runs: tuple[str, ...]
    score: Interval | None
    scores: dict[str, float]
    comparison: Comparison | None
    control: Control | None
    note: str


@dataclass(frozen=True)
class TaskBaselines:
    """A task's table.

    Args:
        task, metric: which, and what decides it.
        rows: of validation.
        views: of the features.
        lines: the head first.
    """

    task: str
    metric: str
    rows: int
    views: str
    lines: tuple[BaselineRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def head_row(head: Run, metric: str, note: str) -> BaselineRow:
    """The line of the head itself."""
    [task] = head.tasks
    interval = Interval(**head.statistics[task][SPLIT]["intervals"][metric])
    return BaselineRow(HEAD, (head.run,), interval, head.scores[task][SPLIT], None, None, note)


def baseline_row(runs_dir: Path, baseline: str, run: Run, head: Run, metric: str, note: str) -> BaselineRow:
    """The line of a baseline that predicts the same rows with the same labels as the head.

    Raises:
        RunError: the runs cannot be compared.
    """
    [task] = run.tasks
    [comparison] = compare_runs(runs_dir / run.run, runs_dir / head.run, metric=metric)
    return BaselineRow(baseline, (run.run,), comparison.scores[0], run.scores[task][SPLIT], comparison, None, note)


def control_row(runs_dir: Path, runs: Sequence[Run], head: Run, metric: str) -> BaselineRow:
    """The line of the control task, from one run a draw.

    Raises:
        RunError: a run's predictions cannot be read.
    """
    [task] = head.tasks
    scores = [run.scores[task][SPLIT] for run in runs]
    means = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    of_metric = [each[metric] for each in scores]
    predicted = [_predictions(runs_dir / run.run, task) for run in runs]
    chances = [chance_of(metric, *each) for each in predicted]
    score = seeds_interval(of_metric).interval
    above = seeds_interval([of - chance for of, chance in zip(of_metric, chances, strict=True)]).interval
    if len(runs) == 1:
        score = bootstrap_interval(metric, *predicted[0])
        low, high = (None if end is None else end - chances[0] for end in (score.low, score.high))
        above = Interval(above.estimate, low, high, score.level, score.method)
    assert above.low is not None and above.high is not None
    control = Control(
        draws=len(runs),
        scores=tuple(of_metric),
        chance=float(np.mean(chances)),
        above_chance=above,
        at_chance=above.low <= ROUNDING and above.high >= -ROUNDING,
        selectivity=head.scores[task][SPLIT][metric] - score.estimate,
    )
    note = "one draw" if len(runs) == 1 else f"{len(runs)} draws"
    return BaselineRow(CONTROL, tuple(run.run for run in runs), score, means, None, control, note)


def missing_row(baseline: str, reason: str) -> BaselineRow:
    """The line of a baseline that was not measured."""
    return BaselineRow(baseline, (), None, {}, None, None, f"not measured: {reason}")


def chance_of(metric: str, y: np.ndarray, predictions: np.ndarray) -> float:
    """What a metric comes to where predictions have nothing to do with the labels, both as often as they are.

    Args:
        metric: one of `COUNTED`.
        y, predictions: `[n]` classes.
    """
    classes = max(2, 1 + int(max(y.max(), predictions.max())))
    true, predicted = (np.bincount(each, minlength=classes) for each in (y, predictions))
    return float(metric_of_counts(metric, np.outer(true, predicted)[None] / len(y))[0])


def _predictions(folder: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predicted classes of validation, `[n]` each."""
    table = read_predictions(folder)
    table = table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["split"], SPLIT)))
    return table["label"].to_numpy(), table["prediction"].to_numpy()


def baselines_table(found: TaskBaselines) -> Table:
    """A task's table for people."""
    others = [name for name in ("accuracy", "mcc", "f1") if name != found.metric]
    table = FittingTable(
        dispensable=(*reversed(others), "p"),
        title=f"{found.task}: {found.rows:,} validation rows, features {found.views}",
        caption="In brackets: 95 % intervals over rows (bootstrap), of the control task over its draws. head - it: how "
        "much more the head scores on the same rows; p: how likely a difference this far from 0 is, were there none. "
        "Strengths are chosen on training rows held out; each head is scored once",
    )
    table.title_justify = "left"
    numbers = (found.metric, *others, "head - it", "p")
    for name in ("", *numbers, ""):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers, overflow="fold")
    for line in found.lines:
        scores = [f"{line.scores[name]:.3f}" if name in line.scores else "-" for name in others]
        paired = None if line.comparison is None else line.comparison.paired
        table.add_row(
            BASELINES[line.baseline],
            "-" if line.score is None else escape(f"{line.score:.3f}"),
            *scores,
            "-" if paired is None else escape(f"{paired.difference:+.3f}"),
            "-" if paired is None else f"{paired.p:.4f}",
            escape(_note(line)),
        )
    return table


def _note(line: BaselineRow) -> str:
    control = line.control
    if control is None:
        return line.note
    verdict = "at chance" if control.at_chance else "NOT at chance"
    chance = round(control.chance, 3) + 0.0  # never -0
    return f"{line.note}; {verdict} ({chance:.3f}); selectivity {control.selectivity:+.3f}"
