"""A figure of the report: what is drawn, what is said of it, and the data behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.results.report.entries import KINDS, Kind

COLOURS = 8
"""How many colours tell series apart; each is a variable of the style sheet, one value a theme."""
SYMBOLS: dict[Kind, str] = {"cached": "circle", "lora": "diamond", "prompt": "square", "baseline": "x-thin-open"}
"""A kind's mark, so that it is told by more than its colour."""
OF_SERIES = ("circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "8px 3px", "2px 6px")
MUTED, TEXT, LINE = "var(--muted)", "var(--text)", "var(--line)"


def colour(place: int) -> str:
    """The colour of the series at a place, as the page's script reads it from the style sheet."""
    return f"var(--series-{place % COLOURS + 1})"


def kind_colour(kind: Kind) -> str:
    """The colour of a kind of run."""
    return MUTED if kind == "baseline" else colour(list(KINDS).index(kind))


@dataclass(frozen=True)
class Variant:
    """One way of drawing a figure.

    Args:
        name: what chooses it, where there are several.
        traces: plotly's; each says in `panel` which panel it is drawn in. Colours may be variables of the style sheet.
        panels: one a set of axes: `title`, `x` and `y` as plotly's axes; `lines` across it, each a `y` with its `name`;
            `labels`, names of points, written where they hide nothing; `ticks` of `x`, of which as many are drawn as
            have room. The page lays out as many panels side by side as its width allows.
    """

    name: str
    traces: list[dict[str, Any]]
    panels: list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        id: of its element on the page.
        title: its heading.
        caption: how to read it.
        alt: what it shows, with its main numbers, for people who do not see it.
        variants: how it is drawn, one or several ways to choose from.
        columns, rows: the data behind it.
        runs: names of the runs behind it.
        height: of a panel, in pixels.
        narrowest: a panel is never narrower, in pixels, unless the page is.
    """

    id: str
    title: str
    caption: str
    alt: str
    variants: Sequence[Variant]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    runs: Sequence[str] = ()
    features: Sequence[str] = field(default=())
    height: int = 360
    narrowest: int = 320

    def to_dict(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {
            "title": self.title,
            "caption": self.caption,
            "variants": [{"name": v.name, "traces": v.traces, "panels": v.panels} for v in self.variants],
            "columns": list(self.columns),
            "rows": [[_shorter(value) for value in row] for row in self.rows],
            "runs": list(self.runs),
            "features": list(self.features),
            "height": self.height,
            "narrowest": self.narrowest,
        }


def _shorter(value: Any) -> Any:
    """Numbers with as many digits as anybody reads; a loss that ran away, and is not finite, is none."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def short(numbers: Sequence[float | None]) -> list[float | None]:
    """Numbers to draw, with five digits; what is not finite is not drawn."""
    return [None if number is None or not math.isfinite(number) else float(f"{number:.5g}") for number in numbers]


def said(estimate: float, low: float | None, high: float | None) -> str:
    """A score with its interval in words."""
    return f"{estimate:.3f}" if low is None or high is None else f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def errors(middle: Sequence[float], low: Sequence[float | None], high: Sequence[float | None]) -> dict[str, Any]:
    """Plotly's asymmetric error bars of intervals; those without ends have none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": short([0.0 if h is None else h - m for m, h in zip(middle, high, strict=True)]),
        "arrayminus": short([0.0 if b is None else m - b for m, b in zip(middle, low, strict=True)]),
        "thickness": 1.4,
        "width": 3,
    }


def counted(number: int, thing: str) -> str:
    """So many of a thing: one has no plural."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
