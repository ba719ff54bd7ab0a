"""Rows that nothing can be learned from, each refused with its reason; and features that say nothing, named."""

from typing import Any

import numpy as np
from scipy.sparse import issparse

from pipeline.errors import HeadError
from pipeline.heads.fused.moments import FitRows, measure_moments
from pipeline.heads.fused.stream import FeatureStream
from pipeline.progress import say
from pipeline.tasks.spec import TaskSpec

SHOWN = 5


def labelled(task: TaskSpec, y: np.ndarray | None) -> np.ndarray:
    """The training labels `[n]` of a task, if heads can be trained on them.

    Raises:
        HeadError: there are none, there are fewer rows than the task has classes, or all are of one class.
    """
    if y is None:
        raise HeadError("the training rows have no labels", where=task.name, expected="a labelled split")
    if len(y) < len(task.labels):
        raise HeadError(
            "there are fewer training rows than classes",
            where=task.name,
            expected=f"at least {len(task.labels)} rows, better hundreds",
            found=len(y),
        )
    check_classes(y, task.name)
    return y


def check_classes(y: np.ndarray, where: str | None = None) -> None:
    """Refuse rows `[n]` of one class.

    Raises:
        HeadError: they are.
    """
    if len(np.unique(y)) < 2:
        raise HeadError(
            "there is only one class among the training rows",
            where=where,
            expected="two or more",
            found=f"{len(y)} rows of one",
        )


def check_features(stream: FeatureStream, name: str) -> None:
    """Look at all features once: say which do not vary.

    Args:
        name: of the views, for people.

    Raises:
        HeadError: no feature varies, or a value is not finite (its row and feature are named).
    """
    everywhere = FitRows(np.ones(len(stream), dtype=bool), np.zeros(len(stream), dtype=np.int64), classes=1)
    moments = measure_moments(stream, [everywhere], where=name)[0]
    constant = np.flatnonzero(~moments.varies.numpy())
    if len(constant):
        shown = ", ".join(map(str, constant[:SHOWN].tolist())) + (" and more" if len(constant) > SHOWN else "")
        does, get = ("does", "gets") if len(constant) == 1 else ("do", "get")
        say(f"note: {name}: {len(constant)} of {stream.width} features {does} not vary and {get} no weight: {shown}")


def as_matrix(X: Any, width: int | None = None, kinds: str = "fiub") -> np.ndarray:
    """Features as an array `[n, d]` of numbers.

    Args:
        width: `d` that it needs to have, or None.
        kinds: of NumPy's dtypes, that it may have.

    Raises:
        HeadError: they are none of that width.
    """
    wanted = f"[n, {width or 'd'}]"
    if issparse(X):
        raise HeadError("the features are sparse", expected=f"a dense array {wanted}", remedy="take X.toarray()")
    try:
        found = np.asarray(X)
    except ValueError as error:  # lists of differing length
        raise HeadError("the features are not one vector a row", expected=wanted, found=error) from error
    numbers = found.dtype.kind in kinds
    if found.ndim != 2 or not numbers or width not in (None, found.shape[1]):
        raise HeadError(
            "the features are not one vector a row" + (", of the width that the head was trained on" if width else ""),
            expected=wanted,
            found=f"{list(found.shape)}" + ("" if numbers else f" of {found.dtype}"),
        )
    return found


def check_decisions(decisions: np.ndarray) -> np.ndarray:
    """Decision values `[n]` or `[n, c]`, if they are finite.

    Raises:
        HeadError: one is not, as those of a row with a feature that is not finite.
    """
    finite = np.isfinite(decisions).all(axis=tuple(range(1, decisions.ndim)))
    if not finite.all():
        raise HeadError(
            "a row has features that are not finite, or too large",
            where=f"row {int(np.flatnonzero(~finite)[0])}",
            expected="finite numbers",
            found=f"{int((~finite).sum())} such rows",
        )
    return decisions


def check_rows(X: np.ndarray, y: np.ndarray) -> None:
    """Refuse rows that no classifier can be fitted on.

    Args:
        X: `[n, d]`.
        y: `[n]` class numbers.

    Raises:
        HeadError: there is not one label a row, all rows are of one class, no feature varies, or a value is not
            finite.
    """
    if y.shape != (len(X),):
        raise HeadError("features and labels do not fit together", expected=f"[{len(X)}] labels", found=list(y.shape))
    check_classes(y)
    check_features(FeatureStream.of_matrix(X), "X")
