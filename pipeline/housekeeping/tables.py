"""Feature sets and leftovers as tables for people."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.cache.identity import flatten
from pipeline.cache.passport import passport_in_words
from pipeline.fitting_table import FittingTable
from pipeline.terminal import printable

Records = Sequence[Mapping[str, Any]]


def feature_sets_table(records: Records, what: str = "in all") -> Table:
    """One line a feature set, and how many rows and bytes they are together.

    Args:
        what: what is said of the sum.
    """
    problems = [f"{record['name']}: {record['problem']}" for record in records if record["problem"]]
    size_bytes, rows = (sum(record[name] for record in records) for name in ("size_bytes", "rows"))
    count = f"{len(records)} feature set{'' if len(records) == 1 else 's'}"
    total = f"{what}: {count}, {rows:,} rows, {readable_size(size_bytes)}"
    table = FittingTable(("source", "age", "view", "runs", "state"), caption=escape("\n".join([total, *problems])))
    table.caption_justify = "left"
    for name in ("task", "split", "name", "view", "state", "rows", "size", "age", "source", "runs"):
        numbers = name in ("rows", "size", "age", "runs")
        table.add_column(
            name, overflow="fold", justify="right" if numbers else "left", no_wrap=numbers or name == "name"
        )
    now = datetime.datetime.now(datetime.UTC)
    for record in records:
        cells = [record[name] or "-" for name in ("task", "split", "name", "view", "state")]
        cells += [f"{record['rows']:,}", readable_size(record["size_bytes"]), readable_age(record["created"], now)]
        cells += [record["source"] or "-", "?" if record["runs"] is None else str(len(record["runs"]))]
        table.add_row(*map(_shown, cells))
    return table


def leftovers_table(records: Records) -> Table | str:
    """One line for each thing that is not whole: what it is, and what became of it."""
    if not records:
        return "everything is whole: there is nothing to collect"
    freed_bytes = sum(record["size_bytes"] for record in records if record["status"] != "kept")
    kept = sum(record["status"] == "kept" for record in records)
    table = FittingTable(caption=f"{readable_size(freed_bytes)} freed, or to be freed; {kept} kept")
    table.caption_justify = "left"
    for name in ("what", "path", "rows done", "size", "status", "why"):
        table.add_column(name, overflow="fold")
    for record in records:
        cells = [record["kind"], record["path"], f"{record['rows']:,}", readable_size(record["size_bytes"])]
        table.add_row(*map(_shown, [*cells, record["status"], record["why"]]))
    return table


def readable_size(size_bytes: int) -> str:
    """Bytes as people read them: `618 MB`."""
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and units[1:]:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def readable_age(created: str, now: datetime.datetime) -> str:
    """How long ago, in the largest unit that fits: `3 days`."""
    seconds = max(0, int((now - datetime.datetime.fromisoformat(created)).total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if count := seconds // length:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "now"


def manifest_tables(manifest: dict[str, Any]) -> Group:
    """A manifest for people: the passport in words, then the identity, then what is recorded beside it."""
    recorded = {name: value for name, value in manifest.items() if name not in ("identity", "passport")}
    parts = (
        ("passport: measured while writing", passport_in_words(manifest["passport"])),
        ("identity: what decides a value", flatten(manifest["identity"]).items()),
        ("beside it", flatten(recorded).items()),
    )
    tables = []
    for title, lines in parts:
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in lines:
            table.add_row(Text(printable(name)), Text(printable(str(value))))  # a value is text, never markup
        tables.append(table)
    return Group(*tables)


def _shown(cell: str) -> str:
    """A value as text: neither markup nor anything that a terminal would obey."""
    return escape(printable(cell))
