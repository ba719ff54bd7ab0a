"""The ledger as a table for people."""

from typing import Any

import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from pipeline.fitting_table import FittingTable

NUMBERS = ("held-out", "MCC", "accuracy", "F1", "95 %", "majority", "seconds")


def runs_table(ledger: pa.Table) -> Table:
    """One line a task and run: what it was trained on, its scores, and what the majority class scores.

    Of several runs of a task that held out the same rows, the one with the best score there is starred: a choice made
    without looking at validation.

    Args:
        ledger: lines as `ledger_table` makes them, in the order to show them in.
    """
    table = FittingTable(
        dispensable=("seconds", "F1", "majority", "views", "95 %", "held-out", "accuracy", "weights, data"),
        caption="held-out: training rows not fitted on; * the best of those with the same ones. MCC, accuracy, F1: "
        "validation. 95 %: an interval of the metric named under held-out, over validation rows. "
        "majority: the accuracy of always saying the commonest class",
    )
    for name in ("task", "head", "views", "weights, data", *NUMBERS, "run"):
        table.add_column(
            name, justify="right" if name in NUMBERS else "left", overflow="fold", no_wrap=name in (*NUMBERS, "run")
        )
    lines = ledger.to_pylist()
    best = _best(lines)
    for line in lines:
        mark = " *" if (line["task"], line["run"]) in best else ""
        merged = None if line["merged_adapter"] is None else f"lora {line['merged_adapter']}"
        of = [name for name in (line["backbone"], line["quantization"], merged, line["data"]) if name is not None]
        head = (
            line["head"] if line["adapter"] is None else f"{line['adapter']} {line['adapter_settings']}, {line['head']}"
        )
        table.add_row(
            escape(line["task"]),
            escape(head + mark),
            escape(line["views"] or ""),
            escape(", ".join(of)),
            "-" if line["held_out"] is None else f"{line['metric']} {line['held_out']:.3f}",
            *(_number(line[name]) for name in ("mcc", "accuracy", "f1")),
            "-" if line["low"] is None else escape(f"[{line['low']:.2f}, {line['high']:.2f}]"),
            _number(line["majority_accuracy"]),
            f"{line['seconds']:.1f}",
            escape(line["run"]),
        )
    return table


def _best(lines: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Task and run of those that are the best on the rows that they held out, where several held out the same."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["held_out"] is not None:
            groups.setdefault((line["task"], line["held_out_rows"]), []).append(line)
    rivals = {(line["task"], line["held_out_rows"]): 0 for line in lines}
    for line in lines:
        rivals[line["task"], line["held_out_rows"]] += 1
    firsts = (max(group, key=lambda line: line["held_out"]) for key, group in groups.items() if rivals[key] > 1)
    return {(line["task"], line["run"]) for line in firsts}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
