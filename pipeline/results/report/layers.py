"""Score by layer and pooling: of each single view its best head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.digests import canonical_json
from pipeline.errors import ConfigError
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import Entry
from pipeline.results.report.figure import OF_SERIES, Figure, Variant, colour, counted, short
from pipeline.results.report.gather import Gathered
from pipeline.results.trials import by_layer
from pipeline.views import parse_views

FEWEST_LAYERS = 3
"""Of fewer there is no curve to look at."""
FEWEST_WAYS = 3
"""Of holding rows out: Student's interval over two of them says nothing."""


@dataclass(frozen=True)
class LayerPoint:
    """One layer and pooling.

    Args:
        series: pooling and weights.
        layer: its number.
        head: the best on this view.
        score, low, high: of the deciding metric, with its interval where there is one.
        run: whose.
    """

    series: str
    layer: int
    head: str
    score: float
    low: float | None
    high: float | None
    run: str


def layers_figure(corpus: Corpus, gathered: Gathered) -> Figure | None:
    """Held-out scores of a sweep's single views; without a sweep, validation scores of heads on single views."""
    points, of = _of_sweeps(corpus, gathered), "training rows held out"
    if len({point.layer for point in points}) < FEWEST_LAYERS:
        points, of = _of_heads(corpus, gathered.features), "validation"
    if len({point.layer for point in points}) < FEWEST_LAYERS:
        return None
    series: dict[str, list[LayerPoint]] = {}
    for point in points:
        series.setdefault(point.series, []).append(point)
    traces: list[dict[str, Any]] = []
    for place, (name, of_series) in enumerate(sorted(series.items())):
        of_series.sort(key=lambda point: point.layer)
        has_band = all(point.low is not None for point in of_series)
        layers = [point.layer for point in of_series]
        if has_band:
            band = [point.high for point in of_series] + [point.low for point in reversed(of_series)]
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "panel": 0, "x": layers + layers[::-1], "y": short(band),
                    "fill": "toself", "fillcolor": colour(place), "opacity": 0.14, "line": {"width": 0},
                    "hoverinfo": "skip", "showlegend": False, "legendgroup": name, "name": f"{name}, interval",
                }
            )  # fmt: skip
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "panel": 0, "name": name, "legendgroup": name,
                "x": layers, "y": short([point.score for point in of_series]),
                "text": [f"{point.head}" for point in of_series],
                "line": {"color": colour(place), "width": 2.2},
                "marker": {"symbol": OF_SERIES[place % len(OF_SERIES)], "color": colour(place), "size": 7},
                "hovertemplate": f"layer %{{x}}, {name}<br>{corpus.metric_title} %{{y:.3f}}, %{{text}}<extra></extra>",
            }
        )  # fmt: skip
    tops = [max(of_series, key=lambda point: point.score) for of_series in series.values()]
    words = "; ".join(f"{top.series} is best at layer {top.layer} with {top.score:.3f}" for top in tops)
    runs = list(dict.fromkeys(point.run for point in points))
    ends = [end for point in points for end in (point.score, point.low, point.high) if end is not None]
    low, high = max(min(ends), -1.0), min(max(ends), 1.0)
    room = max(0.05 * (high - low), 0.01)
    y = {"title": corpus.metric_title, "range": short([low - room, high + room])}
    panel = {"title": "", "x": {"title": "layer (0: the embeddings)", "dtick": 5}, "y": y}
    return Figure(
        id=f"layers-{corpus.id}",
        title=f"{corpus.title}: {corpus.metric_title} by layer and pooling",
        caption=(
            f"Of each single view the head that did best, scored on {of}."
            + (
                " No score here is of validation, so that a layer can be chosen by this figure. Bands, where "
                "there are: 95 % intervals over the ways of holding out."
                if of != "validation"
                else " Choosing a layer by this figure is a look at validation."
            )
        ),
        alt=f"Line chart over {counted(len({p.layer for p in points}), 'layer')}, scored on {of}: {words}.",
        variants=[Variant("", traces, [panel])],
        columns=("weights_and_pooling", "layer", "head", corpus.metric, "low", "high", "scored_on", "run"),
        rows=[[p.series, p.layer, p.head, p.score, p.low, p.high, of, p.run] for p in points],
        runs=runs,
        features=_features_of(corpus, gathered, runs, {point.layer for point in points}) if of != "validation" else (),
    )


VIEW = ("layer", "layer_norm", "pooling")
"""What an identity says of the view."""


def _features_of(corpus: Corpus, gathered: Gathered, runs: Sequence[str], layers: set[int]) -> list[str]:
    """The training features of the views tried: those that differ in their view alone from what the sweep selected."""
    selected = {
        name for each in corpus.entries if each.name in runs for name in each.run.features[corpus.task]["train"]
    }
    known = gathered.features
    alike = {_but_view(known[name]["identity"]) for name in selected if name in known}
    return [
        fingerprint
        for fingerprint, record in known.items()
        if record["identity"].get("layer") in layers and _but_view(record["identity"]) in alike
    ]


def _but_view(identity: Mapping[str, Any]) -> bytes:
    return canonical_json({name: value for name, value in identity.items() if name not in VIEW})


def _of_sweeps(corpus: Corpus, gathered: Gathered) -> list[LayerPoint]:
    """Of each backbone and quantisation the sweep that tried most layers."""
    best: dict[str, tuple[Entry, list[dict[str, Any]]]] = {}
    for entry in corpus.entries:
        if entry.name in gathered.trials and not entry.trained_on:
            found = by_layer(gathered.trials[entry.name], corpus.metric)
            if len(found) > len(best.get(entry.weights, (entry, []))[1]):
                best[entry.weights] = (entry, found)
    ways = {name: len(set(trials["seed"].to_pylist())) for name, trials in gathered.trials.items()}
    return [
        LayerPoint(
            series=_series(row["pooling"], weights, len(best) > 1),
            layer=int(row["layer"]),
            head=_head(row),
            score=row["mean"],
            low=row["low"] if ways[entry.name] >= FEWEST_WAYS else None,
            high=row["high"] if ways[entry.name] >= FEWEST_WAYS else None,
            run=entry.name,
        )
        for weights, (entry, found) in best.items()
        for row in found
        if isinstance(row["layer"], int)
    ]


def _head(row: Mapping[str, Any]) -> str:
    return str(row["head"]) if row["setting"] is None else f"{row['head']} {row['setting']}={row['strength']:.3g}"


def _series(pooling: str, weights: str, several: bool) -> str:
    return f"{pooling}, {weights}" if several else pooling


def _of_heads(corpus: Corpus, features: Mapping[str, Mapping[str, Any]]) -> list[LayerPoint]:
    """The best head of each single view among the runs."""
    found: dict[tuple[str, str, int], LayerPoint] = {}
    entries = [
        each
        for each in corpus.peers
        if each.kind == "cached" and each.score is not None and "+" not in each.views and not each.trained_on
    ]
    several = len({each.weights for each in entries}) > 1
    for entry in entries:
        place = _place(entry, features)
        if place is None or entry.score is None:
            continue
        layer, pooling = place
        series = _series(pooling, entry.weights, several)
        key = (entry.weights, pooling, layer)
        if key not in found or found[key].score < entry.estimate:
            score = entry.score
            found[key] = LayerPoint(series, layer, entry.run.head, score.estimate, score.low, score.high, entry.name)
    return list(found.values())


def _place(entry: Entry, features: Mapping[str, Mapping[str, Any]]) -> tuple[int, str] | None:
    """Layer and pooling of a run's single view: what its features say, else its name where that is a plain number."""
    for fingerprint in entry.fingerprints:
        identity = features.get(fingerprint, {}).get("identity", {})
        if isinstance(identity.get("layer"), int) and "pooling" in identity:
            return identity["layer"], str(identity["pooling"])
    try:
        [view] = parse_views(entry.views)
    except (ConfigError, ValueError):
        return None
    return (view.layer, view.pooling) if isinstance(view.layer, int) and view.layer >= 0 else None
