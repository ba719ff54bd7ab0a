"""Where a word that is wider than its line is broken: behind its joints, as in L16-mean+L20-mean, or in a path."""

import re
from collections.abc import Iterator

from rich.cells import cell_len, chop_cells
from rich.text import Text

JOINTS = ("+/,;=", "-_:")
"""Characters behind which a word breaks: of the second kind where there is none of the first."""
LEAST = 1 / 3
"""Of a line's width that a piece fills: a joint before that is passed over."""


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
    at = 0
    while cell_len(word[at:]) > width:
        at += _first(word[at:], width)
        yield at


def _first(word: str, width: int) -> int:
    """Of a word that is too wide, the characters that stay on the line."""
    window = chop_cells(word, width)[0]
    ends = (max(window.rfind(joint) for joint in joints) + 1 for joints in JOINTS)
    return next((end for end in ends if end >= max(1, width * LEAST)), max(1, len(window)))
