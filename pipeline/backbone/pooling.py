"""From the hidden states of a batch to one vector a row, or to the vectors of a row's own tokens."""

import numpy as np
import torch

from pipeline.backbone.batch import Batch
from pipeline.views import Pooling


def places_read(batch: Batch, pooling: Pooling, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Which places of the flattened `[b * t]` a pooling looks at, int64, row after row; arguments as in `pool`."""
    first, past = batch.offsets[:-1], batch.offsets[1:]
    match pooling:
        case "last":
            ranges = zip(past - 1, past, strict=True)
        case "first":
            ranges = zip(first + start, first + start + 1, strict=True)
        case "mean":
            ranges = zip(first + start, first + stop, strict=True)
        case "tokens":
            ranges = zip(first + start, past, strict=True)
    return np.concatenate([batch.places[begin:end] for begin, end in ranges])


def pool(
    hidden_states: torch.Tensor,
    batch: Batch,
    pooling: Pooling,
    start: np.ndarray,
    stop: np.ndarray,
) -> torch.Tensor:
    """Pool a batch's rows.

    Args:
        hidden_states: `[b, t, d]` of the batch.
        start, stop: `[r]` int64, the sentence's tokens in each of the batch's rows.

    Returns:
        float32, where the hidden states are: `[r, d]`; for `tokens` `[m, d]`, row after row, each from `start` on.
    """
    flat = hidden_states.flatten(0, 1)
    places = places_read(batch, pooling, start, stop)
    if pooling != "mean":
        return flat[torch.from_numpy(places).to(flat.device)].float()
    length = stop - start
    weights = np.zeros((len(batch.rows), len(flat)), dtype=np.float32)
    weights[np.repeat(np.arange(len(length)), length), places] = np.repeat(1 / length, length)
    return torch.from_numpy(weights).to(flat.device) @ flat.float()
