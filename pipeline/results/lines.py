"""The ledger as a flat table: one line a run and task, which pandas, DuckDB and any reader of Parquet open."""

import contextlib
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.partials import partial_path
from pipeline.results.counts import COUNTED, OF_PROBABILITIES
from pipeline.results.ledger import Run, read_run, run_folders
from pipeline.results.savings import break_even

LEDGER = "ledger.parquet"
"""Beside the runs."""
SPLIT = "validation"
SCHEMA = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("created", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # cached or live
        pa.field("task", pa.string(), nullable=False),
        pa.field("head", pa.string(), nullable=False),
        pa.field("adapter", pa.string()),  # what a live run trained: lora or prompt
        pa.field("adapter_settings", pa.string()),  # in which it differs from others, for people
        pa.field("views", pa.string()),
        pa.field("backbone", pa.string()),
        pa.field("quantization", pa.string()),
        pa.field("merged_adapter", pa.string()),  # of the features' backbone
        pa.field("data", pa.string()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("tried", pa.int64()),
        pa.field("metric", pa.string(), nullable=False),  # what decides the task
        pa.field("held_out", pa.float64()),  # by that metric, on training rows that were held out
        pa.field("held_out_rows", pa.string(), nullable=False),  # which: a digest, of the oldest runs their settings
        pa.field("score", pa.float64()),  # by that metric, on validation, as all that follow
        pa.field("low", pa.float64()),  # the ends of its 95 % interval over rows
        pa.field("high", pa.float64()),
        *(pa.field(metric, pa.float64()) for metric in (*COUNTED, *OF_PROBABILITIES)),
        pa.field("majority_accuracy", pa.float64()),
        pa.field("rows", pa.string()),  # which sentences were predicted: a digest
        pa.field("backbone_seconds", pa.float64()),  # what its cached features took in the backbone, once
        pa.field("stage_one_seconds", pa.float64()),  # the same with writing
        pa.field("reading_seconds", pa.float64()),  # and reading them, this time
        pa.field("break_even", pa.int64()),  # from so many experiments on caching is cheaper than live passes
        pa.field("features", pa.list_(pa.string()), nullable=False),  # fingerprints of what it trained on
        pa.field("config", pa.string(), nullable=False),  # every setting, as JSON
        pa.field("selection", pa.string(), nullable=False),  # what was chosen and how, as JSON
        pa.field("versions", pa.string(), nullable=False),  # of packages, as JSON
    ]
)


@dataclass(frozen=True)
class Line:
    """One task of one run.

    Args:
        task: which.
        run: with all its tasks.
    """

    task: str
    run: Run


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Every task of every run, in their order."""
    return [Line(task, run) for run in runs for task in run.tasks]


def deciding_metric(run: Run, task: str) -> str:
    """What decides a task, as the run has it."""
    of_tasks = run.config.get("metrics")
    return str((of_tasks or {}).get(task) or run.config.get("metric", "accuracy"))


def ledger_table(lines: Sequence[Line]) -> pa.Table:
    """Lines as a table of `SCHEMA`."""
    return pa.Table.from_pylist([_record(line) for line in lines], SCHEMA)


def read_ledger(runs_dir: Path) -> pa.Table:
    """All lines, the oldest run first; the file is brought up to date where it can be written.

    Raises:
        RunError: a record cannot be read.
    """
    ledger, is_new = _up_to_date(runs_dir)
    if is_new and runs_dir.is_dir():
        with contextlib.suppress(OSError):  # a folder that is only read
            _write(ledger, runs_dir / LEDGER)
    return ledger


def update_ledger(runs_dir: Path) -> None:
    """Bring `LEDGER` up to date with the runs that are there.

    Only the records of runs that it lacks are read. Whoever enters a run calls this afterwards, and it looks again when
    it has written: so of several at once the last one to write has seen all runs.

    Raises:
        RunError: a record cannot be read, or the file cannot be written.
    """
    path = runs_dir / LEDGER
    while True:
        ledger, is_new = _up_to_date(runs_dir)
        if not is_new:
            return
        try:
            _write(ledger, path)
        except OSError as error:
            raise RunError("the ledger cannot be written", where=path, found=error.strerror or error) from error


def _up_to_date(runs_dir: Path) -> tuple[pa.Table, bool]:
    """The ledger with all runs that are there and no others, and whether the file has another."""
    known = _known(runs_dir / LEDGER)
    names = [folder.name for folder in run_folders(runs_dir)]
    there = set(names)
    kept = [] if known is None else [line for line in known.to_pylist() if line["run"] in there]
    seen = {line["run"] for line in kept}
    new = [_record(line) for line in lines_of([read_run(runs_dir / name) for name in names if name not in seen])]
    if known is not None and not new and len(kept) == known.num_rows:
        return known, False
    return pa.Table.from_pylist(sorted([*kept, *new], key=lambda line: str(line["run"])), SCHEMA), True


def _write(ledger: pa.Table, path: Path) -> None:
    partial = partial_path(path)
    try:
        pq.write_table(ledger, partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _known(path: Path) -> pa.Table | None:
    """The ledger as it stands, if it is one of this version."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(SCHEMA) else None


def _record(line: Line) -> dict[str, Any]:
    run, task, config = line.run, line.task, line.run.config
    metric, scores = deciding_metric(run, task), run.scores.get(task, {})
    statistics = run.statistics.get(task, {})
    interval = statistics.get(SPLIT, {}).get("intervals", {}).get(metric, {})
    merged, cost = config.get("adapter"), run.costs.get(task, {})
    return {
        "run": run.run,
        "created": datetime.datetime.fromisoformat(run.created),
        "path": run.path,
        "task": task,
        "head": run.head,
        "adapter": None if run.adapter is None else run.adapter["kind"],
        "adapter_settings": _adapter_settings(run, task),
        "views": config.get("features") or (config.get("views") or {}).get(task),
        "backbone": config.get("backbone"),
        "quantization": config.get("quantization"),
        "merged_adapter": None if merged is None else str(merged),
        "data": config.get("data"),
        "seed": run.seed,
        "seconds": run.seconds,
        "tried": run.selection.get("tried"),
        "metric": metric,
        "held_out": scores.get("held_out", {}).get(metric),
        "held_out_rows": statistics.get("held_out", {}).get("texts") or _settings_of_held_out(run),
        "score": scores.get(SPLIT, {}).get(metric),
        "low": interval.get("low"),
        "high": interval.get("high"),
        **{name: scores.get(SPLIT, {}).get(name) for name in (*COUNTED, *OF_PROBABILITIES)},
        "majority_accuracy": run.baseline.get(task, {}).get(SPLIT, {}).get("accuracy"),
        "rows": statistics.get(SPLIT, {}).get("texts"),
        "backbone_seconds": cost.get("backbone_seconds"),
        "stage_one_seconds": cost.get("seconds"),
        "reading_seconds": cost.get("reading_seconds"),
        "break_even": break_even(cost) if cost else None,
        "features": [name for names in run.features.get(task, {}).values() for name in names],
        **{name: json.dumps(getattr(run, name), sort_keys=True) for name in ("config", "selection", "versions")},
    }


def _adapter_settings(run: Run, task: str) -> str | None:
    """What live runs are told apart by, such as `r=4 alpha=16 lr=0.001 epochs=3`."""
    if run.adapter is None:
        return None
    training = run.config.get("training", {})
    of_training = {name: training.get(setting) for name, setting in (("lr", "learning_rate"), ("epochs", "epochs"))}
    of_training |= {"rows": training.get("max_rows") or None, "seed": run.seed}
    found: dict[str, Any]
    if run.adapter["kind"] == "lora":
        found = {"r": run.adapter.get("rank"), "alpha": run.adapter.get("alpha")}
    else:
        found = {"tokens": run.adapter.get("virtual_tokens", {}).get(task)}
        found["shared"] = run.adapter.get("shared_virtual_tokens") or None
    shown = {name: value for name, value in (found | of_training).items() if value is not None}
    return " ".join(f"{name}={value:g}" for name, value in shown.items())


def _settings_of_held_out(run: Run) -> str:
    settings = {**run.config, **run.config.get("training", {})}
    names = ("data", "held_out", "seeds", "group_by", "score_on")
    return json.dumps({**{name: settings.get(name) for name in names}, "seed": run.seed})
