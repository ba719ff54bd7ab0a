"""From the hidden states of a batch to one vector a row, or to the vectors of a row's own tokens."""

import torch

from pipeline.views import Pooling


def pool(
    hidden_states: torch.Tensor, pooling: Pooling, start: torch.Tensor, stop: torch.Tensor, length: torch.Tensor
) -> list[torch.Tensor]:
    """Pool a right-padded batch.

    Args:
        hidden_states: `[b, t, d]`.
        start, stop: `[b]` int64, the sentence's tokens in each row.
        length: `[b]` int64, each row's own tokens, padding excluded.

    Returns:
        `b` float32 tensors on the CPU: `[d]` each, or `[length - start, d]` for `tokens`.
    """
    rows = torch.arange(len(length), device=hidden_states.device)
    match pooling:
        case "last":
            pooled = hidden_states[rows, length - 1]
        case "first":
            pooled = hidden_states[rows, start]
        case "mean":
            place = torch.arange(hidden_states.shape[1], device=hidden_states.device)
            own = (place >= start[:, None]) & (place < stop[:, None])
            summed = hidden_states.float().masked_fill(~own[..., None], 0.0).sum(dim=1)
            pooled = summed / (stop - start)[:, None]
        case "tokens":
            states = hidden_states.float().cpu()
            return [states[row, start[row] : length[row]].clone() for row in range(len(length))]
    return list(pooled.float().cpu())
