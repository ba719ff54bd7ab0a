"""What knows nothing of a sentence: the commonest class, features drawn at random, labels drawn at random."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import HeadError
from pipeline.heads.fused.fit import Candidate, LinearFit
from pipeline.heads.linear_head import LinearHead


def majority_head(y: np.ndarray, width: int) -> LinearHead:
    """What logistic regression comes to where the penalty is all that counts: no weight, and the classes' shares.

    Its predictions and probabilities are those of scikit-learn's `DummyClassifier(strategy="prior")`; of classes that
    are equally common the lower number is predicted.

    Args:
        y: `[n]` class numbers.
        width: of the features that it does not look at.
    """
    classes, counts = np.unique(y, return_counts=True)
    logs = np.log(counts / len(y))
    intercept = logs[1:] - logs[:1] if len(classes) == 2 else logs
    weights = np.zeros((len(intercept), width))
    fit = LinearFit(np.zeros(width), np.ones(width), weights, intercept)
    return LinearHead.of(Candidate("logreg", 0.0), fit, classes)


def random_features(
    train: Sequence[str], others: Sequence[str], width: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers in place of features.

    Equal texts share a vector, in whichever split they stand, as they share their features: what a head scores on these
    is what comes of knowing a text again, and nothing else.

    Args:
        train, others: `[n]` and `[m]` texts.
        width: numbers a text, `d`.
        seed: of the numbers.

    Returns:
        `[n, d]` and `[m, d]` float32.
    """
    X = np.random.default_rng((seed, 0)).standard_normal((len(train) + len(others), width), dtype=np.float32)
    first: dict[str, int] = {}
    for row, text in enumerate([*train, *others]):
        if (before := first.setdefault(text, row)) != row:
            X[row] = X[before]
    return X[: len(train)], X[len(train) :]


def draw_labels(
    y: np.ndarray, rows: int, fits: Sequence[np.ndarray], seed: int, draw: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a control task: drawn row by row with the shares of the classes among `y`, whatever the rows say.

    Equal texts are drawn apart: then there is nothing at all that a head could learn of other rows, and what it scores
    on them is chance. Hewitt & Liang (2019), "Designing and Interpreting Probes with Control Tasks", arXiv:1909.03368,
    draw one label a word type instead, as their rows are words, which come again.

    Args:
        y: `[n]` the task's labels of the training rows.
        rows: of validation, `m`.
        fits: `[n]` bool each, training rows that a head will be fitted on.
        seed, draw: which labels are drawn.

    Returns:
        `[n]` labels of the training rows and `[m]` of validation, int64.

    Raises:
        HeadError: so few rows are of a class that none was drawn among those to fit on.
    """
    classes, counts = np.unique(y, return_counts=True)
    random = np.random.default_rng((seed, 1 + draw))
    drawn = random.choice(classes, size=len(y) + rows, p=counts / len(y)).astype(np.int64)
    of_train, others = drawn[: len(y)], drawn[len(y) :]
    if any(len(np.unique(of_train[fit])) < len(classes) for fit in fits):
        raise HeadError(
            "labels drawn at random lack a class",
            where=f"control task, draw {draw}",
            expected=f"all {len(classes)} classes among the rows to fit on",
            found=f"so few rows of class {int(classes[counts.argmin()])}: {counts.min()} of {len(y)}",
            remedy="bring more rows, or take another --seed",
        )
    return of_train, others
