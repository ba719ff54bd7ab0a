"""The plan of stage one for people: what is left, what that takes, and what was assumed."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pipeline.extract.estimate import Estimate
from pipeline.extract.plan import Amount, Plan
from pipeline.fitting_table import FittingTable
from pipeline.progress import counted
from pipeline.terminal import printable

COUNTS, BYTES = ("", "k", "M", "G", "T", "P"), ("B", "kB", "MB", "GB", "TB", "PB")
EXACT = 1_000_000
"""Counts below it are written out."""


def plan_tables(plan: Plan) -> RenderableType:
    """What is left of every split and what it takes, bytes by view, and notes."""
    tables = [_work(plan)]
    if plan.total.shards:
        tables += [_costs(plan), _views(plan)]
    return Group(*tables, *(Text(printable(note)) for note in _notes(plan)))


def _lines(plan: Plan) -> list[tuple[str, Amount]]:
    splits = [(f"{each.task}/{each.split}", plan.amount(each)) for each in plan.splits]
    return [*splits, ("in all", plan.total)]


def _table(title: str, plan: Plan, columns: Mapping[str, Sequence[str]], notes: Mapping[str, str]) -> FittingTable:
    """A line a split, and one for all of them."""
    table = FittingTable(("views",), title=title, notes=notes)
    table.title_justify = "left"
    table.add_column("split", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    for place, (name, _) in enumerate(_lines(plan)):
        if place == len(plan.splits):
            table.add_section()
        table.add_row(Text(printable(name)), *(cells[place] for cells in columns.values()))
    return table


def _work(plan: Plan) -> FittingTable:
    amounts = [amount for _, amount in _lines(plan)]
    shards = [each.shards for each in plan.splits]
    columns = {
        "views": [*(_of(each.views - each.whole_views, each.views) for each in plan.splits), ""],
        "rows": [f"{amount.rows:,}" for amount in amounts],
        "shards": [_of(amount.shards, of) for amount, of in zip(amounts, [*shards, sum(shards)], strict=True)],
        "tokens": [shown(amount.tokens, COUNTS) for amount in amounts],
        "own tokens": [shown(amount.own_tokens, COUNTS) for amount in amounts],
        "computed": [shown(amount.computed_tokens, COUNTS) for amount in amounts],
    }
    notes = {
        "own tokens": "own tokens: those after the prompt, from each sentence on",
        "computed": "computed: tokens through the backbone, what rows share once, padding included",
    }
    return _table("what is left", plan, columns, notes)


def _costs(plan: Plan) -> FittingTable:
    amounts = [amount for _, amount in _lines(plan)]
    hours = "GPU hours" if plan.device.startswith("cuda") else "machine hours"
    columns = {
        "hidden states": [shown(amount.raw_bytes, BYTES) for amount in amounts],
        "index": [shown(amount.beside_bytes, BYTES) for amount in amounts],
        "time": ["" if amount.seconds is None else shown_time(amount.seconds) for amount in amounts],
        hours: ["" if amount.device_seconds is None else _shown_hours(amount.device_seconds) for amount in amounts],
    }
    index = "index: texts, labels and places before compression, and what files take beside; at most"
    return _table("what it takes", plan, columns, {"index": index})


def _views(plan: Plan) -> FittingTable:
    table = FittingTable()
    table.add_column("view")
    table.add_column("hidden states", justify="right")
    for name, size in plan.total.view_bytes.items():
        table.add_row(name, shown(size, BYTES))
    return table


def _notes(plan: Plan) -> Iterator[str]:
    total, speed, disk = plan.total, plan.speed, plan.disk
    if total.computed_tokens.error:
        yield f"rows looked at: {total.looked_at:,} of {total.rows:,}; ± holds with 95 % confidence"
    if speed is None:
        yield (
            "no speed is known: no features of this backbone in these numbers, computed on such a device, lie in the "
            "cache. Say one with --tokens-per-second, or compute a shard of each split first: --only-shards 0::1000"
        )
    elif speed.passes:
        yield (
            f"speed: {speed.tokens_per_second:,.0f} computed tokens/s through {speed.blocks} blocks, measured on the "
            f"last {counted(speed.passes, 'shard')}, on {speed.where}; loading the backbone comes on top"
        )
    else:
        yield f"speed: {speed.tokens_per_second:,.0f} computed tokens/s, as given"
    if plan.workers > 1 and speed is not None:
        yield f"time: of {plan.workers} workers at once"
    free = f"{shown(Estimate(disk.free_bytes), BYTES)} free in {disk.folder}"
    if disk.fits:
        yield f"room: {free}"
    else:
        yield f"there is no room: {shown(disk.needed_bytes, BYTES, ' ')} needed, {free}"
    yield from plan.notes


def _of(left: int, number: int) -> str:
    return f"{left:,}" if left == number else f"{left:,}\nof {number:,}"


def shown(estimate: Estimate, units: tuple[str, ...], between: str = "\n") -> str:
    """Such as `251,034`, or `12.3 M` and below it `±0.4 %`.

    Args:
        between: the number and its error.
    """
    value, left = estimate.value, units
    error = f"{between}±{100 * estimate.error / value:.2g} %" if estimate.error else ""
    if units is COUNTS and round(value) < EXACT and not error:
        return f"{round(value):,}"
    while value >= 999.5 and left[1:]:
        value, left = value / 1000, left[1:]
    number = f"{value:.0f}" if left is units else f"{value:.3g}"
    return f"{number} {left[0]}".rstrip() + error


def shown_time(seconds: Estimate) -> str:
    """Such as `42 s`, `3.2 min`, `5.1 h`, `12 days`."""
    value, name = seconds.value, "s"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds.value >= 2 * length:
            value, name = value / length, unit
            break
    return f"{value:,.0f} {name}" if value >= 9.95 else f"{value:.1f} {name}"


def _shown_hours(seconds: Estimate) -> str:
    hours = seconds.value / 3600
    return f"{hours:,.0f}" if hours >= 99.5 else f"{hours:.2g}" if hours >= 0.001 else "<0.001" if hours else "0"
