"""The tables of the page: leaderboards, patterns of phenomena, feature sets; and the controls of the sentences."""

from collections.abc import Sequence
from typing import Any

from pipeline.results.counts import METRIC_NAMES
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import KINDS
from pipeline.results.report.figure import Figure, counted
from pipeline.results.report.leaderboard import Place
from pipeline.results.report.markup import (
    Scale,
    esc,
    number,
    save_buttons,
    scrolling,
    seconds_in_words,
    sortable,
    text,
    unbroken,
)
from pipeline.results.report.phenomena import PHENOMENA
from pipeline.results.report.predicted import SPLIT


def leaderboard_html(corpus: Corpus, places: Sequence[Place]) -> str:
    """A corpus' leaderboard with its filter."""
    name = f"leaderboard-{corpus.id}"
    trained = [p.entry for p in places if p.rank is not None and p.entry.kind != "baseline"]
    scale = Scale([each.score for each in trained if each.score is not None], corpus.majority, with_floor=False)
    other = "accuracy" if corpus.metric != "accuracy" else "mcc"
    heads = (
        ("#", "ascending"), ("what", "ascending"), (f"{corpus.metric_title} [95 %]", "descending"),
        ("interval", "descending"), ("less the best", "descending"), ("held out", "descending"),
        (METRIC_NAMES[other], "descending"), ("ECE", "ascending"), ("training", "ascending"),
        ("stage one", "ascending"),
        ("views", "ascending"), ("weights", "ascending"), ("data", "ascending"), ("run", "ascending"),
    )  # fmt: skip
    rows = [(_kind_of_line(place, corpus), _cells(place, corpus, scale, other)) for place in places]
    floor = (
        ""
        if corpus.majority is None
        else f" Always saying the commonest class scores {corpus.majority:.3f} (dotted, where the bars reach it)."
    )
    about = (
        f"Every run, by {esc(corpus.metric_title)} on validation, with 95 % bootstrap intervals over "
        f"rows.{esc(floor)} <em>Less the best</em>: the difference on the same rows; <em>tied</em> where its paired "
        "bootstrap interval holds 0. ★: selected by held-out training rows among runs that held out the same ones."
    )
    title = f"Leaderboard of {corpus.title}"
    return (
        f'<article class="card" aria-labelledby="{name}-title"><header class="bar"><h3 id="{name}-title" class="grow">'
        f"{esc(corpus.title)}</h3>{save_buttons(name, f'{corpus.title}: leaderboard')}</header>"
        f'<div class="bar"><div class="grow"><label for="filter-{name}">Filter runs by any word in their line</label>'
        f'<input type="search" id="filter-{name}" autocomplete="off" spellcheck="false"></div></div>'
        f'<p class="count" id="{name}-about">{about}</p>'
        f'<p class="count" id="count-{name}" role="status" aria-live="polite">{counted(len(places), "run")}</p>'
        + scrolling(sortable(name, title, heads, rows, sorted_by=0, of="run"), title)
        + "</article>"
    )


def _kind_of_line(place: Place, corpus: Corpus) -> str:
    return "best" if place.entry.name == corpus.best.name else ""


def _cells(place: Place, corpus: Corpus, scale: Scale, other: str) -> list[str]:
    entry, score = place.entry, place.entry.score
    scores = entry.run.scores.get(corpus.task, {}).get(SPLIT, {})
    mark = ' <span class="tag winner">best</span>' if entry.name == corpus.best.name else ""
    mark += ' <span title="selected by held-out training rows">★</span>' if place.is_selected else ""
    trained = f", trained on {esc(entry.trained_on)}" if entry.trained_on else ""
    shown = "" if score is None else f"<strong>{score.estimate:.3f}</strong>"
    if score is not None and score.low is not None:
        shown += f" [{score.low:.3f}, {score.high:.3f}]"
    bar = "" if score is None or place.rank is None else scale.whisker(score, entry.kind)
    width = None if score is None or score.low is None or score.high is None else score.high - score.low
    return [
        number(place.rank, "d") if place.rank is not None else '<td class="n" data-v="" title="other rows">–</td>',
        f'<th scope="row"><span class="kind k-{entry.kind}">{esc(entry.title)}</span>{mark}'
        f"<small>{esc(KINDS[entry.kind])}{trained}</small></th>",
        number(None if score is None else score.estimate, shown=shown),
        f'<td class="bars" data-v="{"" if width is None else f"{width:.6g}"}">{bar}</td>',
        _difference(place, corpus),
        number(entry.held_out),
        number(scores.get(other)),
        number(scores.get("ece")),
        number(entry.run.seconds, shown=esc(seconds_in_words(entry.run.seconds))),
        number(entry.stage_one_seconds, shown=esc(_stage_one(entry.stage_one_seconds))),
        f'<td class="name">{unbroken(entry.views.split("+"), " + ")}</td>',
        text(entry.weights, "keep"),
        text(entry.run.config.get("data") or ""),
        text(entry.name, "run"),
    ]


def _stage_one(seconds: float | None) -> str:
    return "none" if seconds == 0 else seconds_in_words(seconds)


def _difference(place: Place, corpus: Corpus) -> str:
    if place.entry.name == corpus.best.name:
        return number(0.0, shown="")
    if place.less_than_best is None:
        return number(None)
    found = place.less_than_best.difference
    tie = ' <span class="tag tie">tied</span>' if place.is_tied else ""
    return number(found.estimate, shown=f"{found:+.3f}{tie}")


def leaderboard_data(corpus: Corpus, places: Sequence[Place]) -> Figure:
    """The leaderboard's data, to download."""
    columns = (
        "rank", "run", "kind", "head", "views", "weights", "data", "validation_rows", "trained_on", "seed", "metric",
        "score", "low", "high", "less_than_best", "less_low", "less_high", "tied_with_best", "selected_by_held_out",
        "held_out", "accuracy", "mcc", "f1", "auroc", "log_loss", "ece", "training_seconds", "stage_one_seconds",
        "created",
    )  # fmt: skip
    rows = []
    for place in places:
        entry, score = place.entry, place.entry.score
        scores = entry.run.scores.get(corpus.task, {}).get(SPLIT, {})
        less = None if place.less_than_best is None else place.less_than_best.difference
        rows.append(
            [
                place.rank, entry.name, KINDS[entry.kind], entry.run.head, entry.views, entry.weights,
                entry.run.config.get("data"), corpus.rows, entry.trained_on or "all training rows", entry.run.seed,
                corpus.metric,
                *([None] * 3 if score is None else [score.estimate, score.low, score.high]),
                *([None] * 3 if less is None else [less.estimate, less.low, less.high]),
                place.is_tied, place.is_selected, entry.held_out,
                *(scores.get(name) for name in ("accuracy", "mcc", "f1", "auroc", "log_loss", "ece")),
                entry.run.seconds, entry.stage_one_seconds, entry.run.created,
            ]
        )  # fmt: skip
    title = f"{corpus.title}: leaderboard"
    caption = f"Every run, by {corpus.metric_title} on validation."
    return Figure(f"leaderboard-{corpus.id}", title, caption, "", [], columns, rows, [p.entry.name for p in places])


def patterns_html() -> str:
    """The patterns of the surface phenomena."""
    rows = "".join(
        f'<tr><th scope="row">{esc(each.name)}</th><td><code>{esc(each.pattern)}</code></td>'
        f"<td>{'as written' if each.case else 'any'}</td></tr>"
        for each in PHENOMENA
    )
    table = (
        "<table><caption>Regular expressions, searched in the sentence as it stands</caption><thead><tr>"
        '<th scope="col">phenomenon</th><th scope="col">pattern</th><th scope="col">case</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    box = scrolling(table, "Patterns", " low")
    return f'<details class="card" id="patterns"><summary>The pattern of each phenomenon</summary>{box}</details>'


def features_html(sets: Sequence[dict[str, Any]]) -> str:
    """The feature sets behind the figures, each with its whole record."""
    heads = tuple(
        (name, "ascending")
        for name in (
            "fingerprint", "task", "split", "view", "weights", "rows", "drift", "cosine", "canaries", "cut", "runs",
            "identity and passport",
        )
    )  # fmt: skip
    rows = [("", _feature_cells(each)) for each in sets]
    about = (
        "Each feature set is found by its identity, every fact that can change a value; its fingerprint is the "
        "identity's SHA-256. Its passport was measured while it was written: <em>canaries</em> are rows that were "
        "computed again alone, <em>drift</em> their largest relative difference, <em>cosine</em> their smallest; "
        "<em>cut</em>: sentences cut short."
    )
    return (
        '<div class="bar"><div class="grow"><label for="filter-feature-sets">Filter feature sets</label>'
        '<input type="search" id="filter-feature-sets" autocomplete="off" spellcheck="false"></div></div>'
        f'<p class="count" id="feature-sets-about">{about}</p>'
        f'<p class="count" id="count-feature-sets" role="status" aria-live="polite">'
        f"{counted(len(sets), 'feature set')}</p>"
        + scrolling(
            sortable("feature-sets", "Feature sets", heads, rows, sorted_by=1, of="feature set"), "Feature sets"
        )
    )


def _feature_cells(record: dict[str, Any]) -> list[str]:
    fingerprint = str(record["fingerprint"])
    identity, passport = record.get("identity"), record.get("passport") or {}
    known = identity is not None
    identity = identity or {}
    view = f"L{identity['layer']}-{identity['pooling']}" if known else "not in this cache"
    quantization = identity.get("quantization")
    kind = quantization.get("type", "") if isinstance(quantization, dict) else (quantization or "")
    alone = passport.get("alone", {})
    whole = "<td>not in this cache</td>"
    if known:
        title = esc(record.get("name", "show"))
        whole = f'<td><details data-set="{esc(fingerprint)}"><summary>{title}</summary></details></td>'
    return [
        f'<th scope="row" id="features-{esc(fingerprint[:12])}"><code>{esc(fingerprint[:12])}</code></th>',
        text(record["task"]),
        text(record["split"]),
        text(view, "keep"),
        text(f"{record.get('backbone', '')} {kind}".strip(), "keep"),
        number(record.get("rows"), ","),
        number(alone.get("relative"), ".1e"),
        number(alone.get("cosine"), ".7f"),
        number(passport.get("canaries"), "d"),
        number(passport.get("truncated"), "d"),
        number(record["runs"], "d"),
        whole,
    ]


EXPLORER = (
    '<div class="card"><div class="bar">'
    '<div><label for="sentences-corpus">Data</label><select id="sentences-corpus"></select></div>'
    '<div><label for="sentences-run">Run</label><select id="sentences-run"></select></div>'
    '<div><label for="sentences-order">Order</label><select id="sentences-order">'
    '<option value="sure">most confidently wrong</option><option value="hard">hardest: wrong by most runs</option>'
    '<option value="row">as in the data</option></select></div>'
    '<div><label for="sentences-kind">Which</label><select id="sentences-kind"></select></div>'
    '<div><label for="sentences-label">True class</label><select id="sentences-label"></select></div>'
    '<div id="sentences-source-box"><label for="sentences-source">Source</label>'
    '<select id="sentences-source"></select></div>'
    '</div><div class="bar"><div class="grow"><label for="sentences-search">Search the sentences</label>'
    '<input type="search" id="sentences-search" autocomplete="off" spellcheck="false" '
    'placeholder="any words, in any order"></div>{buttons}</div>'
    '<p class="count" id="sentences-count" role="status" aria-live="polite"></p>'
    '<table id="explorer">'
    '<caption class="hidden">Sentences of validation and what the chosen run says of them</caption>'
    '<thead><tr><th scope="col">sentence</th><th scope="col">true class</th><th scope="col">this run says</th>'
    '<th scope="col" class="n">how sure</th><th scope="col" class="n">runs wrong</th><th scope="col">source</th></tr>'
    "</thead><tbody></tbody></table>"
    '<p><button type="button" class="quiet" id="sentences-more">Show more</button></p></div>'
)
"""The controls and the table of the sentences; the script fills them."""


def explorer_html() -> str:
    """The sentences with their search."""
    return EXPLORER.replace("{buttons}", save_buttons("sentences", "the sentences found"))
