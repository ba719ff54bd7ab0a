"""Calibration: are the rows that a run is 80 % sure of right in 80 % of the cases?"""

from dataclasses import dataclass

import numpy as np

from pipeline.results.calibration import BINS, expected_calibration_error
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import Entry
from pipeline.results.report.figure import (
    DASHES,
    MUTED,
    OF_SERIES,
    Figure,
    Variant,
    colour,
    counted,
    errors,
    short,
)
from pipeline.results.shares import wilson_interval

SHOWN = 4
"""Runs that are drawn at once; the others wait in the legend."""


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence lies in one bin.

    Args:
        low, high: the bin's ends; it is closed at the upper one.
        rows, right: how many, and how many of them are predicted right.
        confidence: their mean.
    """

    low: float
    high: float
    rows: int
    right: int
    confidence: float


def reliability(y: np.ndarray, predictions: np.ndarray, confidence: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Rows by confidence, in the bins that the expected calibration error is of; bins without rows are left out.

    Args:
        y, predictions: `[n]` classes.
        confidence: `[n]` probabilities of the classes predicted.
        bins: of equal width from 0 to 1.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    found = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            right = int((predictions[inside] == y[inside]).sum())
            mean = float(confidence[inside].mean())
            found.append(Bin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), right, mean))
    return found


def calibration_figure(corpus: Corpus) -> Figure | None:
    """The reliability diagram of the runs shown in detail, and below it how sure they are."""
    found: list[tuple[Entry, list[Bin], float]] = []
    for entry in corpus.chosen:
        rows = entry.predicted
        if rows is not None and rows.probabilities is not None and rows.confidence is not None:
            ece = expected_calibration_error(rows.y, rows.probabilities)
            found.append((entry, reliability(rows.y, rows.predictions, rows.confidence), ece))
    if not found:
        return None
    lowest = min(bins[0].low for _, bins, _ in found)
    traces = [
        {
            "type": "scatter", "mode": "lines", "panel": 0, "x": short([lowest, 1]), "y": short([lowest, 1]),
            "name": "perfectly calibrated", "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
            "hoverinfo": "skip",
        }
    ]  # fmt: skip
    for place, (entry, bins, ece) in enumerate(found):
        shares = [each.right / each.rows for each in bins]
        ends = [wilson_interval(each.right, each.rows) for each in bins]
        name = f"{corpus.names[entry.name]} (ECE {ece:.3f})"
        shown = {"name": name, "legendgroup": entry.name, "visible": True if place < SHOWN else "legendonly"}
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "panel": 0, **shown,
                "x": short([each.confidence for each in bins]), "y": short(shares),
                "error_y": errors(shares, [low for low, _ in ends], [high for _, high in ends])
                | {"color": colour(place), "thickness": 0.9, "width": 2},
                "line": {"color": colour(place), "width": 2},
                "marker": {"symbol": OF_SERIES[place % len(OF_SERIES)], "color": colour(place), "size": 7},
                "text": [f"{each.right} of {each.rows} rows right" for each in bins],
                "hovertemplate": "%{fullData.name}<br>confidence %{x:.3f}, right %{y:.3f}<br>%{text}<extra></extra>",
            }
        )  # fmt: skip
        total = sum(each.rows for each in bins)
        traces.append(
            {
                "type": "scatter", "mode": "lines", "panel": 1, **shown, "showlegend": False,
                "x": short([edge for each in bins for edge in (each.low, each.high)]),
                "y": short([each.rows / total for each in bins for _ in range(2)]),
                "line": {"color": colour(place), "width": 2, "dash": DASHES[place % len(DASHES)]},
                "hovertemplate": "%{fullData.name}<br>%{y:.1%} of the rows<extra></extra>",
            }
        )  # fmt: skip
    axis = {"title": "confidence", "range": [lowest - 0.02, 1.02]}
    panels = [
        {"title": "reliability", "x": axis, "y": {"title": "share right"}},
        {
            "title": "how sure",
            "x": axis,
            "y": {"title": "share of the rows", "tickformat": ".0%", "rangemode": "tozero"},
        },
    ]
    by_error = sorted(found, key=lambda each: each[2])
    words = ", ".join(f"{corpus.names[entry.name]} {ece:.3f}" for entry, _, ece in by_error)
    return Figure(
        id=f"calibration-{corpus.id}",
        title=f"{corpus.title}: calibration",
        caption=(
            f"Validation rows in {BINS} bins of confidence, the probability of the class that was predicted: below the "
            "diagonal a run is surer than it is right. Bars: 95 % Wilson intervals. ECE, the expected calibration "
            "error, is the mean distance to the diagonal, weighted by rows. "
            f"{'The legend shows more runs. ' if len(found) > SHOWN else ''}"
        ).strip(),
        alt=f"Reliability diagram of {counted(len(found), 'run')}. Expected calibration errors, the lowest first: "
        f"{words}.",
        variants=[Variant("", traces, panels)],
        columns=("run", "bin_low", "bin_high", "rows", "right", "mean_confidence", "share_right", "ece"),
        rows=[
            [entry.name, each.low, each.high, each.rows, each.right, each.confidence, each.right / each.rows, ece]
            for entry, bins, ece in found
            for each in bins
        ],
        runs=[entry.name for entry, _, _ in found],
        height=330,
        narrowest=300,
    )  # fmt: skip
