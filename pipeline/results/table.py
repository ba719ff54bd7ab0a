"""Runs as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.fitting_table import FittingTable
from pipeline.results.ledger import Run


def runs_table(runs: Sequence[Run], metrics: Mapping[str, str]) -> Table:
    """One line a task and run: what it was trained on, its scores, and what the majority class scores.

    Args:
        metrics: the deciding metric of each task. Of several runs of a task that held out the same rows of the same
            data, the one with the best score by it there is starred: a choice made without looking at validation.
    """
    table = FittingTable(
        dispensable=("seconds", "F1", "weights, data", "views", "majority", "95 %", "held-out"),
        caption="held-out: training rows not fitted on; * the best of those with the same ones. MCC, accuracy, F1: "
        "validation. "
        "95 %: an interval of the metric named under held-out, over validation rows. "
        "majority: the accuracy of always saying the commonest class",
    )
    numbers = ("held-out", "MCC", "accuracy", "F1", "95 %", "majority", "seconds")
    for name in ("task", "head", "views", "weights, data", *numbers, "run"):
        table.add_column(
            name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=name in (*numbers, "run")
        )
    lines = [(task, run) for run in runs for task in run.tasks]
    for group in dict.fromkeys((task, _held_out_rows(run, task)) for task, run in lines):
        task = group[0]
        of_task = [run for name, run in lines if (name, _held_out_rows(run, name)) == group]
        metric = metrics.get(task) or of_task[0].config.get("metric", "accuracy")
        best = max(of_task, key=lambda run: run.scores[task].get("held_out", {}).get(metric, float("-inf")))
        for run in of_task:
            scores = run.scores[task].get("validation", {})
            base = run.baseline.get(task, {}).get("validation", {})
            held = run.scores[task].get("held_out", {}).get(metric)
            statistics = run.statistics.get(task, {}).get("validation", {})
            mark = " *" if run is best and len(of_task) > 1 and held is not None else ""
            of = [str(run.config[name]) for name in ("backbone", "quantization", "data") if name in run.config]
            if run.config.get("adapter"):
                of.insert(2, f"lora {run.config['adapter']}")
            table.add_row(
                escape(task),
                escape(f"{run.adapter['kind']}, {run.head}{mark}" if run.adapter else run.head + mark),
                escape(str(run.config.get("features", ""))),
                escape(", ".join(of)),
                "-" if held is None else f"{metric} {held:.3f}",
                *(_number(scores.get(name)) for name in ("mcc", "accuracy", "f1")),
                escape(_bounds(statistics.get("intervals", {}).get(metric))),
                _number(base.get("accuracy")),
                f"{run.seconds:.1f}",
                escape(run.run),
            )
    return table


def _held_out_rows(run: Run, task: str) -> str:
    """Which rows were held out: scores on others are not to be compared."""
    if digest := run.statistics.get(task, {}).get("held_out", {}).get("texts"):
        return str(digest)
    settings = {**run.config, **run.config.get("training", {})}  # the oldest runs do not say which
    ways = [settings.get(name) for name in ("data", "held_out", "seeds", "group_by", "score_on")]
    return str([*ways, run.seed])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _bounds(interval: Mapping[str, Any] | None) -> str:
    return "-" if interval is None else f"[{interval['low']:.2f}, {interval['high']:.2f}]"
