"""Where a logarithmic axis of seconds has its ticks: at 1, 2 and 5 of each unit, as people say them."""

import math
from collections.abc import Sequence
from typing import Any

UNITS = (("ms", 0.001, 1_000), ("s", 1.0, 60), ("min", 60.0, 60), ("h", 3_600.0, 24), ("days", 86_400.0, 1_000))
"""Each unit's name, its seconds, and below how many of it the next one is said."""
FEWEST = 2
"""An axis with fewer ticks says nothing."""
ROOM = 1.35
"""How far an axis goes beyond what is drawn, as a factor."""


def _steps() -> list[tuple[float, str, bool]]:
    """Every tick that there may be: seconds, words, and whether it stays where not all have room."""
    found = []
    for name, seconds, below in UNITS:
        for power in (1, 10, 100):
            for first in (1, 2, 5):
                number = first * power
                if number < below and not (name == "min" and number == 50) and not (name == "s" and number == 50):
                    found.append((number * seconds, f"{number} {name}".replace("1 days", "1 day"), first == 1))
    return found


STEPS = _steps()


def seconds_axis(seconds: Sequence[float]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A logarithmic axis that holds some seconds with room on both sides, and at least two ticks.

    Args:
        seconds: all positive.

    Returns:
        plotly's axis, and its ticks: `at`, `text`, and `is_major`, those to keep where not all have room.
    """
    low, high = min(seconds) / ROOM, max(seconds) * ROOM
    while sum(low <= at <= high for at, _, _ in STEPS) < FEWEST:
        below = max((at for at, _, _ in STEPS if at < low), default=low)
        above = min((at for at, _, _ in STEPS if at > high), default=high)
        if below < low and (above <= high or low / below < above / high):
            low = below / 1.05
        elif above > high:
            high = above * 1.05
        else:
            break  # beyond all that anybody waits for
    ticks = [{"at": at, "text": text, "is_major": major} for at, text, major in STEPS if low <= at <= high]
    axis = {
        "type": "log", "range": [round(math.log10(low), 4), round(math.log10(high), 4)],
        "tickvals": [tick["at"] for tick in ticks], "ticktext": [tick["text"] for tick in ticks],
    }  # fmt: skip
    return axis, ticks
