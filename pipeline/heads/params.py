"""Settings of heads, by their scikit-learn names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import HeadError


def with_params(head: Any, params: Mapping[str, Any], name: str | None = None) -> Any:
    """A head with settings by their names.

    Args:
        name: what people call it; by default its class.

    Raises:
        HeadError: it has no such setting.
    """
    if unknown := set(params) - set(head.get_params()):
        raise HeadError(
            "the head has no such setting",
            where=name or type(head).__name__,
            expected=", ".join(sorted(head.get_params())),
            found=", ".join(sorted(unknown)),
        )
    return head.set_params(**params)


def plain_params(head: Any) -> dict[str, Any]:
    """A head's settings as JSON has them: NumPy's numbers, such as a grid search sets, become Python's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in head.get_params().items()}
