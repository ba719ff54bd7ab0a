"""Where a word that is wider than its line is broken: behind its joints, as in L16-mean+L20-mean, or in a path."""

import re
from collections.abc import Iterator

from rich.cells import cell_len, chop_cells
from rich.text import Text

JOINTS = ("+/,;=", "-_:", ".")
"""Characters behind which a word breaks: of a later kind where there is none of those before."""
LEAST = 1 / 3
"""Of a line's width that a piece fills: a joint before that is passed over, where there is another."""


def broken_at_joints(text: Text, width: int) -> Text:
    """A text, its styles kept, with a new line behind the last joint that fits in every word that is too wide.

    Args:
        width: characters a line, as a terminal counts them.
    """
    offsets = [
        word.start() + offset
        for word in re.finditer(r"\S+", text.plain)
        if cell_len(word.group()) > width
        for offset in _offsets(word.group(), width)
    ]
    return text.blank_copy("\n").join(text.divide(offsets)) if offsets else text


def _offsets(word: str, width: int) -> Iterator[int]:
    at, most = 0, 4 * width + 16  # characters that are looked at for a line; some are no cells wide
    while len(window := word[at : at + most]) == most or cell_len(window) > width:
        at += _first(window, width)
        if at < len(word):
            yield at


def _first(window: str, width: int) -> int:
    """Of the beginning of a word that is too wide, the characters that stay on the line."""
    line = chop_cells(window, width)[0]
    ends = [max(line.rfind(joint) for joint in joints) + 1 for joints in JOINTS]
    end = next((each for each in ends if each >= max(1, width * LEAST)), max(ends)) or max(1, len(line))
    while end < len(line) and cell_len(line[end]) == 0:  # marks of the joint
        end += 1
    return end
