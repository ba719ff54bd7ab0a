"""The report for people: a line a finding with its mark, what it means under it, and the remedy under that."""

import sys

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.doctor.examine import Report
from pipeline.doctor.finding import Finding, Status
from pipeline.progress import counted
from pipeline.terminal import printable

MARKS: dict[Status, str] = {"ok": "✓", "note": "!", "problem": "✗"}
PLAIN: dict[Status, str] = {"ok": "+", "note": "!", "problem": "x"}
"""For terminals that cannot print the others."""
COLOURS: dict[Status, str] = {"ok": "green", "note": "yellow", "problem": "red"}


def report_for_people(report: Report, encoding: str | None = None) -> Group:
    """The sections, and below them how many problems and notes there are.

    Args:
        encoding: of the terminal; by default of standard output.
    """
    marks = _marks(encoding or sys.stdout.encoding or "ascii")
    parts: list[Text | Padding] = []
    for title, findings in report.sections.items():
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for each in findings:
            table.add_row(Text(marks[each.status], COLOURS[each.status]), _words(each))
        parts += [Text(title, "bold"), Padding(table, (0, 0, 1, 0), expand=False)]
    parts.append(Text(f"{_sum(report)} ({marks['problem']} problem, {marks['note']} note; {report.seconds:.1f} s)"))
    return Group(*parts)


def _sum(report: Report) -> str:
    counts = (("problem", len(report.of("problem"))), ("note", len(report.of("note"))))
    return ", ".join(counted(number, noun) if number else f"no {noun}s" for noun, number in counts)


def _marks(encoding: str) -> dict[Status, str]:
    try:
        "".join(MARKS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return MARKS


def _words(finding: Finding) -> Group:
    """A finding as text, never as markup: it holds what files and libraries say."""
    text = Text.assemble((f"{printable(finding.name)}: ", "bold"), printable(finding.found))
    below = [Text(printable(finding.means))] if finding.means else []
    if finding.remedy:
        below.append(Text(f"do: {printable(finding.remedy)}", COLOURS[finding.status]))
    return Group(text, *(Padding(each, (0, 0, 0, 2)) for each in below))
