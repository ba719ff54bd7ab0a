"""A comparison of backbones for people: a table a task, and how far LogME can be trusted here."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pipeline.choosing.comparison import Comparison, Measured
from pipeline.fitting_table import FittingTable
from pipeline.results.counts import METRIC_NAMES
from pipeline.tasks.spec import TaskSpec
from pipeline.terminal import printable
from pipeline.views import parse_views

NUMBERS = ("s", "CPU s", "peak, MB", "weights, MB", "cache, MB", "held-out", "LogME", "LogME, mean / last")
DISPENSABLE = ("LogME, mean / last", "weights, MB", "head", "cache, MB", "CPU s", "peak, MB", "blocks", "held-out")
VIEWS_WIDTH = 40


def comparison_tables(comparison: Comparison) -> RenderableType:
    """Every task's table, with LogME's agreement below."""
    parts: list[RenderableType] = []
    for task in comparison.tasks:
        parts.append(_table(comparison, task))
        agreement = comparison.agreement(task.name)
        told = "too few contenders to say" if agreement is None else str(agreement)
        parts.append(f"{task.name}: LogME against {METRIC_NAMES[task.metric]}: {told}\n")
    return Group(*parts)


def _table(comparison: Comparison, task: TaskSpec) -> Table:
    measured, metric = comparison.of_task(task.name), f"{METRIC_NAMES[task.metric]} [95 %]"
    machines = sorted({machine for each in measured for machine in each.machines})
    table = FittingTable(
        dispensable=DISPENSABLE,
        title="; ".join(str(sample) for sample in comparison.samples if sample.task == task.name),
        notes={
            metric: f"{escape(metric)}: of the head that did best on training rows held out, scored on validation once",
            "held-out": "held-out: the head's score there (* the best: chosen without looking at validation)",
            "s": "s: in the backbone, for a thousand sentences",
            "CPU s": "CPU s: of all threads together, which other work beside them hardly changes",
            "front": "front: nothing is both cheaper, in s, and better",
            "peak, MB": "peak: memory of stage one",
            "cache, MB": "cache: the head's views, for a thousand sentences",
            "LogME": "LogME: of the head's views, from training rows alone",
            "LogME, mean / last": "LogME, mean / last: of each view",
            "contender": f"Measured on {escape('; '.join(machines)) or 'nothing'}"
            f"{' (seconds of different ones do not compare)' if len(machines) > 1 else ''}",
        },
    )
    table.title_justify = "left"
    for name in ("contender", "blocks", "head", "views", metric, *NUMBERS, "front"):
        right = name in (*NUMBERS, metric, "blocks")
        width = VIEWS_WIDTH if name == "views" else None
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold", max_width=width)
    best = max((each.held_out for each in measured), default=None)
    for each, on_front in zip(measured, comparison.front(task.name), strict=True):
        table.add_row(*_cells(each, is_best=each.held_out == best), "front" if on_front else "")
    for twin in comparison.same:
        table.add_row(_text(twin.contender.label), "-", "-", f"the same as {_text(twin.same_as.label)}")
    for missing in comparison.not_had:
        reason = missing.reason.splitlines()[0]
        table.add_row(_text(missing.contender.label), "-", "-", f"not had: {_text(reason)}")
    return table


def _cells(each: Measured, *, is_best: bool) -> list[str]:
    poolings = {parse_views(name)[0].pooling: value for name, value in each.logme.items() if "+" not in name}
    return [
        _text(each.contender.label),
        f"{each.layer} of {each.num_hidden_layers}",
        _text(each.run.head),
        _text(each.views),
        escape(f"{each.score:.3f}"),
        f"{each.seconds_per_thousand:.1f}",
        "-" if (processor := each.processor_seconds_per_thousand) is None else f"{processor:.1f}",
        _megabytes(each.cost.peak_memory_bytes),
        _megabytes(each.cost.weights_bytes),
        f"{each.bytes_per_thousand / 1e6:.2f}",
        f"{each.held_out:.3f}{' *' if is_best else ''}",
        f"{each.logme[each.views]:.4f}",
        f"{poolings['mean']:.4f} / {poolings['last']:.4f}",
    ]


def _text(text: str) -> str:
    return escape(printable(text))


def _megabytes(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / 1e6:,.0f}"
