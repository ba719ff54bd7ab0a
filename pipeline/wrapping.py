"""Lines for people on standard error: as wide as the terminal, with words whole."""

import os
import re
import sys
import textwrap
from typing import TextIO

COMMAND = re.compile(r"\b(pipeline|make|pip|python|ray|export) [\w.-]")
"""A line that holds a command is left to the terminal: broken by us, it could not be copied."""
LEAST = 20
"""Characters below which nothing reads well, and nothing is wrapped."""


def wrapped(message: str, stream: TextIO | None = None) -> str:
    """A message whose long lines go on in the next, two characters further in, where it goes to a terminal.

    Args:
        stream: where it goes; by default standard error. Its width is COLUMNS where that is set.
    """
    width = _width(stream or sys.stderr)
    if width < LEAST:
        return message
    return "\n".join(line if COMMAND.search(line) else _wrapped(line, width) for line in message.split("\n"))


def _wrapped(line: str, width: int) -> str:
    text = line.lstrip(" ")
    indent = line[: len(line) - len(text)]
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    return "\n".join(lines) or line


def _width(stream: TextIO | None) -> int:
    """Characters a line, or 0 where nobody said."""
    try:
        if stream is None or not stream.isatty():  # None is what Python has for one that was closed before it began
            return 0
        if (columns := os.environ.get("COLUMNS", "")).isdecimal():
            return int(columns)
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # closed since, or no terminal after all
        return 0
