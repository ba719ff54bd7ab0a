"""One kind of linear head on several sets of labels for the same rows: fitted and selected together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.heads.candidates import SpecRows
from pipeline.heads.fused.fit import Candidate, Told, decide, fit_candidates
from pipeline.heads.linear_head import LinearHead
from pipeline.results.calibration import fit_temperature
from pipeline.results.intervals import Interval, seeds_interval
from pipeline.results.metrics import score


@dataclass(frozen=True)
class Selected:
    """The best of some candidates, fitted on all rows.

    Args:
        C: the inverse strength of its penalty that was chosen.
        head: with scikit-learn's manners; its probabilities are calibrated on rows held out.
        tried: how many candidates there were.
        metric: what decided.
        held_out: its mean scores on the rows held out that count, over the ways of holding out.
        interval: the deciding one with its interval over them.
        seconds: an equal share of what those fitted with it took.
    """

    C: float
    head: Any
    tried: int
    metric: str
    held_out: dict[str, float]
    interval: Interval
    seconds: float


def select_each(
    rows: Sequence[SpecRows], kind: str, strengths: Sequence[float], metric: str, told: Told
) -> list[Selected]:
    """For each set of labels, the head with the best mean score on rows held out; of equals the first.

    Heads of all strengths for all sets of labels, on all ways of holding out and on all rows, share each read of the
    features.

    Args:
        rows: of one stream, with the same ways of holding out; only their labels differ, over the same classes.
        kind: of the heads, one that has `C`.
        strengths: of `C`, that are tried.
        metric: what decides.

    Raises:
        HeadError: no feature varies among some rows, or a value is not finite.
    """
    began, first = time.monotonic(), rows[0]
    candidates = [Candidate(kind, C) for C in strengths]
    sets = [each for of_labels in rows for each in (*of_labels.ways, of_labels.whole)]
    fits = fit_candidates(first.stream, sets, candidates, told)
    ways, tried = len(first.fits), len(strengths)
    starts = range(0, len(fits), ways + 1)
    decisions = [
        decide(first.stream, [fit for start in starts for fit in fits[start + way]], first.scored[way])
        for way in range(ways)
    ]  # each [m, tried for each set of labels, 1 or c]
    found = []
    for number, (start, of_labels) in enumerate(zip(starts, rows, strict=True)):
        own = [of_way[:, number * tried : (number + 1) * tried] for of_way in decisions]
        true = [of_labels.y[scored] for scored in of_labels.scored]
        scores = [
            [score(y, of_labels.classes[_numbers(of_way[:, place])]) for y, of_way in zip(true, own, strict=True)]
            for place in range(tried)
        ]
        best = best_of(scores, metric)
        head = LinearHead.of(candidates[best], fits[start + ways][best], of_labels.classes)
        pooled = np.concatenate([of_way[:, best] for of_way in own])
        pooled = pooled[:, 0] if pooled.shape[1] == 1 else pooled
        head.temperature_ = fit_temperature(pooled, np.concatenate(true), of_labels.classes)
        found.append((strengths[best], head, scores[best]))
    seconds = (time.monotonic() - began) / len(rows)
    return [as_selected(C, head, tried, scores, metric, seconds) for C, head, scores in found]


Scores = Sequence[Mapping[str, float]]
"""Of one candidate, one for each way of holding out."""


def best_of(scores: Sequence[Scores], metric: str) -> int:
    """The place of the candidate with the best mean; of equals the first."""
    return max(range(len(scores)), key=lambda place: (np.mean([each[metric] for each in scores[place]]), -place))


def as_selected(C: float, head: Any, tried: int, scores: Scores, metric: str, seconds: float) -> Selected:
    """What was selected, with its scores on the rows held out put together."""
    means = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    interval = seeds_interval([each[metric] for each in scores]).interval
    return Selected(C, head, tried, metric, means, interval, seconds)


def _numbers(decisions: np.ndarray) -> np.ndarray:
    """Places `[m]` of the classes that decision values `[m, 1 or c]` say."""
    found = decisions.argmax(axis=1) if decisions.shape[1] > 1 else (decisions[:, 0] > 0).astype(np.int64)
    return np.asarray(found)
