"""A held-out part of the training rows, to select on: stratified; what belongs together stays on one side."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.digests import sha256_of_record, sha256_of_texts
from pipeline.errors import HeadError
from pipeline.progress import say

ENOUGH = 500
"""Rows held out that a strength can be chosen on: of fewer, the loss says more of these rows than of the strength."""
MOST = 5
"""Ways of holding out that bring them together."""


def sentence_groups(texts: Sequence[str]) -> np.ndarray:
    """Number the groups of texts of which one contains the others.

    SST-2's training rows are phrases of the same sentences: a random split would put a phrase on one side and the
    sentence around it on the other. Each text joins the group of the first, longest text that contains it as a run of
    whole words; texts alike but for case and outer white space are one.

    Args:
        texts: `[n]`.

    Returns:
        `[n]` int64 group numbers.
    """
    return _grouped(texts)[0]


def whole_texts(texts: Sequence[str]) -> np.ndarray:
    """Which texts no other text contains: of SST-2's training rows, the sentences that the phrases are from.

    Args:
        texts: `[n]`.

    Returns:
        `[n]` bool; of equal texts, all are.
    """
    return _grouped(texts)[1]


def _grouped(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Each text's group `[n]` int64, and whether it is what the group began with `[n]` bool."""
    words = [tuple(text.lower().split()) for text in texts]
    distinct = set(words)
    lengths = {len(phrase) for phrase in distinct}
    group_of: dict[tuple[str, ...], int] = {}
    whole: set[tuple[str, ...]] = set()
    groups = 0
    for phrase in sorted(distinct, key=lambda phrase: (-len(phrase), phrase)):
        if phrase in group_of:
            continue
        group_of[phrase] = groups
        whole.add(phrase)
        for length in range(1, len(phrase) + 1):
            if length not in lengths:
                continue
            for first in range(len(phrase) - length + 1):
                part = phrase[first : first + length]
                if part in distinct:
                    group_of.setdefault(part, groups)
        groups += 1
    return (
        np.asarray([group_of[phrase] for phrase in words], dtype=np.int64),
        np.asarray([phrase in whole for phrase in words], dtype=bool),
    )


def folds_of(share: float) -> int:
    """How many parts the rows are dealt into, of which one is held out."""
    return max(2, round(1 / share))


def hold_out(texts: Sequence[str], y: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split training rows into a part to fit and a part to select on: the first of `hold_outs`."""
    return hold_outs(texts, y, share=share, seed=seed, count=1)[0]


def enough_hold_outs(
    texts: Sequence[str], y: np.ndarray, *, share: float, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split training rows in as many of the ways of `hold_outs` as hold out `ENOUGH` rows together, or in `MOST`."""
    groups = sentence_groups(texts)
    ways = hold_outs(texts, y, share=share, seed=seed, count=1, groups=groups)
    count = min(folds_of(share), MOST, math.ceil(ENOUGH / len(ways[0][1])))
    return ways if count == 1 else hold_outs(texts, y, share=share, seed=seed, count=count, groups=groups)


def digest_of_held_out(texts: Sequence[str], ways: Sequence[np.ndarray]) -> str:
    """Which sentences a score on rows held out is of: only scores with one digest can be compared.

    Args:
        texts: `[n]` of the training rows.
        ways: of each way of holding out, the row numbers that are scored.
    """
    return f"sha256:{sha256_of_record([sha256_of_texts(texts[row] for row in way) for way in ways])}"


def source_groups(texts: Sequence[str], sources: Sequence[str | None]) -> np.ndarray:
    """Number the groups of texts from one source; texts of no source are grouped as `sentence_groups` does.

    CoLA's sentences come from some twenty publications, whose examples are variations on each other: a random split
    tells how well a head knows a publication, a split by source how well it does on the next one.

    Args:
        texts: `[n]`.
        sources: `[n]` where each is from, or None.

    Returns:
        `[n]` int64 group numbers.
    """
    groups = sentence_groups(texts)
    first = int(groups.max()) + 1
    numbers = {source: first + place for place, source in enumerate(sorted({each for each in sources if each}))}
    pairs = zip(sources, groups.tolist(), strict=True)
    return np.asarray([numbers[source] if source else group for source, group in pairs], dtype=np.int64)


def groups_by(
    by: Literal["source", "sentence"],
    texts: Sequence[str],
    sources: Sequence[str | None] | None,
    y: np.ndarray,
    *,
    share: float,
) -> np.ndarray | None:
    """What is held out together: sources, where every class is in enough of them to stand on both sides.

    Args:
        by: sentence, never sources.
        texts, y: `[n]` the sentences and their classes.
        sources: `[n]` where each is from, or None where nobody says.
        share: of the rows to hold out, about.

    Returns:
        `[n]` int64 group numbers, or None: the phrases of one sentence.
    """
    if by != "source" or sources is None:
        return None
    named = {(source, label) for source, label in zip(sources, y.tolist(), strict=True) if source}
    least = min(sum(label == each for _, label in named) for each in np.unique(y).tolist())
    if least < (folds := folds_of(share)):
        few = "one source" if least == 1 else f"{least} sources"
        say(f"rows are held out by sentence: a class is in {few} alone, and there are {folds} parts")
        return None
    return source_groups(texts, sources)


def hold_outs(
    texts: Sequence[str], y: np.ndarray, *, share: float, seed: int, count: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split training rows into a part to fit and a part to select on, in several ways.

    The parts held out are the folds of a cross-validation, so that no row is held out twice before every row was once;
    where there are more ways than folds, the rows are dealt out anew by the next seed.

    Args:
        texts: `[n]` the sentences.
        y: `[n]` their classes.
        share: of the rows to hold out, about; between 0 and 0.5.
        seed: which of the possible ways come first.
        count: how many ways.
        groups: `[n]` numbers of what stays on one side; by default `sentence_groups`.

    Returns:
        of each, the row numbers to fit on and the row numbers held out, both sorted; together every row once.

    Raises:
        HeadError: a class has too few rows, or too few distinct sentences, to stand on both sides.
    """
    folds = folds_of(share)
    groups = sentence_groups(texts) if groups is None else groups
    sentences = {int(label): len(np.unique(groups[y == label])) for label in np.unique(y)}
    if len(sentences) < 2:
        raise HeadError(
            "there is only one class among the training rows", expected="two or more", found=f"{len(y)} rows of one"
        )
    if min(sentences.values()) < folds:
        raise HeadError(
            "too few training rows to hold some out",
            expected=f"each class in at least {folds} sentences that do not contain each other",
            found=f"{len(y)} rows; sentences by class: {sentences}",
            remedy="bring more rows, or hold out a larger share of them with --held-out",
        )
    ways: list[tuple[np.ndarray, np.ndarray]] = []
    while len(ways) < count:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + len(ways) // folds) % 2**32)
        dealt = islice(splitter.split(np.zeros(len(y)), y, groups), count - len(ways))
        ways += [(np.sort(fit), np.sort(held)) for fit, held in dealt]
    return ways
