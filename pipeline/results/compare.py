"""Two runs on the same rows: their scores, how sure these are, and whether the difference is more than chance."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from pipeline.errors import RunError
from pipeline.fitting_table import FittingTable
from pipeline.progress import say
from pipeline.results.counts import COUNTED, check_metric
from pipeline.results.intervals import Interval, bootstrap_interval
from pipeline.results.ledger import PREDICTIONS, Run, read_predictions, read_run
from pipeline.results.lines import deciding_metric
from pipeline.results.paired import McNemar, PairedDifference, mcnemar_exact, paired_bootstrap


@dataclass(frozen=True)
class Comparison:
    """Two runs of one task on the same rows.

    Args:
        task, split: which rows.
        rows: how many.
        metric: what is compared.
        runs: the names of the first and the second run.
        scores: of each, with its interval over rows.
        paired: the second's score less the first's, with its interval and p-value.
        mcnemar: whether they are right equally often, whatever the metric.
    """

    task: str
    split: str
    rows: int
    metric: str
    runs: tuple[str, str]
    scores: tuple[Interval, Interval]
    paired: PairedDifference
    mcnemar: McNemar

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class _Rows:
    """What a run says of the rows of one task and split."""

    sample_ids: np.ndarray
    y: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None


def compare_runs(
    first: Path,
    second: Path,
    *,
    metric: str | None = None,
    split: str = "validation",
) -> list[Comparison]:
    """Compare two runs on every task that both predict.

    Args:
        first, second: the runs' folders.
        metric: what to compare by; by default each task's deciding one, as the first run has it.
        split: whose rows.

    Raises:
        ConfigError: there is no such metric.
        RunError: a run cannot be read, the runs have no task in common, their sentences or rows are not the same ones,
            or have no labels or probabilities where these are needed.
    """
    if metric is not None:
        check_metric(metric)
    runs = [read_run(folder) for folder in (first, second)]
    tables = [read_predictions(folder) for folder in (first, second)]
    common = [task for task in runs[0].tasks if task in runs[1].tasks]
    if not common:
        raise RunError(
            "the runs have no task in common",
            where=f"{runs[0].run}, {runs[1].run}",
            expected="two runs of the same task",
            found=" and ".join(", ".join(run.tasks) for run in runs),
        )
    found = []
    for task in common:
        by = metric or deciding_metric(runs[0], task)
        a, b = (_rows(table, task, split, folder) for table, folder in zip(tables, (first, second), strict=True))
        _check_same(a, b, task, split, runs)
        found.append(_compare(task, split, by, runs, a, b))
    return found


def _compare(task: str, split: str, metric: str, runs: Sequence[Run], a: _Rows, b: _Rows) -> Comparison:
    predicted = [
        each.predictions if metric in COUNTED else _probabilities(each, run, metric)
        for each, run in zip((a, b), runs, strict=True)
    ]
    return Comparison(
        task=task,
        split=split,
        rows=len(a.y),
        metric=metric,
        runs=(runs[0].run, runs[1].run),
        scores=(bootstrap_interval(metric, a.y, predicted[0]), bootstrap_interval(metric, a.y, predicted[1])),
        paired=paired_bootstrap(metric, a.y, predicted[0], predicted[1]),
        mcnemar=mcnemar_exact(a.y, a.predictions, b.predictions),
    )


def _probabilities(rows: _Rows, run: Run, metric: str) -> np.ndarray:
    if rows.probabilities is None:
        raise RunError(
            "the run has no probabilities",
            where=run.run,
            expected=f"a head with probabilities, which {metric} is of",
            found=run.head,
            remedy=f"take a metric of predicted classes: --metric {' | '.join(COUNTED)}",
        )
    return rows.probabilities


def _rows(table: pa.Table, task: str, split: str, folder: Path) -> _Rows:
    table = table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["split"], split)))
    if not table.num_rows or table["label"].null_count:
        raise RunError(
            "the run has no labelled rows of this split",
            where=folder / PREDICTIONS,
            expected=f"predictions for {task}, {split}, with labels",
            found=f"{table.num_rows} rows, {table['label'].null_count} without a label",
        )
    sample_ids, y, predictions = (table[name].to_numpy() for name in ("idx", "label", "prediction"))
    listed = table["probabilities"]
    probabilities = None if listed.null_count else np.asarray(listed.to_pylist(), dtype=np.float64)
    return _Rows(sample_ids, y, predictions, probabilities)


def _check_same(a: _Rows, b: _Rows, task: str, split: str, runs: Sequence[Run]) -> None:
    """Refuse two runs' rows that are not the same.

    Raises:
        RunError: they differ in number, in the examples' own numbers, in labels or in sentences.
    """
    of_each = texts = [run.statistics.get(task, {}).get(split, {}).get("texts") for run in runs]
    if len(a.y) != len(b.y):
        differ, of_each = "their number", [f"{len(each.y)} rows" for each in (a, b)]
    elif len(other := np.flatnonzero((a.sample_ids != b.sample_ids) | (a.y != b.y))):
        row = int(other[0])
        differ = f"{len(other)} rows, the first of them row {row}"
        of_each = [f"idx {each.sample_ids[row]} with label {each.y[row]}" for each in (a, b)]
    elif None in texts:
        say(f"note: {runs[texts.index(None)].run} does not say which sentences it predicted; numbers and labels agree")
        return
    elif texts[0] != texts[1]:
        differ = "their sentences"
    else:
        return
    raise RunError(
        "the runs did not predict the same rows",
        where=f"{task}, {split}: {differ}",
        expected="the same sentences in the same order, with the same labels",
        found="; ".join(f"{what} in {run.run}" for what, run in zip(of_each, runs, strict=True)),
        remedy="compare runs on the same data",
    )


COMPARISON_NOTE = (
    "In brackets: 95 % bootstrap intervals over rows. p: how likely a difference this far from 0 is, were there none. "
    "McNemar's is of the rows that only one of the two has right."
)
"""Said once, below all tables."""


def comparison_table(comparisons: Sequence[Comparison], letter: str = "B") -> Table:
    """Comparisons for people: what is compared as columns, one for each task.

    Args:
        letter: what the second run is called; the first is A.
    """
    first, second = comparisons[0].runs
    table = FittingTable(title=escape(f"A: {first}\n{letter}: {second}"))
    table.title_justify = "left"
    table.add_column("")
    for each in comparisons:
        table.add_column(escape(f"{each.task}, {each.split}, {each.rows} rows"), justify="right")
    lines: dict[str, Callable[[Comparison], str]] = {
        "A": lambda each: f"{each.metric} {each.scores[0]}",
        letter: lambda each: f"{each.metric} {each.scores[1]}",
        f"{letter} - A": lambda each: f"{each.paired.difference:+.3f}",
        "p, bootstrap": lambda each: f"{each.paired.p:.4f}",
        "only A right": lambda each: str(each.mcnemar.b),
        f"only {letter} right": lambda each: str(each.mcnemar.c),
        "p, McNemar": lambda each: f"{each.mcnemar.p:.4f}",
    }
    for name, show in lines.items():
        table.add_row(name, *(escape(show(each)) for each in comparisons))
    return table
