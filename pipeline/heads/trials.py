"""One spec of views, every candidate, every way of holding out rows: fitted together, scored on the rows held out."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.heads.candidates import Family, SpecRows
from pipeline.heads.fused.fit import FITS, Candidate, Told
from pipeline.results.counts import COUNTED, metric_of_counts
from pipeline.results.trials import SCHEMA


def run_trials(
    views: str, rows: SpecRows, families: Mapping[str, Family], strengths: Sequence[float], told: Told
) -> pa.Table:
    """Fit and score all candidates of one spec.

    Args:
        views: the spec's name.
        families: by kind of head.
        strengths: named by the caller, or none.

    Returns:
        one row a candidate and way of holding out.
    """
    found: list[dict[str, Any]] = []
    for family in {id(family): family for family in families.values()}.values():
        kinds = [kind for kind in families if families[kind] is family]
        candidates = [each for kind in kinds for each in family.candidates(kind, strengths)]
        began = time.monotonic()
        predictions = family.predict_held_out(rows, candidates, told)
        seconds = (time.monotonic() - began) / (len(candidates) * len(rows.fits))
        for seed, (fit, scored, of_way) in enumerate(zip(rows.fits, rows.scored, predictions, strict=True)):
            scores = _scores(rows, rows.y[scored], of_way)
            for place, candidate in enumerate(candidates):
                found.append(
                    {
                        "views": views,
                        "head": candidate.kind,
                        "setting": setting_of(candidate),
                        "strength": candidate.strength,
                        "seed": seed,
                        "rows_fit": int(fit.sum()),
                        "rows_scored": int(scored.sum()),
                        **{metric: float(values[place]) for metric, values in scores.items()},
                        "seconds": seconds,
                    }
                )
    return pa.Table.from_pylist(found, SCHEMA)


def setting_of(candidate: Candidate) -> str | None:
    """What a candidate's strength is called."""
    if candidate.strength is None:
        return None
    return FITS[candidate.kind].strength if candidate.kind in FITS else "weight_decay"


def _scores(rows: SpecRows, y: np.ndarray, predictions: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Each metric of each candidate's predictions, `[k]`."""
    c = int(rows.classes[-1]) + 1  # class numbers as they are: `score` counts so too
    counts = np.stack([np.bincount(y * c + each, minlength=c * c).reshape(c, c) for each in predictions])
    return {metric: metric_of_counts(metric, counts) for metric in COUNTED}
