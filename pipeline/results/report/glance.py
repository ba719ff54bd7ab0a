"""The first thing that is seen: the best of each corpus, how sure that is, and what it cost."""

from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import KINDS, Entry
from pipeline.results.report.figure import counted, said
from pipeline.results.report.leaderboard import Place
from pipeline.results.report.markup import Scale, definitions, esc, kind_tag, seconds_in_words, unbroken
from pipeline.results.savings import shared_by

NAMED = 3
"""Runs that are not told apart, by name; the others are counted."""


def card(corpus: Corpus, places: list[Place], *, is_one_of_several: bool = False) -> str:
    """A corpus' card.

    Args:
        is_one_of_several: of its task, so that figures are of one of them at a time.
    """
    best = corpus.best
    score = best.score
    if score is None:
        return (
            f'<article class="card" aria-labelledby="card-{esc(corpus.id)}"><h3 id="card-{esc(corpus.id)}">'
            f"{esc(corpus.title)}</h3><p>No run has been scored on validation.</p></article>"
        )
    show = ""
    if is_one_of_several:
        show = (
            f'<p class="show"><button type="button" class="small" data-show="{esc(corpus.id)}" '
            f'aria-label="Show the figures of {esc(corpus.title)}">Show its figures</button></p>'
        )
    interval = "" if score.low is None else f"95 % interval {score.low:.3f} to {score.high:.3f}"
    views = f" on {unbroken(best.views.split('+'), '+<wbr>')}" if best.views else ""
    of = f", {esc(best.weights)}" if best.weights else ""
    of += f", trained on {esc(best.trained_on)}" if best.trained_on else ""
    return (
        f'<article class="card" aria-labelledby="card-{esc(corpus.id)}"><h3 id="card-{esc(corpus.id)}">'
        f"{esc(corpus.title)}{_of_runs(corpus)}</h3>"
        f'<p class="score"><b>{score.estimate:.3f}</b> <span>{esc(corpus.metric_title)} on '
        f"{counted(corpus.rows, 'validation row')}<br>{interval}</span></p>"
        f'<p class="who">{kind_tag(best)} <strong>{esc(best.title)}</strong>{views}{of}</p>'
        f"{_of_each_kind(corpus)}{definitions(_facts(corpus, places))}{_note(corpus, places)}{show}</article>"
    )


def _of_runs(corpus: Corpus) -> str:
    """Of how many it is the best, and which of the corpus' runs are not counted, where that says something."""
    number = len(corpus.trained)
    counted_names = {each.name for each in corpus.trained}
    others = [each for each in corpus.entries if each.name not in counted_names]
    left_out = [
        *(["baselines"] if any(each.kind == "baseline" for each in others) else []),
        *(["runs of other rows"] if any(each.kind != "baseline" for each in others) else []),
    ]
    note = f" ({' and '.join(left_out)} not counted)" if left_out else ""
    return f": the best of {number:,} runs{note}" if number > 1 else f": one run{note}"


def _of_each_kind(corpus: Corpus) -> str:
    """The best of each kind, as a small table with whiskers."""
    firsts: dict[str, Entry] = {}
    for each in sorted(corpus.peers, key=lambda entry: -entry.estimate):
        if each.score is not None and each.run.head not in ("majority", "control"):
            firsts.setdefault(each.kind, each)
    scale = Scale([each.score for each in firsts.values() if each.score is not None], corpus.majority)
    lines = ""
    for each in firsts.values():
        assert each.score is not None
        what = each.title if each.kind == "baseline" else KINDS[each.kind]
        lines += (
            f'<tr><th scope="row"><span class="kind k-{each.kind}">{esc(what)}</span></th>'
            f'<td class="bars">{scale.whisker(each.score, each.kind)}</td>'
            f'<td class="n">{each.score.estimate:.3f}</td>'
            f'<td class="n">{esc(seconds_in_words(each.run.seconds))}</td></tr>'
        )
    floor = ""
    if corpus.majority is not None:
        floor = f'<p class="count">Bars: 95 % intervals. Dotted: always the commonest class, {corpus.majority:.3f}.</p>'
    return (
        f'<table class="plain"><caption class="hidden">The best run of each kind</caption><thead><tr>'
        f'<th scope="col">best of its kind</th><th scope="col">interval</th>'
        f'<th scope="col" class="n">{esc(corpus.metric_title)}</th><th scope="col" class="n">training</th></tr></thead>'
        f"<tbody>{lines}</tbody></table>{floor}"
    )


def _facts(corpus: Corpus, places: list[Place]) -> dict[str, tuple[str, str]]:
    best = corpus.best
    others = [place for place in places if place.less_than_best is not None and place.entry.kind != "baseline"]
    tied = [place for place in others if place.is_tied]
    facts = {}
    if tied:
        titles = list(dict.fromkeys(place.entry.title for place in tied))
        names = "; ".join(titles[:NAMED])
        names += f"; and {len(tied) - NAMED:,} more" if len(titles) > NAMED else ""
        facts["how sure"] = ("not told apart", f"from {counted(len(tied), 'other')} on these rows: {names}")
    elif others:
        facts["how sure"] = (
            "ahead of the other" if len(others) == 1 else f"ahead of all {len(others)} others",
            "by paired bootstrap on the same rows",
        )
    stage_one = best.stage_one_seconds
    if best.run.path == "live":
        cost = ("none cached", "live passes are in its own time")
    else:
        sharing = shared_by(best.run, corpus.task, [each.run for each in corpus.entries])
        alone = "no other run shares them" if len(corpus.entries) > 1 and stage_one else ""
        shared = f"{sharing} runs share them" if sharing > 1 else alone
        cost = (seconds_in_words(stage_one), ": ".join(filter(None, ["once", shared])) if stage_one else shared)
    tasks = counted(len(best.run.tasks), "task") if len(best.run.tasks) > 1 else ""
    facts["training took"] = (seconds_in_words(best.run.seconds), tasks)
    facts["its features took"] = cost
    return facts


def _note(corpus: Corpus, places: list[Place]) -> str:
    """That the best of many looks better than it is, and what was selected without looking at validation."""
    selected = [place for place in places if place.is_selected and place.entry.score is not None]
    if len(corpus.trained) < 2:
        return ""
    words = f"The best of {len(corpus.trained):,} by validation looks better there than it is."
    if selected:
        first = max(selected, key=lambda place: place.rivals)
        score = first.entry.score
        assert score is not None
        what = " on ".join(filter(None, [first.entry.title, first.entry.views, first.entry.weights]))
        of = f"Another run, {what} ({said(score.estimate, score.low, score.high)}),"
        which = "It is also the one" if first.entry.name == corpus.best.name else f"{of} is the one"
        words += f" {which} that held-out training rows select among {first.rivals} runs that held out the same."
    return f'<p class="note">{esc(words)}</p>'
