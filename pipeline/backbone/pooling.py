"""From the hidden states of a batch to one vector a row, or to the vectors of a row's own tokens."""

import numpy as np
import torch

from pipeline.backbone.batch import Batch
from pipeline.views import Pooling


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
    device = flat.device
    first, past = batch.offsets[:-1], batch.offsets[1:]
    match pooling:
        case "last":
            pooled = flat[torch.from_numpy(batch.places[past - 1]).to(device)]
        case "first":
            pooled = flat[torch.from_numpy(batch.places[first + start]).to(device)]
        case "mean":
            weights = np.zeros((len(batch.rows), len(flat)), dtype=np.float32)
            for row, (begin, end) in enumerate(zip(first + start, first + stop, strict=True)):
                weights[row, batch.places[begin:end]] = 1 / (end - begin)
            pooled = torch.from_numpy(weights).to(device) @ flat.float()
        case "tokens":
            places = [batch.places[begin:end] for begin, end in zip(first + start, past, strict=True)]
            pooled = flat[torch.from_numpy(np.concatenate(places)).to(device)]
    return pooled.float()
