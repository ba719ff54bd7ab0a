"""Accuracy against cost: which runs are worth their seconds, and the Pareto front of those that are."""

from collections.abc import Sequence

from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import KINDS, Entry, legend_names
from pipeline.results.report.figure import (
    SYMBOLS,
    TEXT,
    Figure,
    Variant,
    counted,
    errors,
    kind_colour,
    said,
    short,
)
from pipeline.results.report.ticks import seconds_axis

UNDRAWN = ("control", "majority")
"""Heads that are no way to a score: of other labels; and the commonest class, which is drawn as a line."""
LEAST_SECONDS = 0.001
"""What takes less is drawn here: the axis is a logarithm."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other one beats: none is as cheap and better, or cheaper and as good.

    Args:
        points: cost and score.

    Returns:
        their places, the cheapest first.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda each: (points[each][0], -points[each][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def cost_figure(corpus: Corpus) -> Figure | None:
    """Score on validation against seconds: of training alone, and with stage one where its cost is known."""
    drawn = [each for each in corpus.peers if each.score is not None and each.run.head not in UNDRAWN]
    if not drawn:
        return None
    alone = [max(each.run.seconds, LEAST_SECONDS) for each in drawn]
    known = [(each, each.run.seconds + each.stage_one_seconds) for each in drawn if each.stage_one_seconds is not None]
    variants = [_variant(corpus, "training alone", drawn, alone)]
    missing = len(drawn) - len(known)
    counts_features = any(each.stage_one_seconds for each, _ in known)
    if counts_features:
        whole = [max(seconds, LEAST_SECONDS) for _, seconds in known]
        variants.append(_variant(corpus, "with stage one", [each for each, _ in known], whole))
    note = "Stage one is not counted: what these features took is not recorded."
    if counts_features:
        note = "With stage one, a run on cached features bears all that its features took, as if it alone used them."
        left = "is" if missing == 1 else "are"
        note += f" {counted(missing, 'run')} of unrecorded features' cost {left} left out there." if missing else ""
    on_front = [{drawn[place].name for place in front_places(drawn, alone)}]
    if counts_features:
        on_front.append({known[p][0].name for p in front_places([e for e, _ in known], [s for _, s in known])})
    front = [drawn[place] for place in front_places(drawn, alone)]
    names = legend_names(front)
    words = "; ".join(f"{names[each.name]} {_of(each)} in {each.run.seconds:.3g} s" for each in front)
    return Figure(
        id=f"cost-{corpus.id}",
        title=f"{corpus.title}: {corpus.metric_title} against cost",
        caption=(
            f"Each mark is a run: its {corpus.metric_title} on validation with its 95 % interval, against the seconds "
            "that it took on the machine that ran it (logarithmic). The stepped line is the Pareto front: no other "
            "run is both cheaper and better. Baselines are drawn, but stand on no front. Of a run on both tasks the "
            f"seconds are of both. {note}"
        ),
        alt=f"{counted(len(drawn), 'run')}. On the Pareto front, from the cheapest: {words}.",
        variants=variants,
        columns=(
            "run", "kind", "head", "views", "weights", corpus.metric, "low", "high", "training_seconds",
            "stage_one_seconds", "on_front_training_alone", "on_front_with_stage_one",
        ),
        rows=[
            [
                each.name, KINDS[each.kind], each.run.head, each.views, each.weights, each.estimate,
                each.score.low if each.score else None, each.score.high if each.score else None, each.run.seconds,
                each.stage_one_seconds, each.name in on_front[0],
                each.name in on_front[1] if counts_features else None,
            ]
            for each in drawn
        ],
        runs=[each.name for each in drawn],
        height=400,
    )  # fmt: skip


def front_places(entries: Sequence[Entry], seconds: Sequence[float]) -> list[int]:
    """Which of these runs are on the front; baselines are on none."""
    trained = [place for place, each in enumerate(entries) if each.kind != "baseline"]
    front = pareto_front([(seconds[place], entries[place].estimate) for place in trained])
    return [trained[place] for place in front]


def _of(entry: Entry) -> str:
    score = entry.score
    return "" if score is None else said(score.estimate, score.low, score.high)


def _variant(corpus: Corpus, name: str, entries: Sequence[Entry], seconds: Sequence[float]) -> Variant:
    front = front_places(entries, seconds)
    names = legend_names([entries[place] for place in front])
    axis, ticks = seconds_axis(seconds)
    traces = []
    steps = [(seconds[place], entries[place].estimate) for place in front]
    if steps:
        steps.append((10 ** axis["range"][1], steps[-1][1]))
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": "Pareto front", "panel": 0, "hoverinfo": "skip",
                "x": short([x for x, _ in steps]), "y": short([y for _, y in steps]),
                "line": {"shape": "hv", "width": 2, "dash": "dot", "color": TEXT},
            }
        )  # fmt: skip
    for kind, words in KINDS.items():
        places = [place for place, each in enumerate(entries) if each.kind == kind]
        if not places:
            continue
        scores = [entries[place].score for place in places]
        middle = [entries[place].estimate for place in places]
        on_front = [place in front for place in places]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": words, "panel": 0,
                "x": short([seconds[place] for place in places]), "y": short(middle),
                "error_y": errors(
                    middle, [s.low if s else None for s in scores], [s.high if s else None for s in scores]
                ) | {"color": kind_colour(kind), "thickness": 1, "width": 2},
                "marker": {
                    "symbol": SYMBOLS[kind], "color": kind_colour(kind), "size": [13 if f else 8 for f in on_front],
                    "opacity": [1.0 if f else 0.6 for f in on_front],
                    "line": {"width": [2 if f or kind == "baseline" else 0 for f in on_front],
                             "color": kind_colour(kind) if kind == "baseline" else TEXT},
                },
                "text": [_hover(entries[place], seconds[place], place in front) for place in places],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )  # fmt: skip
    ends = [end for each in entries if each.score for end in (each.estimate, each.score.low, each.score.high)]
    drawn = [end for end in [*ends, corpus.majority] if end is not None]
    room = 0.06 * max(max(drawn) - min(drawn), 0.01)
    panel = {
        "title": "",
        "x": {"title": f"time, {name}", **axis},
        "y": {"title": corpus.metric_title, "range": short([min(drawn) - room, max(drawn) + room])},
        "ticks": ticks,
        "labels": [
            {"x": x, "y": y, "text": escape(names[entries[place].name])}
            for place, (x, y) in zip(front, steps, strict=False)
        ],
        "lines": [] if corpus.majority is None else [{"y": corpus.majority, "name": "commonest class"}],
    }
    return Variant(name, traces, [panel])


def _hover(entry: Entry, seconds: float, on_front: bool) -> str:
    lines = [f"<b>{escape(entry.title)}</b> {_of(entry)}", escape(entry.views), escape(entry.weights)]
    lines += [f"trained on {entry.trained_on}"] * bool(entry.trained_on)
    lines += [f"{seconds:,.3g} s" + (", on the Pareto front" if on_front else ""), escape(entry.name)]
    return "<br>".join(line for line in lines if line)


def escape(text: str) -> str:
    """Text for plotly, which reads some tags in its labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
