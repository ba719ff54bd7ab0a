"""A split's scores by where its sentences are from: source by source, and in domain and out of domain."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from pipeline.results.intervals import bootstrap_interval
from pipeline.results.metrics import score

SHOWN = ("mcc", "accuracy")
IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"


def score_sources(y: np.ndarray, predictions: np.ndarray, sources: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    """The scores of each source's rows.

    Args:
        y, predictions: `[n]` classes.
        sources: `[n]` their codes; rows without one are in no source.

    Returns:
        By source, in alphabetical order: `rows`, `mcc`, `accuracy`.
    """
    codes = _codes(sources)
    return {code: _scores(y, predictions, codes == code) for code in sorted({each for each in sources if each})}


def score_domains(
    y: np.ndarray, predictions: np.ndarray, sources: Sequence[str | None], trained_on: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The scores of the rows whose source has training rows (`in_domain`), and of those whose source has none.

    CoLA's authors divide its development set so: 527 sentences from the 17 sources of its training set, and 516 from
    6 others (Warstadt et al., 2019, "Neural Network Acceptability Judgments", arXiv:1805.12471).

    Args:
        y, predictions, sources: as in `score_sources`.
        trained_on: the sources of the training rows.

    Returns:
        By domain, of those that have rows: `rows`, `mcc`, `accuracy`, and `intervals` of both.
    """
    found = {}
    for domain, mask in domain_masks(sources, trained_on).items():
        if mask.any():
            intervals = {name: bootstrap_interval(name, y[mask], predictions[mask]).to_dict() for name in SHOWN}
            found[domain] = {**_scores(y, predictions, mask), "intervals": intervals}
    return found


def domain_masks(sources: Sequence[str | None], trained_on: Collection[str]) -> dict[str, np.ndarray]:
    """Which rows `[n]` are in domain, and which out of it; those without a source are neither."""
    known = np.asarray([source in trained_on for source in sources], dtype=bool)
    named = np.asarray([bool(source) for source in sources], dtype=bool)
    return {IN_DOMAIN: named & known, OUT_OF_DOMAIN: named & ~known}


def _codes(sources: Sequence[str | None]) -> np.ndarray:
    return np.asarray([source or "" for source in sources], dtype=object)


def _scores(y: np.ndarray, predictions: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    scores = score(y[mask], predictions[mask])
    return {"rows": int(mask.sum()), **{name: scores[name] for name in SHOWN}}
