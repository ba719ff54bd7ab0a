"""A run in some fifteen lines: what was trained on what, how well it does, how sure that is, what the cache saved."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.results.counts import METRIC_NAMES
from pipeline.results.ledger import Run
from pipeline.results.lines import SPLIT, ledger_table, lines_of

FINGERPRINT_DIGITS = 12
"""As in the names of feature sets."""


def run_summary(run: Run, folder: Path, saved: Mapping[str, Mapping[str, Any]]) -> Table:
    """A run for people.

    Args:
        run, folder: which, and where it lies.
        saved: what its cached features saved, as `savings.of_run` has it.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    lines = ledger_table(lines_of([run])).to_pylist()
    table.add_row("run", escape(run.run))
    table.add_row("created", f"{lines[0]['created']:%Y-%m-%d %H:%M:%S} UTC, in {run.seconds:,.1f} s; seed {run.seed}")
    table.add_row("trained", escape(_trained(run, lines[0])))
    for line in lines:
        for name, said in (*_of_task(run, line), *_of_cache(run, line, saved)):
            table.add_row(name, escape(said))
    versions = (
        f"{name} {run.versions.get(name, 'not installed')}" for name in ("torch", "scikit-learn", "transformers")
    )
    table.add_row("made with", escape(", ".join(each for each in versions if "not installed" not in each)))
    table.add_row("files", escape(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"))
    table.add_row("", "every field: --all, or as JSON: --json")
    return table


def _trained(run: Run, line: Mapping[str, Any]) -> str:
    what = run.head if line["adapter"] is None else f"{line['adapter']} ({line['adapter_settings']}) with {run.head}"
    of = " ".join(str(line[name]) for name in ("backbone", "quantization") if line[name])
    through = "on cached features" if run.path == "cached" else "through the backbone"
    merged = f" with the adapter {line['merged_adapter']}" if line["merged_adapter"] else ""
    data = f"; data {line['data']}" if line["data"] else ""
    return f"{what} {through}{f' of {of}' if of else ''}{merged}{data}"


def _of_task(run: Run, line: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    task, metric = line["task"], line["metric"]
    scores, commonest = run.scores.get(task, {}), run.baseline.get(task, {}).get(SPLIT, {})
    if line["views"]:
        yield task, f"on {line['views']}"
    if line["score"] is not None:
        interval = "" if line["low"] is None else f" [{line['low']:.3f}, {line['high']:.3f}]"
        always = f"; always the commonest class: {commonest[metric]:.3f}" if metric in commonest else ""
        yield f"{task}, {SPLIT}", f"{METRIC_NAMES[metric]} {line['score']:.3f}{interval}{always}"
        others = {name: value for name, value in scores[SPLIT].items() if name != metric}
        shown = ", ".join(f"{METRIC_NAMES.get(name, name.replace('_', ' '))} {others[name]:.3f}" for name in others)
        yield "", shown
    if line["held_out"] is not None:
        tried = f"; the best of {line['tried']:,} tried there" if (line["tried"] or 0) > 1 else ""
        yield (
            f"{task}, held out",
            f"{METRIC_NAMES[metric]} {line['held_out']:.3f} on training rows not fitted on{tried}",
        )
    chosen = {name: value for name, value in run.selection.items() if _is_short(value) and name != "tried"}
    if chosen:
        yield "chosen", ", ".join(_chosen(name.replace("_", " "), value) for name, value in chosen.items())


def _of_cache(run: Run, line: Mapping[str, Any], saved: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    task = line["task"]
    if features := run.features.get(task, {}):
        digests = {
            split: " + ".join(name.removeprefix("sha256:")[:FINGERPRINT_DIGITS] for name in names)
            for split, names in features.items()
        }
        yield f"{task}, features", ", ".join(f"{split} {named}" for split, named in digests.items())
    if task in saved and line["stage_one_seconds"] is not None:
        shared, even = saved[task]["shared_by"], saved[task]["break_even"]
        reading = f", and reading them {line['reading_seconds']:.2f} s" if line["reading_seconds"] is not None else ""
        yield (
            f"{task}, the cache",
            f"the features took {line['stage_one_seconds']:,.1f} s once, {line['backbone_seconds']:,.1f} s of that in "
            f"the backbone{reading}; {shared} {'run shares' if shared == 1 else 'runs share'} them; "
            + (
                "caching does not pay off: reading takes as long as computing"
                if even is None
                else f"caching is cheaper than live passes from experiment {even} on"
            ),
        )


def _chosen(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {shown_value(value)}"


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float)


def shown_value(value: Any) -> str:
    """A field's value for people: a text as it is, lists with commas, everything else as JSON has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(map(shown_value, value))
    return json.dumps(value, ensure_ascii=False)
