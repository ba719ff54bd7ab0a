"""Pieces of the page. Every value that comes from a run or a sentence is escaped here, once."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.results.intervals import Interval
from pipeline.results.report.entries import KINDS, Entry
from pipeline.results.report.figure import Figure, counted


def esc(value: object) -> str:
    """Text as HTML, also inside an attribute's quotes."""
    return html.escape(str(value), quote=True)


def embedded_json(record: Any) -> str:
    """A record as JSON that no browser takes for markup, whatever its strings say."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate({ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})


def seconds_in_words(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "not recorded"
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def kind_tag(entry: Entry) -> str:
    """A run's kind with its mark."""
    return f'<span class="kind k-{entry.kind}">{esc(KINDS[entry.kind])}</span>'


class Scale:
    """What share of a whisker's width a score is.

    Args:
        scores: all that are drawn on it, with their intervals.
        floor: what the commonest class scores; it is marked where the scale reaches it.
        with_floor: whether the scale must.
    """

    def __init__(self, scores: Sequence[Interval], floor: float | None, *, with_floor: bool = True) -> None:
        ends = [end for each in scores for end in (each.estimate, each.low, each.high) if end is not None]
        ends += [] if floor is None or not with_floor else [floor]
        low, high = min(ends, default=0.0), max(ends, default=1.0)
        room = 0.04 * max(high - low, 1e-6)
        self._low, self._wide, self._floor = low - room, high - low + 2 * room, floor

    def _at(self, score: float) -> str:
        return f"{min(100.0, max(0.0, 100 * (score - self._low) / self._wide)):.1f}%"

    def whisker(self, score: Interval, kind: str) -> str:
        """A score as a dot in the span of its interval; nothing that is not also said in numbers."""
        low = score.estimate if score.low is None else score.low
        high = score.estimate if score.high is None else score.high
        is_on = self._floor is not None and 0 <= self._floor - self._low <= self._wide
        floor = "" if not is_on or self._floor is None else f';--b:{self._at(self._floor)}"><i class="floor"></i'
        style = f"--l:{self._at(low)};--h:{self._at(high)};--e:{self._at(score.estimate)}"
        close = '"' if not floor else ""
        return (
            f'<span class="whisker k-{kind}" aria-hidden="true" style="{style}{floor}{close}>'
            '<i class="span"></i><i class="dot"></i></span>'
        )


def sortable(
    name: str,
    caption: str,
    heads: Sequence[tuple[str, str]],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    sorted_by: int,
    of: str,
) -> str:
    """A table that sorts by every column.

    Args:
        name: its id.
        caption: what it is of; the element `<name>-about` says how to read it.
        heads: each column's name, and what its first click makes of it: `ascending` or `descending`.
        rows: each its class and its cells, whole elements.
        sorted_by: the column that the rows are sorted by already.
        of: what a row is.
    """
    columns = "".join(
        f'<th scope="col" data-first="{first}"'
        + (' aria-sort="ascending"' if place == sorted_by else "")
        + f'><button type="button">{esc(head)}</button></th>'
        for place, (head, first) in enumerate(heads)
    )
    body = "".join(f"<tr{f' class={kind}' if kind else ''}>{''.join(cells)}</tr>" for kind, cells in rows)
    return (
        f'<table id="{esc(name)}" data-sorts="{esc(of)}" aria-describedby="{esc(name)}-about">'
        f'<caption class="hidden">{esc(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    )


def number(value: float | None, spec: str = ".3f", shown: str | None = None) -> str:
    """A cell with a number, which sorts by it; an empty one sorts last."""
    if value is None:
        return '<td class="n" data-v=""></td>'
    return f'<td class="n" data-v="{value:.8g}">{esc(format(value, spec)) if shown is None else shown}</td>'


def text(value: object, kind: str = "") -> str:
    """A cell with text."""
    return f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{esc(value)}</td>"


def unbroken(words: Iterable[str], between: str) -> str:
    """Words of which a line breaks none, also where they have hyphens in them.

    Args:
        between: what stands between two, as HTML.
    """
    return between.join(f'<span class="keep">{esc(word)}</span>' for word in words)


def scrolling(content: str, label: str, kind: str = "") -> str:
    """A box that scrolls by itself, also by keyboard."""
    return f'<div class="box{kind}" role="region" tabindex="0" aria-label="{esc(label)}">{content}</div>'


def save_buttons(of: str, title: str, kinds: Sequence[str] = ("csv", "json")) -> str:
    """Buttons that download what a figure or table shows."""
    return (
        '<div class="actions">'
        + "".join(
            f'<button type="button" class="small" data-save="{kind}" data-of="{esc(of)}" '
            f'aria-label="Download {kind.upper()}: {esc(title)}">{kind.upper()}</button>'
            for kind in kinds
        )
        + "</div>"
    )


def figure_html(figure: Figure, attributes: str = "") -> str:
    """A figure's place on the page: drawn by the script, said in words, its data and what it is of behind it.

    Args:
        attributes: more of its element, as HTML.
    """
    name, title = esc(figure.id), esc(figure.title)
    choice = ""
    if len(figure.variants) > 1:
        choice = (
            '<fieldset><legend class="hidden">What counts as cost</legend>'
            + "".join(
                f'<label><input type="radio" name="variant-{name}" value="{place}"{" checked" if not place else ""}>'
                f"{esc(variant.name)}</label>"
                for place, variant in enumerate(figure.variants)
            )
            + "</fieldset>"
        )
    return (
        f'<figure id="{name}" aria-labelledby="{name}-title"{attributes}><header><h3 id="{name}-title">{title}</h3>'
        f"{save_buttons(figure.id, figure.title, ('csv', 'json', 'png', 'svg'))}</header>{choice}"
        f'<div class="plot" data-figure="{name}" data-state="waiting" role="img"'
        f' aria-label="{title}. {esc(figure.alt)}"></div>'
        f"<figcaption>{esc(figure.caption)}</figcaption>"
        f'<details data-rows="{name}"><summary>Data of this figure ({counted(len(figure.rows), "line")})'
        "</summary></details>"
        f'<details data-behind="{name}"><summary>Runs and features behind it</summary></details></figure>'
    )


def section(name: str, title: str, intro: str, content: str) -> str:
    """A part of the page with its heading."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{esc(title)}</h2>'
        f'<p class="intro">{intro}</p>{content}</section>'
    )


def definitions(facts: Mapping[str, tuple[str, str]]) -> str:
    """Facts with their names: each a value and a remark."""
    return (
        '<dl class="facts">'
        + "".join(
            f"<div><dt>{esc(name)}</dt><dd>{esc(value)}<small>{esc(remark)}</small></dd></div>"
            for name, (value, remark) in facts.items()
        )
        + "</dl>"
    )
