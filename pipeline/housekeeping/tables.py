"""Feature sets and leftovers as tables for people."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.cache.compare import Comparison
from pipeline.cache.identity import Difference, flatten, shown_values
from pipeline.cache.inventory import NAME
from pipeline.cache.passport import passport_in_words
from pipeline.fitting_table import FittingTable
from pipeline.terminal import printable

Records = Sequence[Mapping[str, Any]]
FINGERPRINT_NOTE = "name: the beginning of its fingerprint; every command finds it by that"
NUMBERS = ("rows", "tokens", "truncated", "shards", "files", "bytes", "sent", "skipped", "size", "age", "runs")


def feature_sets_table(records: Records, what: str = "in all") -> Table:
    """One line a feature set, and how many rows and bytes they are together.

    Args:
        what: what is said of the sum.
    """
    problems = [f"{record['name']}: {record['problem']}" for record in records if record["problem"]]
    size_bytes, rows = (sum(record[name] for record in records) for name in ("size_bytes", "rows"))
    count = f"{len(records)} feature set{'' if len(records) == 1 else 's'}"
    total = f"{what}: {count}, {rows:,} rows, {readable_size(size_bytes)}"
    dispensable = ("source", "age", "runs", "view", "size", "rows", "state")
    table = FittingTable(dispensable, caption=_shown("\n".join([total, *problems])))
    for name in ("task", "split", "name", "view", "state", "rows", "size", "age", "source", "runs"):
        _add_column(table, name)
    now = datetime.datetime.now(datetime.UTC)
    for record in records:
        cells = [record[name] or "-" for name in ("task", "split", "name", "view", "state")]
        cells += [f"{record['rows']:,}", readable_size(record["size_bytes"]), readable_age(record["created"], now)]
        cells += [record["source"] or "-", "?" if record["runs"] is None else str(len(record["runs"]))]
        table.add_row(*map(_shown, cells))
    table.shorten("name", [*map(_shown, _short_names(records))], FINGERPRINT_NOTE)
    return table


def sets_in_columns(records: Records, names: Sequence[str], dispensable: Sequence[str] = ()) -> Table:
    """A table of these columns, `name` among them: one line for what became of a feature set.

    Args:
        dispensable: columns that may go in a narrow terminal, the least missed first.
    """
    table = FittingTable(dispensable)
    for name in names:
        _add_column(table, name)
    for record in records:
        table.add_row(*(_shown(str(record[name])) for name in names))
    matches = [NAME.fullmatch(record["name"]) for record in records]
    views = [f"L{match['layer']}-{match['pooling']} " if match else "" for match in matches]
    cells = [_shown(view + name) for view, name in zip(views, _short_names(records), strict=True)]
    table.shorten("name", cells, "name: the view, and the beginning of the fingerprint: every command finds it by that")
    return table


def _add_column(table: Table, name: str) -> None:
    whole = name in NUMBERS or name in ("name", "state", "status")
    table.add_column(name, overflow="fold", justify="right" if name in NUMBERS else "left", no_wrap=whole)


def _short_names(records: Records) -> list[str]:
    """The digits that a feature set's name ends in; the whole name where another set has the same, or it has none."""
    matches = [NAME.fullmatch(record["name"]) for record in records]
    digits = [match["digits"] if match else record["name"] for match, record in zip(matches, records, strict=True)]
    places = {(record["task"], record["split"], own) for record, own in zip(records, digits, strict=True)}
    sets = Counter(own for *_, own in places)
    return [own if sets[own] == 1 else record["name"] for own, record in zip(digits, records, strict=True)]


def leftovers_table(records: Records) -> Table | str:
    """One line for each thing that is not whole: what it is, and what became of it."""
    if not records:
        return "everything is whole: there is nothing to collect"
    freed_bytes = sum(record["size_bytes"] for record in records if record["status"] != "kept")
    kept = sum(record["status"] == "kept" for record in records)
    table = FittingTable(caption=f"{readable_size(freed_bytes)} freed, or to be freed; {kept} kept")
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
        table = FittingTable(title=title)
        table.title_justify, table.show_header = "left", False
        for name in ("field", "value"):
            table.add_column(name, overflow="fold", no_wrap=name == "field")
        for name, value in lines:
            table.add_row(Text(printable(name)), Text(printable(str(value))))  # a value is text, never markup
        tables.append(table)
    return Group(*tables)


def comparison_tables(found: Comparison) -> Group:
    """A comparison for people: a table for what differs in the identity, and one for what is recorded beside it."""
    parts: list[Text | Table] = [
        Text(printable(f"{side}: {m.task}/{m.split}/{m.name}"), overflow="fold")
        for side, m in (("A", found.a), ("B", found.b))
    ]
    for title, rows, equal in (
        ("identity", found.identity, "equal: the same features, by every fact that can change a value"),
        ("recorded", found.recorded, "equal"),
    ):
        many = f"{len(rows)} field{'s differ' if rows[1:] else ' differs'}"
        parts.append(Text(f"{title}: {many if rows else equal}"))
        parts += [_differing(rows)] if rows else []
    return Group(*parts)


def _differing(rows: Sequence[Difference]) -> Table:
    table = FittingTable()
    for name in ("field", "A", "B"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in (row.field, *shown_values(row.wanted, row.found))))
    return table


def _shown(cell: str) -> str:
    """A value as text: neither markup nor anything that a terminal would obey."""
    return escape(printable(cell))
