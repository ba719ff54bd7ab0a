"""The first thing that is seen: the best of each task, how sure that is, and what it cost."""

from pipeline.results.report.entries import KINDS, Entry
from pipeline.results.report.figure import said
from pipeline.results.report.gather import Task
from pipeline.results.report.leaderboard import Place
from pipeline.results.report.markup import Scale, definitions, esc, kind_tag, seconds_in_words


def card(task: Task, places: list[Place]) -> str:
    """A task's card."""
    best = task.best
    score = best.score
    if score is None:
        return (
            f'<article class="card" aria-labelledby="card-{esc(task.name)}"><h3 id="card-{esc(task.name)}">'
            f"{esc(task.title)}</h3><p>No run has been scored on validation.</p></article>"
        )
    interval = "" if score.low is None else f"95 % interval {score.low:.3f} to {score.high:.3f}"
    views = f" on {esc(best.views)}" if best.views else ""
    of = f", {esc(best.weights)}" if best.weights else ""
    return (
        f'<article class="card" aria-labelledby="card-{esc(task.name)}"><h3 id="card-{esc(task.name)}">'
        f"{esc(task.title)}: the best of {len(task.peers)} runs</h3>"
        f'<p class="score"><b>{score.estimate:.3f}</b> <span>{esc(task.metric_title)} on {task.rows:,} validation '
        f"rows<br>{interval}</span></p>"
        f'<p class="who">{kind_tag(best)} <strong>{esc(best.title)}</strong>{views}{of}</p>'
        f"{_of_each_kind(task)}{definitions(_facts(task, places))}{_note(task, places)}</article>"
    )


def _of_each_kind(task: Task) -> str:
    """The best of each kind, as a small table with whiskers."""
    firsts: dict[str, Entry] = {}
    for each in sorted(task.peers, key=lambda entry: -entry.estimate):
        if each.score is not None and each.run.head not in ("majority", "control"):
            firsts.setdefault(each.kind, each)
    scale = Scale([each.score for each in firsts.values() if each.score is not None], task.majority)
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
    if task.majority is not None:
        floor = f'<p class="count">Bars: 95 % intervals. Dotted: always the commonest class, {task.majority:.3f}.</p>'
    return (
        f'<table class="plain"><caption class="hidden">The best run of each kind</caption><thead><tr>'
        f'<th scope="col">best of its kind</th><th scope="col">interval</th>'
        f'<th scope="col" class="n">{esc(task.metric_title)}</th><th scope="col" class="n">training</th></tr></thead>'
        f"<tbody>{lines}</tbody></table>{floor}"
    )


def _facts(task: Task, places: list[Place]) -> dict[str, tuple[str, str]]:
    best = task.best
    tied = [place for place in places if place.is_tied and place.entry.kind != "baseline"]
    names = ", ".join(dict.fromkeys(place.entry.title for place in tied[:3]))
    sure = (
        ("not told apart", f"from {len(tied)} other{'s' * (len(tied) > 1)} on these rows: {names}")
        if tied
        else ("ahead of all others", "by paired bootstrap on the same rows")
    )
    stage_one = best.stage_one_seconds
    if best.run.path == "live":
        cost = ("none cached", "live passes are in its own time")
    else:
        sharing = sum(set(best.fingerprints) <= set(each.fingerprints) for each in task.entries)
        shared = f"{sharing} runs share them" if sharing > 1 else "no other run shares them"
        cost = (seconds_in_words(stage_one), f"once: {shared}" if stage_one else shared)
    return {
        "how sure": sure,
        "training took": (
            seconds_in_words(best.run.seconds),
            f"{len(best.run.tasks)} tasks" * (len(best.run.tasks) > 1),
        ),
        "its features took": cost,
    }


def _note(task: Task, places: list[Place]) -> str:
    """That the best of many looks better than it is, and what was selected without looking at validation."""
    selected = [place for place in places if place.is_selected and place.entry.score is not None]
    words = f"The best of {len(task.peers)} by validation looks better there than it is."
    if selected:
        first = max(selected, key=lambda place: place.rivals)
        score = first.entry.score
        assert score is not None
        of = f"{first.entry.title} on {first.entry.weights} ({said(score.estimate, score.low, score.high)})"
        which = "It is also the one" if first.entry.name == task.best.name else f"{of} is the one"
        words += f" {which} that held-out training rows select among {first.rivals} runs that held out the same."
    return f'<p class="note">{esc(words)}</p>'
