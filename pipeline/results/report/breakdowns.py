"""Scores by where sentences are from, and by the surface phenomena that they bear."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.results.breakdown import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.results.metrics import score
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import Entry, on_same_rows
from pipeline.results.report.figure import MUTED, OF_SERIES, Figure, Variant, colour, counted, errors, said, short
from pipeline.results.report.phenomena import marked, pattern_of
from pipeline.results.report.predicted import SPLIT, Predicted
from pipeline.results.shares import wilson_interval

COMPARED = 2
"""Runs side by side: the best, and the best of another kind."""
DOMAINS = {IN_DOMAIN: "sources seen in training", OUT_OF_DOMAIN: "other sources"}
ENDS = ("estimate", "low", "high")
FEWEST = 5
"""Groups of fewer rows are in the data, but not drawn."""


def compared(corpus: Corpus) -> list[Entry]:
    """The best run shown in detail, and beside it the best of another kind, or else the next one."""
    have = on_same_rows(corpus.chosen)
    others = [each for each in have[1:] if each.kind != have[0].kind]
    return have[:1] + (others or have[1:])[: COMPARED - 1]


def sources_figure(corpus: Corpus) -> Figure | None:
    """Accuracy by source, those of the training rows and others told apart, with the scores of both domains."""
    runs = compared(corpus)
    if not runs or runs[0].predicted is None or runs[0].predicted.sources is None:
        return None
    codes = np.asarray([code or "" for code in runs[0].predicted.sources])
    groups = {code: codes == code for code in sorted(set(codes.tolist()) - {""})}
    groups = dict(sorted(groups.items(), key=lambda group: -int(group[1].sum())))
    return _figure(
        corpus,
        f"sources-{corpus.id}",
        f"{corpus.title}: accuracy by source",
        "Each source is where sentences were taken from (CoLA's are publications); beside it the number of rows.",
        groups,
        runs,
        has_patterns=False,
    )


def phenomena_figure(corpus: Corpus) -> Figure | None:
    """Accuracy on sentences that bear each surface mark."""
    runs = compared(corpus)
    if not runs or runs[0].predicted is None or runs[0].predicted.texts is None:
        return None
    return _figure(
        corpus,
        f"phenomena-{corpus.id}",
        f"{corpus.title}: accuracy by surface phenomenon",
        "The data names no phenomena. These are found by pattern in the sentence as it stands, no parse: the table "
        "below has each pattern. A sentence may bear several.",
        marked(runs[0].predicted.texts),
        runs,
        has_patterns=True,
    )


def domains_figure(corpus: Corpus) -> Figure | None:
    """The deciding metric on sources that the training rows have, and on others."""
    found = [
        (
            entry,
            name,
            words,
            place,
            entry.run.statistics.get(corpus.task, {}).get(SPLIT, {}).get("domains", {}).get(name),
        )
        for entry in corpus.chosen
        for place, (name, words) in enumerate(DOMAINS.items())
    ]
    known = [each for each in found if each[-1] is not None and corpus.metric in each[-1].get("intervals", {})]
    if len({name for _, name, *_ in known}) < len(DOMAINS):
        return None  # of one kind alone: the score of all rows says it
    runs = list(dict.fromkeys(entry.name for entry, *_ in known))
    traces = []
    for place, (name, words) in enumerate(DOMAINS.items()):
        of_domain = [(entry, each["intervals"][corpus.metric]) for entry, code, _, _, each in known if code == name]
        middle = [interval["estimate"] for _, interval in of_domain]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "panel": 0, "name": words, "x": short(middle),
                "y": [-float(runs.index(entry.name)) + 0.15 - 0.3 * place for entry, _ in of_domain],
                "error_x": errors(middle, [i["low"] for _, i in of_domain], [i["high"] for _, i in of_domain])
                | {"color": colour(place)},
                "marker": {"symbol": OF_SERIES[place], "color": colour(place), "size": 9},
                "text": [corpus.names[entry.name] for entry, _ in of_domain],
                "hovertemplate": "%{text}<br>%{fullData.name}: %{x:.3f}<extra></extra>",
            }
        )  # fmt: skip
    panel = {
        "title": "", "x": {"title": f"{corpus.metric_title} on validation"},
        "y": {
            "title": "", "tickvals": [-float(place) for place in range(len(runs))], "zeroline": False,
            "ticktext": [corpus.names[run] for run in runs], "range": [-len(runs) + 0.4, 0.6],
        },
    }  # fmt: skip
    best = [(words, each) for entry, _, words, _, each in known if entry.name == runs[0]]
    said_of_best = ", ".join(
        f"{said(each['intervals'][corpus.metric]['estimate'], None, None)} on {each['rows']} rows of {words}"
        for words, each in best
    )
    return Figure(
        id=f"domains-{corpus.id}",
        title=f"{corpus.title}: in domain and out of domain",
        caption=f"{corpus.metric_title} with 95 % bootstrap intervals on validation rows whose source the training "
        "rows have, and on rows of other sources.",
        alt=f"Dot plot of {counted(len(runs), 'run')}. {corpus.names[runs[0]]}: {said_of_best}.",
        variants=[Variant("", traces, [panel])],
        columns=("run", "domain", "rows", corpus.metric, "low", "high", "accuracy"),
        rows=[
            [
                entry.name, words, each["rows"], *(each["intervals"][corpus.metric][end] for end in ENDS),
                each["accuracy"],
            ]
            for entry, _, words, _, each in known
        ],
        runs=runs,
        height=110 + 40 * len(runs),
    )  # fmt: skip


def _figure(
    corpus: Corpus,
    name: str,
    title: str,
    caption: str,
    groups: Mapping[str, np.ndarray],
    runs: Sequence[Entry],
    *,
    has_patterns: bool,
) -> Figure | None:
    first = runs[0].predicted
    assert first is not None
    drawn = {group: mask for group, mask in groups.items() if mask.sum() >= FEWEST}
    if not drawn:
        return None
    heights = {group: -float(place) for place, group in enumerate(drawn)}
    commonest = _commonest_class(first.y)
    traces = [
        {
            "type": "scatter", "mode": "markers", "panel": 0, "name": f"always {corpus.labels[commonest]}",
            "x": short([float((first.y[mask] == commonest).mean()) for mask in drawn.values()]),
            "y": list(heights.values()), "text": list(drawn),
            "marker": {"symbol": "line-ns-open", "size": 13, "color": MUTED, "line": {"width": 2, "color": MUTED}},
            "hovertemplate": "%{text}<br>commonest class %{x:.3f}<extra></extra>",
        }
    ]  # fmt: skip
    rows: list[list[str | float | None]] = []
    spread = 0.34
    for place, entry in enumerate(runs):
        assert entry.predicted is not None
        y, predictions = entry.predicted.y, entry.predicted.predictions
        right = {group: int((y[mask] == predictions[mask]).sum()) for group, mask in groups.items()}
        shares = [right[group] / int(mask.sum()) for group, mask in drawn.items()]
        ends = [wilson_interval(right[group], int(mask.sum())) for group, mask in drawn.items()]
        shift = 0.0 if len(runs) == 1 else spread / 2 - spread * place
        traces.append(
            {
                "type": "scatter", "mode": "markers", "panel": 0, "name": corpus.names[entry.name],
                "x": short(shares), "y": [height + shift for height in heights.values()],
                "error_x": errors(shares, [low for low, _ in ends], [high for _, high in ends])
                | {"color": colour(place)},
                "marker": {"symbol": OF_SERIES[place], "color": colour(place), "size": 9},
                "text": [f"{group}: {right[group]} of {int(mask.sum())} right" for group, mask in drawn.items()],
                "hovertemplate": "%{text}<br>%{fullData.name}: %{x:.3f}<extra></extra>",
            }
        )  # fmt: skip
        for group, mask in groups.items():
            if not (number := int(mask.sum())):
                continue
            scores = score(y[mask], predictions[mask])
            low, high = wilson_interval(right[group], number)
            rows.append(
                [
                    entry.name, group, number, scores["accuracy"], low, high, scores["mcc"],
                    float((y[mask] == commonest).mean()), *([pattern_of(group)] if has_patterns else []),
                ]
            )  # fmt: skip
    hits = first.y == first.predictions
    by_score = sorted((float(hits[mask].mean()), group, int(mask.sum())) for group, mask in drawn.items())
    words = ""
    if by_score:
        (low_score, low_name, low_rows), (high_score, high_name, high_rows) = by_score[0], by_score[-1]
        words = (
            f" {corpus.names[runs[0].name]} is least often right on {low_name} ({low_score:.3f} of {low_rows} rows) "
            f"and most often on {high_name} ({high_score:.3f} of {high_rows})."
        )
    names = " and ".join(corpus.names[each.name] for each in runs)
    panel = {
        "title": "",
        "x": {"title": "accuracy on validation", "range": [_floor(first, drawn), 1.03]},
        "y": {
            "title": "", "tickvals": list(heights.values()), "zeroline": False,
            "ticktext": [f"{group} ({int(mask.sum())})" for group, mask in drawn.items()],
            "range": [-len(drawn) + 0.4, 0.6],
        },
    }  # fmt: skip
    return Figure(
        id=name,
        title=title,
        caption=f"{caption} Bars: 95 % Wilson intervals; the grey tick is what always saying the commonest class "
        f"scores on the same rows. Groups of fewer than {FEWEST} rows are in the data alone.",
        alt=f"Dot plot of {counted(len(drawn), 'group')} of rows for {names}.{words}",
        variants=[Variant("", traces, [panel])],
        columns=(
            "run", "group", "rows", "accuracy", "low", "high", "mcc", "commonest_class",
            *(["pattern"] if has_patterns else []),
        ),
        rows=rows,
        runs=[each.name for each in runs],
        height=110 + 27 * len(drawn),
    )  # fmt: skip


def _floor(rows: Predicted, groups: Mapping[str, np.ndarray]) -> float:
    """Where the axis begins: at the lowest that anything in these groups can reach, near enough."""
    y, right, commonest = rows.y, rows.y == rows.predictions, _commonest_class(rows.y)
    lows = [wilson_interval(int(right[mask].sum()), int(mask.sum()))[0] for mask in groups.values()]
    lows += [float((y[mask] == commonest).mean()) for mask in groups.values()]
    return max(0.0, float(np.floor(min(lows, default=0.0) * 10) / 10) - 0.1) - 0.02


def _commonest_class(y: np.ndarray) -> int:
    return int(np.bincount(y).argmax())
