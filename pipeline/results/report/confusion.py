"""Confusion matrices of the runs shown in detail."""

import numpy as np

from pipeline.results.report.corpora import Corpus
from pipeline.results.report.cost import escape
from pipeline.results.report.figure import TEXT, Figure, Variant


def confusion_figure(corpus: Corpus) -> Figure | None:
    """A panel a run: rows by true and predicted class, shaded by the share of the true class."""
    shown = [each for each in corpus.chosen if each.predicted is not None]
    if not shown:
        return None
    labels = [escape(label) for label in corpus.labels]
    traces, panels, rows, words = [], [], [], []
    for place, entry in enumerate(shown):
        assert entry.predicted is not None
        counts = confusion(entry.predicted.y, entry.predicted.predictions, len(labels))
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        traces.append(
            {
                "type": "heatmap", "panel": place, "x": labels, "y": labels, "name": corpus.names[entry.name],
                "z": [[round(float(share), 4) for share in line] for line in shares],
                "text": [
                    [f"{count:,}<br>{share:.0%}" for count, share in zip(*line, strict=True)]
                    for line in zip(counts.tolist(), shares.tolist(), strict=True)
                ],
                "texttemplate": "%{text}", "textfont": {"color": TEXT, "size": 13},
                "colorscale": "var(--heat)", "zmin": 0, "zmax": 1, "showscale": False,
                "xgap": 2, "ygap": 2,
                "hovertemplate": "%{y}, called %{x}: %{text} of this class<extra></extra>",
            }
        )  # fmt: skip
        panels.append(
            {
                "title": escape(corpus.names[entry.name]),
                "x": {"title": "predicted", "type": "category"},
                "y": {"title": "true", "type": "category", "autorange": "reversed", "tickangle": -90},
            }
        )
        recalls = ", ".join(f"{corpus.labels[c]} {shares[c, c]:.0%}" for c in range(len(labels)))
        words.append(f"{corpus.names[entry.name]}: right of {recalls}")
        rows += [
            [
                entry.name,
                corpus.labels[true],
                corpus.labels[called],
                int(counts[true, called]),
                float(shares[true, called]),
            ]
            for true in range(len(labels))
            for called in range(len(labels))
        ]
    return Figure(
        id=f"confusion-{corpus.id}",
        title=f"{corpus.title}: confusion matrices",
        caption="Validation rows by their true class (one a line) and by what was predicted (one a column): how many, "
        "and what share of the true class; the stronger the colour, the larger that share.",
        alt=f"{len(shown)} confusion {'matrix' if len(shown) == 1 else 'matrices'}. " + "; ".join(words) + ".",
        variants=[Variant("", traces, panels)],
        columns=("run", "true", "predicted", "rows", "share_of_true"),
        rows=rows,
        runs=[entry.name for entry in shown],
        height=235,
        narrowest=235,
    )


def confusion(y: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """`[c, c]` rows by true and predicted class.

    Args:
        y, predictions: `[n]` classes below `classes`.
    """
    return np.bincount(y * classes + predictions, minlength=classes**2).reshape(classes, classes)
