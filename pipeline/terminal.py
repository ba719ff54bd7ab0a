"""How every command takes its settings, asks, and prints: a table for people, or JSON alone on standard output."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipeline.errors import MissingPackage, PipelineError
from pipeline.wrapping import wrapped

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def _show_default(value: Any) -> str | None:
    if value is None or value == ():
        return None  # what happens then stands in the option's own words
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


Flat = Parameter(name="*")
WIDE = 200
"""Characters a line of a table that goes to a file or a pipe, where COLUMNS does not say it."""
Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON on standard output, and nothing else.")]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask.")]
LISTS = Parameter(consume_multiple=True, negative_iterable=(), show_default=_show_default)


def print_result(result: Any, as_json: bool, for_people: Callable[[Any], "RenderableType"]) -> None:
    """Print a command's result: as JSON, or as what `for_people` makes of it."""
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
    console.print(for_people(result))


def print_list(records: Sequence[Any], as_json: bool, for_people: Callable[[Any], "RenderableType"], why: str) -> None:
    """Print a list as `print_result` does; of an empty one people see no table, but why it is empty.

    Args:
        why: it is, should it be empty; said on standard error.
    """
    if not records:
        complain(why)
    if records or as_json:
        print_result(records, as_json, for_people)


def complain(message: str) -> None:
    """Say on standard error what went wrong, or why there is nothing."""
    print(wrapped(message), file=sys.stderr)


def why_empty(folder: Path, otherwise: str) -> str:
    """Why nothing is found in a folder: it is not there, or else as is said."""
    return otherwise if folder.is_dir() else f"there is no folder {folder}"


def columns(rows: Iterable[dict[str, Any]], names: tuple[str, ...]) -> "Table":
    """A table of these columns, one line a record."""
    from rich.text import Text

    from pipeline.fitting_table import FittingTable

    table = FittingTable()
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(row[name]))) for name in names))  # a value is text, never markup
    return table


def printable(text: str) -> str:
    """Text without what a terminal would obey: control characters are shown, not sent."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def agree(question: str) -> bool:
    """Yes, without asking."""
    return True


def nobody(question: str) -> bool:
    """No, because there is nobody to ask."""
    return False


def ask(question: str) -> bool:
    """Put a question to the person at the terminal."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def missing_package(error: ModuleNotFoundError, extra: str) -> PipelineError:
    """The error for a package that is not installed; one of our own is a bug, and raised as it is."""
    if error.name and not error.name.startswith("pipeline"):
        return MissingPackage(error.name, extra)
    raise error
