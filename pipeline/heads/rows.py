"""Rows that nothing can be learned from, each refused with its reason."""

import numpy as np

from pipeline.errors import HeadError


def check_rows(X: np.ndarray, y: np.ndarray) -> None:
    """Refuse rows that no classifier can be fitted on.

    Args:
        X: `[n, d]`.
        y: `[n]` class numbers.

    Raises:
        HeadError: the shapes do not fit together, there are fewer rows than classes could be told apart by, only one
            class, or a value is not finite (its row and feature are named).
    """
    if X.ndim != 2 or len(X) != len(y):
        raise HeadError("features and labels do not fit together", expected=f"[{len(y)}, d]", found=list(X.shape))
    classes = np.unique(y)
    if len(classes) < 2:
        raise HeadError(
            "there is only one class among the training rows", expected="two or more", found=f"{len(y)} rows of one"
        )
    if not np.isfinite(X.sum(dtype=np.float64)):
        wrong = np.argwhere(~np.isfinite(X))
        if len(wrong):
            raise HeadError(
                "a feature is not finite",
                where=f"row {wrong[0][0]}, feature {wrong[0][1]}",
                expected="finite numbers",
                found=float(X[tuple(wrong[0])]),
            )
