"""A table for terminals of any width: where not all columns fit, some are left out, and names are never broken."""

from collections.abc import Sequence
from copy import copy

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table


class FittingTable(Table):
    """A table whose columns go, one by one, until the rest fits.

    Args:
        dispensable: the headers of columns that may go, the least missed first.
        caption: below it.
        title: above it.
    """

    def __init__(self, dispensable: Sequence[str] = (), caption: str | None = None, title: str | None = None) -> None:
        super().__init__(caption=caption, title=title)
        self.dispensable = tuple(dispensable)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the columns that fit; what was left out stands in the caption."""
        shown, gone = copy(self), []
        boundless = options.update(width=10_000)
        for header in self.dispensable:
            if Table.__rich_measure__(shown, console, boundless).maximum <= options.max_width:
                break
            shown.columns = [column for column in shown.columns if column.header != header]
            gone.append(header)
        if gone:
            note = f"left out for want of width: {', '.join(gone)}"
            shown.caption = f"{self.caption}. {note}" if self.caption else note
        yield from Table.__rich_console__(shown, console, options)
