"""Features as torch sees them. The one module of this room that knows torch; it is imported only when asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pipeline.cache.batches import row_numbers

if TYPE_CHECKING:
    from pipeline.cache.feature_set import FeatureSet


def as_tensor(bits: np.ndarray, dtype: str) -> torch.Tensor:
    """A tensor over a writable array's own memory; raw bits (uint16) where `dtype` is bfloat16."""
    if dtype == "bfloat16":
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(bits)


class FeatureDataset(Dataset[dict[str, Any]]):
    """A feature set, row by row; pickled (as for a loader's workers), it is the set's folder, opened again there.

    Args:
        feature_set: an open one.
    """

    def __init__(self, feature_set: "FeatureSet") -> None:
        self.feature_set = feature_set

    def __len__(self) -> int:
        return len(self.feature_set)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row: `X` `[d]` (of the tokens view `[t, d]`) in the storage dtype, `row`, and `y` where labelled."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows in one reading; torch's loader asks for a batch so.

        Raises:
            ConfigError: these are no row numbers (a mask, floats).
        """
        rows = row_numbers(rows).tolist()
        features, dtype = self.feature_set, self.feature_set.manifest.identity.storage_dtype
        states: Sequence[torch.Tensor] | torch.Tensor
        if features.is_tokens:
            states = [as_tensor(np.array(features.stored(row)), dtype) for row in rows]
        else:
            states = as_tensor(features.take(rows), dtype)
        y = features.take_y(rows)
        if y is None:
            return [{"X": state, "row": row} for row, state in zip(rows, states, strict=True)]
        return [
            {"X": state, "row": row, "y": label} for row, state, label in zip(rows, states, y.tolist(), strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {"feature_set": self.feature_set}

    @staticmethod
    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows as one batch: for the loader's `collate_fn`.

        Returns:
            `X` `[b, d]`, or `[b, t, d]` with zeros after each row's end and `mask` `[b, t]` true before it; `y` (where
            the split is labelled) and `row` `[b]` int64.
        """
        states = [row["X"] for row in rows]
        batch: dict[str, torch.Tensor] = {
            name: torch.tensor([row[name] for row in rows]) for name in ("y", "row") if name in rows[0]
        }
        if states[0].ndim == 1:
            return {"X": torch.stack(states), **batch}
        lengths = torch.tensor([len(state) for state in states])
        padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return {"X": padded, "mask": torch.arange(padded.shape[1]) < lengths[:, None], **batch}
