"""The ledger as a table for people."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from pipeline.fitting_table import FittingTable
from pipeline.results.counts import METRIC_NAMES

NUMBERS = ("held out", "MCC", "accuracy", "F1", "majority", "seconds")
NOTES = {
    "head": "*: the best by held-out score of the runs that held out the same rows",
    "score": "score: by the task's metric on validation, with its 95 % interval over rows",
    "held out": "held out: by the same metric, on training rows that were not fitted on",
    "majority": "majority: the accuracy of always saying the commonest class",
}


def runs_table(ledger: pa.Table, names: Sequence[str] | None = None) -> Table:
    """One line a task and run: what it was trained on, its scores, and what the majority class scores.

    Of several runs of a task that held out the same rows, the one with the best score there is starred: a choice made
    without looking at validation.

    Args:
        ledger: lines as `ledger_table` makes them, in the order to show them in.
        names: of all runs, those of the lines by default; where names are shortened, no other run is called so.
    """
    lines = ledger.to_pylist()
    best = _best(lines)
    table = FittingTable(
        dispensable=("seconds", "F1", "MCC", "majority", "accuracy", *_by_how_much_they_tell(lines), "held out"),
        notes=NOTES if best else {header: note for header, note in NOTES.items() if header != "head"},
    )
    for name in ("task", "head", "score", "held out", "weights", "data", "views", *NUMBERS[1:], "run"):
        table.add_column(
            name, justify="right" if name in NUMBERS else "left", overflow="fold", no_wrap=name in ("score", "run")
        )
    for line in lines:
        mark = " *" if (line["task"], line["run"]) in best else ""
        merged = None if line["merged_adapter"] is None else f"lora {line['merged_adapter']}"
        of = [name for name in (line["backbone"], line["quantization"], merged) if name is not None]
        head = (
            line["head"] if line["adapter"] is None else f"{line['adapter']} {line['adapter_settings']}, {line['head']}"
        )
        interval = "" if line["low"] is None else f" [{line['low']:.2f}, {line['high']:.2f}]"
        table.add_row(
            escape(line["task"]),
            escape(head + mark),
            "-" if line["score"] is None else escape(f"{METRIC_NAMES[line['metric']]} {line['score']:.3f}{interval}"),
            _number(line["held_out"]),
            escape(", ".join(of)),
            escape(line["data"] or ""),
            escape(line["views"] or ""),
            *(_number(line[name]) for name in ("mcc", "accuracy", "f1")),
            _number(line["majority_accuracy"]),
            f"{line['seconds']:.1f}",
            escape(line["run"]),
        )
    runs = [line["run"] for line in lines]
    ends = distinct_ends(dict.fromkeys([*runs, *(names or ())]))
    table.shorten(
        "run", [escape(ends[run]) for run in runs], "run: the end of its name; every command finds it by that"
    )
    return table


def _by_how_much_they_tell(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Columns of what runs were trained on, those first that say the same of all."""
    columns = {"views": ("views",), "weights": ("backbone", "quantization", "merged_adapter"), "data": ("data",)}
    values = {name: {tuple(line[each] for each in of) for line in lines} for name, of in columns.items()}
    return sorted(columns, key=lambda name: len(values[name]) > 1)


def distinct_ends(names: Iterable[str]) -> dict[str, str]:
    """Of each name the shortest end, from a hyphen on, that no other name has in it, or else the whole."""
    every = [*names]

    def ends(name: str) -> Iterator[str]:
        parts = name.split("-")
        return ("-".join(parts[first:]) for first in range(len(parts) - 1, 0, -1))

    return {
        name: next((end for end in ends(name) if sum(end in other for other in every) == 1), name) for name in every
    }


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
