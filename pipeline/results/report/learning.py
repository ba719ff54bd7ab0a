"""Learning curves of the runs shown in detail: loss and score over steps or epochs."""

from pipeline.results.counts import METRIC_NAMES
from pipeline.results.curves import Curve, curves_of
from pipeline.results.ledger import Run
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.figure import DASHES, OF_SERIES, Figure, Variant, colour, counted, short

MARKED = 40
"""A curve of so many points has a mark at each; of more it is told by its dashes."""
MOST_POINTS = 400
"""Points drawn of one curve; of longer ones every so many-th is kept, the last always."""


def learning_figure(corpus: Corpus) -> Figure | None:
    """A panel for each number and unit: held-out loss, the deciding score on held-out rows, training loss."""
    curves: list[tuple[int, Run, Curve]] = []
    for place, entry in enumerate(corpus.chosen):
        for curve in curves_of(entry.run):
            if curve.task == corpus.task and curve.metric in ("loss", corpus.metric) and curve.points:
                curves.append((place, entry.run, _thinned(curve)))
    if not curves:
        return None
    order = {("held_out", corpus.metric): 0, ("held_out", "loss"): 1, ("training", "loss"): 2}
    # a step of the live path takes as long as many of a head's: side by side one of them would be a dot
    found = {(curve.part, curve.metric, curve.unit, run.path) for _, run, curve in curves}
    kinds = sorted(found, key=lambda kind: (order[kind[0], kind[1]], kind[2], kind[3]))
    panels = []
    for part, metric, unit, path in kinds:
        last = max(
            curve.points[-1][0]
            for _, run, curve in curves
            if (curve.part, curve.metric, curve.unit, run.path) == (part, metric, unit, path)
        )
        panels.append(
            {
                "title": f"{_name(part, metric)} by {unit}, {path}",
                "x": {"title": unit, "range": short([-0.03 * (last or 1.0), 1.06 * (last or 1.0)])},
                "y": {"title": METRIC_NAMES.get(metric, metric)},
            }
        )
    seen: set[str] = set()
    traces = []
    for place, run, curve in curves:
        x, y = zip(*curve.points, strict=True)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers" if len(x) <= MARKED else "lines",
                "panel": kinds.index((curve.part, curve.metric, curve.unit, run.path)),
                "x": short(x), "y": short(y), "name": corpus.names[run.run], "legendgroup": run.run,
                "showlegend": run.run not in seen,
                "line": {
                    "color": colour(place), "width": 2,
                    "dash": "solid" if len(x) <= MARKED else DASHES[place % len(DASHES)],
                },
                "marker": {"symbol": OF_SERIES[place % len(OF_SERIES)], "color": colour(place), "size": 6},
                "hovertemplate": f"%{{fullData.name}}<br>{curve.unit} %{{x}}: %{{y:.4f}}<extra></extra>",
            }
        )  # fmt: skip
        seen.add(run.run)
    ends = []
    for _, run, curve in curves:
        if curve.part == "held_out" and curve.metric == "loss":
            lowest = min(curve.points, key=lambda point: point[1])
            ends.append(f"{corpus.names[run.run]}: lowest held-out loss {lowest[1]:.3f} at {curve.unit} {lowest[0]:g}")
    runs = list(dict.fromkeys(run.run for _, run, _ in curves))
    without = len(corpus.chosen) - len(runs)
    return Figure(
        id=f"learning-{corpus.id}",
        title=f"{corpus.title}: learning curves",
        caption=(
            "What each training measured on its way, on training rows that it held out and on those that it was "
            "trained on; live: through the backbone. Steps and epochs are not the same, nor are the rows "
            "that different runs held out."
            + (
                f" {without} of the runs shown in detail {'has' if without == 1 else 'have'} no curve: heads that are "
                "not trained step by step have none."
                if without
                else ""
            )
        ),
        alt=f"Line charts in {counted(len(panels), 'panel')}, of {counted(len(runs), 'run')}. " + "; ".join(ends) + ".",
        variants=[Variant("", traces, panels)],
        columns=("run", "curve", "unit", "at", "value"),
        rows=[[run.run, curve.name, curve.unit, at, value] for _, run, curve in curves for at, value in curve.points],
        runs=runs,
        height=290,
        narrowest=265,
    )


def _name(part: str, metric: str) -> str:
    return f"{'held-out' if part == 'held_out' else 'training'} {METRIC_NAMES.get(metric, metric)}"


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve.points) // MOST_POINTS)
    kept = curve.points[::every]
    if kept[-1] != curve.points[-1]:
        kept = (*kept, curve.points[-1])
    return Curve(curve.task, curve.part, curve.metric, curve.unit, kept)
