"""A table for terminals of any width: where not all columns fit, some are left out, and words stay whole."""

from collections.abc import Mapping, Sequence
from copy import copy

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from pipeline.joints import broken_at_joints

COMFORTABLE = 16
"""Characters that a column of words likes to have before another one has to go."""


class FittingTable(Table):
    """A table whose columns go, one by one, until the rest fits; these are then as wide as there is room.

    Args:
        dispensable: the headers of columns that may go, the least missed first.
        caption: below it.
        title: above it.
        notes: by header, what is said below the table as long as the column is shown.
    """

    def __init__(
        self,
        dispensable: Sequence[str] = (),
        caption: str | None = None,
        title: str | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(caption=caption, title=title, caption_justify="left")
        self.dispensable, self.notes = tuple(dispensable), dict(notes or {})
        self.shortened: dict[str, tuple[list[str], str]] = {}

    def shorten(self, header: str, cells: Sequence[str], note: str) -> None:
        """Give a column shorter cells, which stand there before any column goes, and what is said of them below."""
        self.shortened[header] = ([*cells], note)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the columns that fit; what was left out stands in the caption."""
        shown, gone, notes = copy(self), [], dict(self.notes)

        def is_too_wide() -> bool:
            return sum(_least_comfortable(shown._measured(console, options))) > shown._room(options)

        if is_too_wide():
            shown.columns = [self._short(column) for column in shown.columns]
            notes |= {header: note for header, (_, note) in self.shortened.items()}
        for header in self.dispensable:
            if not is_too_wide():
                break
            shown.columns = [column for column in shown.columns if column.header != header]
            gone.append(header)
        said = [note for header, note in notes.items() if header not in gone]
        apart = "; " if any("," in header for header in gone) else ", "
        said += [f"left out for want of width: {apart.join(gone)}"] if gone else []
        about = str(self.caption) if self.caption else ""
        lines = [about, ". ".join(said)] if "\n" in about else [". ".join(filter(None, [about, *said]))]
        shown.caption = "\n".join(filter(None, lines)) or None
        whole = [column.no_wrap for column in shown.columns]
        widths = fitting_widths(shown._measured(console, options), shown._room(options), whole)
        shown.columns = [copy(column) for column in shown.columns]
        for column, width in zip(shown.columns, widths, strict=True):
            column.width, column.no_wrap = width, False
            column._cells = [_broken(cell, width, console) for cell in column._cells]
        yield from Table.__rich_console__(shown, console, options)

    def _short(self, column: Column) -> Column:
        if column.header not in self.shortened:
            return column
        short = copy(column)
        short._cells = [*self.shortened[str(column.header)][0]]
        return short

    def _measured(self, console: Console, options: ConsoleOptions) -> list[tuple[int, int]]:
        """Of each column the characters of its longest word, and of its longest line."""
        boundless = options.update(width=10_000)
        found = []
        for column in self.columns:
            width = self._measure_column(console, boundless, column)
            pad = self._get_padding_width(column._index)
            most = width.maximum - pad
            found.append((most if column.no_wrap else min(width.minimum - pad, most), most))
        return found

    def _room(self, options: ConsoleOptions) -> int:
        """Characters for the cells alone."""
        return (
            options.max_width - self._extra_width - sum(self._get_padding_width(each._index) for each in self.columns)
        )


def _broken(cell: RenderableType, width: int, console: Console) -> RenderableType:
    """A cell whose words break at their joints, where they have to."""
    text = console.render_str(cell, highlight=False) if isinstance(cell, str) else cell
    return broken_at_joints(text, width) if isinstance(text, Text) else cell


def _least_comfortable(measured: Sequence[tuple[int, int]]) -> list[int]:
    return [min(most, max(least, COMFORTABLE)) for least, most in measured]


def fitting_widths(measured: Sequence[tuple[int, int]], room: int, whole: Sequence[bool] = ()) -> list[int]:
    """Widths of columns that together have so much room.

    None is wider than its longest line, and none breaks a word while another has more than it. Where not even all
    longest words fit, the longest of these are broken: of columns that are not to be `whole` alone, as long as these
    keep `COMFORTABLE / 2`.

    Args:
        measured: of each column its longest word and its longest line.
        room: characters for all of them.
        whole: of each column whether its lines are broken last; by default of none.
    """

    def at(level: int) -> list[int]:
        return [min(most, max(least, level)) for least, most in measured]

    def broken(level: int) -> list[int]:
        return [max(1, min(least, level)) for least, _ in measured]

    def broken_elsewhere(level: int) -> list[int]:
        wide = [max(1, min(least, max(level, COMFORTABLE // 2))) for least, _ in measured]
        return [least if last else each for (least, _), each, last in zip(measured, wide, whole, strict=True)]

    longest = max((most for _, most in measured), default=0)
    widths = at if sum(at(0)) <= room else broken
    if widths is broken and any(whole) and sum(broken_elsewhere(0)) <= room:
        widths = broken_elsewhere
    level = max((each for each in range(longest + 1) if sum(widths(each)) <= room), default=0)
    return widths(level)
