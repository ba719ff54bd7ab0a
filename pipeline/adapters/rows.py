"""The rows of a task as the live path sees them: token ids, labels, and which of them are held out to select on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.backbone.tokens import OF_SETTINGS, TokenRows, resolve_max_length, tokenize
from pipeline.config import TokensConfig
from pipeline.errors import DataError
from pipeline.holdout import hold_out
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import Split, TaskSpec


@dataclass(frozen=True)
class LiveRows:
    """One split of one task.

    Args:
        examples: the split.
        tokens: its prompted sentences.
    """

    examples: Examples
    tokens: TokenRows

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def task(self) -> TaskSpec:
        """The task that the rows are of."""
        return self.examples.task

    @property
    def y(self) -> np.ndarray | None:
        """`[n]` int64 labels, or None where the split is unlabelled."""
        labels = self.examples.labels
        return None if labels is None else np.asarray(labels, dtype=np.int64)


@dataclass(frozen=True)
class TaskRows:
    """All splits of one task.

    Args:
        splits: by name.
        fit: rows of train to train on, sorted.
        held: rows of train to select on, sorted.
    """

    splits: dict[Split, LiveRows]
    fit: np.ndarray
    held: np.ndarray

    @property
    def train(self) -> LiveRows:
        """The training split, of which `fit` and `held` are parts."""
        return self.splits["train"]

    @property
    def task(self) -> TaskSpec:
        """The task."""
        return self.train.task

    @property
    def y(self) -> np.ndarray:
        """`[n]` int64, the labels of train."""
        y = self.train.y
        assert y is not None
        return y


def tokenize_split(
    tokenizer: Any,
    examples: Examples,
    tokens: TokensConfig,
    prompt: str,
    most: int | None,
    remedy: str = OF_SETTINGS,
) -> LiveRows:
    """Put a split's sentences into a prompt, as token ids.

    Args:
        tokens: limits; its own prompt is not asked.
        most: the most tokens that the backbone was made for, if that is known.
        remedy: what to do about a sentence that is too long.

    Raises:
        ConfigError: the limit is beyond that.
        SentenceError: a sentence is too long.
    """
    rows = tokenize(
        tokenizer,
        examples.texts,
        prompt,
        max_length=resolve_max_length(tokens.max_length, most),
        truncation=tokens.truncation,
        special_tokens=tokens.special_tokens,
        origin=examples.origin,
        lines=examples.lines or None,
        remedy=remedy,
    )
    return LiveRows(examples, rows)


def split_rows(splits: dict[Split, LiveRows], *, held_out: float, max_rows: int, seed: int) -> TaskRows:
    """Hold out a part of the training rows, as heads do, and take at most `max_rows` of the others.

    Raises:
        DataError: validation has no labels, or the rows to train on lack a class.
        HeadError: there are too few training rows.
    """
    train = splits["train"]
    if train.y is None or splits["validation"].y is None:
        raise DataError("training needs labels", where=train.examples.origin, expected="labelled train and validation")
    fit, held = hold_out(train.examples.texts, train.y, share=held_out, seed=seed)
    if max_rows:
        fit = np.sort(np.random.default_rng(seed).permutation(fit)[:max_rows])
    if missing := sorted(set(train.y.tolist()) - set(train.y[fit].tolist())):
        raise DataError(
            "among the rows to train on there is none of some classes",
            where=train.examples.origin,
            expected=train.task.labels,
            found=f"{len(fit)} rows without {', '.join(train.task.labels[number] for number in missing)}",
            remedy="raise --max-rows, or take another --seed",
        )
    return TaskRows(splits, fit, held)
