"""The sample that all backbones see: drawn by a seed, each class by its share, whole sentences before phrases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.digests import sha256_of_labels, sha256_of_texts
from pipeline.holdout import sentence_groups, whole_texts
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import Split


@dataclass(frozen=True)
class Sample:
    """What was drawn of one split, so that it can be told from any other.

    Args:
        task, split: of which.
        rows: how many were drawn.
        of: how many there are.
        classes: by the class's name, how many rows.
        texts: the digest of the sentences in order, as an identity has it.
        labels: the digest of their classes.
        seed: of the draw.
    """

    task: str
    split: Split
    rows: int
    of: int
    classes: dict[str, int]
    texts: str
    labels: str | None
    seed: int

    def __str__(self) -> str:
        """For people."""
        classes = ", ".join(f"{count:,} {name}" for name, count in self.classes.items())
        drawn = f"{self.rows:,} of {self.of:,} rows" if self.rows < self.of else f"all {self.rows:,} rows"
        seed = f", seed {self.seed}" if self.rows < self.of else ""
        return f"{self.task}/{self.split}: {drawn} ({classes}{seed}), texts {self.texts[:19]}"

    @classmethod
    def of_draw(cls, drawn: Examples, of: int, seed: int) -> "Sample":
        """Describe a draw."""
        labels = drawn.labels or ()
        return cls(
            task=drawn.task.name,
            split=drawn.split,
            rows=len(drawn),
            of=of,
            classes={name: labels.count(number) for number, name in enumerate(drawn.task.labels)},
            texts=f"sha256:{sha256_of_texts(drawn.texts)}",
            labels=sha256_of_labels(drawn.labels),
            seed=seed,
        )


def draw(examples: Examples, rows: int, seed: int) -> Examples:
    """Some rows of a labelled split, in its order; all, where that many are not there or `rows` is 0.

    First come sentences that no other contains, one of several that are alike, so that as little as can be is said
    twice; only where they are too few, what they contain. So held-out rows of the sample, which keep a sentence and its
    phrases on one side, know of all that belongs together. Each class has its share, of sentences and of phrases.
    """
    if not rows or rows >= len(examples):
        return examples
    return take(examples, drawn_rows(examples.texts, np.asarray(examples.labels), rows, seed))


def drawn_rows(texts: Sequence[str], y: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Which rows `draw` takes of texts and classes `[n]`: `[rows]` int64, ascending."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    whole = order[whole_texts(texts)[order]]
    whole = whole[np.sort(np.unique(sentence_groups(texts)[whole], return_index=True)[1])]  # one of a group
    rest = order[~np.isin(order, whole)]
    taken = [_stratified(whole, y, min(rows, len(whole))), _stratified(rest, y, max(rows - len(whole), 0))]
    return np.sort(np.concatenate(taken))


def _stratified(order: np.ndarray, y: np.ndarray, rows: int) -> np.ndarray:
    """The first of each class, by its share."""
    if not rows:
        return order[:0]
    classes, counts = np.unique(y[order], return_counts=True)
    parts = [order[y[order] == each][:quota] for each, quota in zip(classes, quotas(counts, rows), strict=True)]
    return np.concatenate(parts)


def quotas(counts: Sequence[int] | np.ndarray, rows: int) -> list[int]:
    """How many of `rows` each class gets, by its share; what rounding leaves goes to the largest remainders."""
    shares = [rows * int(count) / int(sum(counts)) for count in counts]
    found = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda place: (found[place] - shares[place], place))
    for place in by_remainder[: rows - sum(found)]:
        found[place] += 1
    return found


def take(examples: Examples, rows: Sequence[int] | np.ndarray) -> Examples:
    """Rows of a split as a split; their own numbers (`idx`) stay."""

    def some(values: Any) -> Any:
        return None if values is None else tuple(values[row] for row in rows)

    return replace(
        examples,
        texts=some(examples.texts),
        labels=some(examples.labels),
        idx=some(examples.idx),
        sources=some(examples.sources),
        lines=some(examples.lines) if examples.lines else (),
        origin=f"a sample of {len(rows)} of {len(examples)} rows of {examples.origin}",
    )
