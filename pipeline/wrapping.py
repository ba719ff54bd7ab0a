"""Lines for people on standard error: as wide as the terminal, with words whole."""

import os
import re
import sys
from typing import TextIO

COMMAND = re.compile(r"\b(?:pipeline|make|pip|ray|hf|apt-get) [^;,()]*?(?=[;,:)](?: |$)|\)|\. | \(|$)")
"""A command in a line, up to what ends it: broken by nobody but the terminal, it can be copied."""
HOLDS = "\N{NO-BREAK SPACE}"
"""Stands for the spaces of a command while its line is broken."""
LEAST = 20
"""Characters below which nothing reads well, and nothing is wrapped."""


def wrapped(message: str, stream: TextIO | None = None) -> str:
    """A message whose long lines go on in the next, two characters further in, where it goes to a terminal.

    Args:
        stream: where it goes; by default standard error. Its width is COLUMNS where that is set.
    """
    width = _width(stream or sys.stderr)
    if width < LEAST or max(map(len, message.split("\n"))) * 2 <= width:  # no character is wider than two cells
        return message
    return "\n".join(_wrapped(line, width) for line in message.split("\n"))


def _wrapped(line: str, width: int) -> str:
    """The line, broken in the spaces between words; what is left of it is as it was."""
    from rich.cells import cell_len

    line = COMMAND.sub(lambda command: command.group().replace(" ", HOLDS), line)
    indent = f"{line[: len(line) - len(line.lstrip(' '))]}  "
    lines, room = [""], width
    for spaces, word in re.findall(rf"((?:(?!{HOLDS})\s)*)((?:\S|{HOLDS})+)", line):
        if lines[-1].strip() and cell_len(spaces + word) > room:
            lines.append(indent)
            room, spaces = width - len(indent), ""
        lines[-1] += spaces + word
        room -= cell_len(spaces + word)
    return "\n".join(lines).replace(HOLDS, " ")


def _width(stream: TextIO | None) -> int:
    """Characters a line, or 0 where nobody said."""
    try:
        if stream is None or not stream.isatty():  # None is what Python has for one that was closed before it began
            return 0
        if (columns := os.environ.get("COLUMNS", "")).isdecimal():
            return int(columns)
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # closed since, no terminal after all, or something that only writes
        return 0
