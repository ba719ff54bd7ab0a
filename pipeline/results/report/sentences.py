"""The sentences of validation, with what each run said of them: the hardest, and the most confidently wrong."""

from typing import Any

import numpy as np

from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import on_same_rows

MOST = 3_000
"""Sentences of a corpus on the page, at most; of more the hardest and most confidently wrong are kept."""


def sentences_of(corpus: Corpus) -> dict[str, Any] | None:
    """What the page's explorer searches, or None where no run holds its sentences.

    Returns:
        `labels`; `total` rows of validation; `judges`, how many runs predicted them; `runs`, those that can be chosen,
        with their short names; and by row `row`, `text`, `label`, `source`, `wrong` (of how many of the judges it is
        wrong), and by run and row `predicted` and `confidence` (in thousandths, or None where there is none).
    """
    runs = on_same_rows(corpus.chosen)
    with_texts = [each for each in corpus.entries if each.predicted is not None and each.predicted.texts is not None]
    if not runs or runs[0].predicted is None:
        return None
    rows = runs[0].predicted
    texts = next((e.predicted.texts for e in with_texts if e.predicted and e.predicted.key == rows.key), None)
    if texts is None:
        return None
    judges = [e for e in corpus.entries if e.kind != "baseline" and e.predicted and e.predicted.key == rows.key]
    wrong = np.zeros(len(rows.y), dtype=np.int64)
    for judge in judges:
        assert judge.predicted is not None
        wrong += judge.predicted.predictions != rows.y
    worst = np.zeros(len(rows.y))
    for run in runs:
        assert run.predicted is not None
        if run.predicted.confidence is not None:
            worst = np.maximum(worst, np.where(run.predicted.predictions != rows.y, run.predicted.confidence, 0.0))
    kept = np.sort(np.lexsort((-worst, -wrong))[:MOST])
    of_runs = []
    for run in runs:
        assert run.predicted is not None
        confidence = run.predicted.confidence
        of_runs.append(
            {
                "run": run.name,
                "name": corpus.names[run.name],
                "predicted": run.predicted.predictions[kept].tolist(),
                "confidence": None if confidence is None else np.rint(confidence[kept] * 1000).astype(int).tolist(),
            }
        )
    return {
        "corpus": corpus.id,
        "task": corpus.task,
        "title": corpus.title,
        "labels": list(corpus.labels),
        "total": len(rows.y),
        "judges": len(judges),
        "runs": of_runs,
        "row": kept.tolist(),
        "text": [texts[place] for place in kept],
        "label": rows.y[kept].tolist(),
        "source": None if rows.sources is None else [rows.sources[place] or "" for place in kept],
        "wrong": wrong[kept].tolist(),
    }
