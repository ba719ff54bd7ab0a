"""A head on the tokens view: it learns which positions of a sentence to look at."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import HeadError
from pipeline.heads.stacked.rows import Batch, Ragged
from pipeline.heads.stacked.stack import Stack
from pipeline.heads.stacked_head import StackedHead
from pipeline.heads.token_rows import TokenRows, Tokens


def padded(values: torch.Tensor, lengths: torch.Tensor, fill: float) -> torch.Tensor:
    """Values of positions `[p, m]` as rows `[b, t, m]`, `t` the longest; what stands after a row's end is `fill`."""
    rows = torch.full((len(lengths), int(lengths.max()), values.shape[1]), fill, dtype=values.dtype)
    rows[torch.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows


def pool(scores: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean of each row's values, weighted by the softmax of its scores.

    Args:
        scores: `[p, K]` of the positions of all rows.
        values: `[p, K, m]`.
        lengths: `[b]` positions a row.

    Returns:
        `[b, K, m]`.
    """
    weights = padded(scores, lengths, float("-inf")).softmax(dim=1)  # [b, t, K]
    rows = padded(values.flatten(1), lengths, 0.0).view(*weights.shape, -1)
    return torch.einsum("btk,btkm->bkm", weights, rows)


class AttentionPooling(nn.Module):
    """Positions standardised, pooled by attention and classified, one state dict.

    Args:
        width: numbers a position, `d`.
        classes: how many, `c`.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.query = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, classes)

    def forward(self, rows: Ragged) -> torch.Tensor:
        """Logits `[b, c]`."""
        X, scores = self._scored(rows)
        # A mean of weights that sum to one and a linear map may change places, and logits are the fewer numbers.
        return pool(scores[:, None], self.output(X)[:, None], rows.lengths)[:, 0]

    def attention(self, rows: Ragged) -> torch.Tensor:
        """The weights `[p]` of all positions; those of a row sum to one."""
        _, scores = self._scored(rows)
        weights = padded(scores[:, None], rows.lengths, float("-inf")).softmax(dim=1)[..., 0]
        return weights[torch.arange(weights.shape[1]) < rows.lengths[:, None]]

    def _scored(self, rows: Ragged) -> tuple[torch.Tensor, torch.Tensor]:
        X = (rows.X - self.mean) / self.scale
        return X, X @ self.query / len(self.query) ** 0.5


class AttentionPoolingStack(Stack):
    """K attention poolings: scores and logits of all positions and heads are one product.

    Args:
        heads: `K`; all begin alike, with equal weights for all positions.
        width: `d`.
        classes: `c`.
    """

    def __init__(self, heads: int, width: int, classes: int) -> None:
        tensors = {
            "query": torch.zeros(heads, width),
            "weight": torch.zeros(heads, classes, width),
            "bias": torch.zeros(heads, classes),
        }
        super().__init__(tensors, width, classes)

    @property
    def rates(self) -> Mapping[str, float]:
        """A score is divided by sqrt(d): so much faster, the query moves it as far as a step moves a logit."""
        return {"query": self.width**0.5}

    def logits(self, batch: Batch, dropped: torch.Generator | None = None) -> torch.Tensor:
        """Logits `[K, c, b]` of rows `[t, d]`."""
        assert isinstance(batch, Ragged)
        query = self.tensors["query"][:, None] / self.width**0.5
        weight = torch.cat([query, self.tensors["weight"]], dim=1)  # [K, 1 + c, d]
        bias = torch.nn.functional.pad(self.tensors["bias"], (1, 0))
        weight, bias = self._on_shared(weight, bias)
        found = torch.addmm(bias.flatten(), self._shared(batch.X), weight.flatten(0, 1).T).view(-1, *bias.shape)
        return pool(found[..., 0], found[..., 1:], batch.lengths).permute(1, 2, 0)

    def head(self, k: int) -> AttentionPooling:
        """One head as a network of its own."""
        with torch.device("meta"):
            network = AttentionPooling(self.width, self.classes)
        names = {"query": "query", "weight": "output.weight", "bias": "output.bias"}
        state = {there: self.tensors[here][k].detach().clone() for here, there in names.items()}
        network.load_state_dict(self._standardisation(k) | state, assign=True)
        return network.eval()


class AttentionPoolingHead(StackedHead[Tokens]):
    """A linear classifier of each row's positions, pooled by learned attention, with scikit-learn's manners.

    Features are rows `[t, d]` of differing length: arrays, a feature set of the tokens view, or some rows of one, which
    are read batch by batch. Each feature is standardised over all positions of the rows fitted on. A position's score
    is its product with a learned query over sqrt(d); the softmax of a row's scores weights the mean of its positions,
    which is classified (Lin et al., 2017, arXiv:1703.03130, with one linear hop; scores scaled as in Vaswani et al.,
    2017, arXiv:1706.03762). The query begins at zero, which is mean pooling.

    Args:
        learning_rate, weight_decay, batch_size, max_epochs, patience, random_state: as `TorchHead` has them.

    Attributes:
        classes_, best_epoch_, losses_: as `TorchHead` has them.
    """

    kind = "attention"

    def __init__(
        self,
        *,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        batch_size: int = 128,
        max_epochs: int = 200,
        patience: int = 10,
        random_state: int = 0,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.random_state = random_state

    def attention(self, X: Tokens) -> list[np.ndarray]:
        """The weights `[t]` of each row's positions, float32; together 1.

        Raises:
            HeadError: the features have another width than those fitted on.
        """
        assert isinstance(self.module_, AttentionPooling)
        data = self._source(X, self.n_features_in_)
        found: list[np.ndarray] = []
        with torch.inference_mode():
            for _, rows in data.blocks(torch.ones(len(data), dtype=torch.bool)):
                assert isinstance(rows, Ragged)
                weights = torch.split(self.module_.attention(rows), rows.lengths.tolist())
                found += [np.asarray(of_row.numpy()) for of_row in weights]
        return found

    def _source(self, X: Tokens, width: int | None = None) -> TokenRows:
        rows = TokenRows.of(X)
        if width not in (None, rows.width):
            raise HeadError(
                "the features are not of the width that the head was trained on",
                expected=f"rows [t, {width}]",
                found=f"rows [t, {rows.width}]",
            )
        return rows

    def _stack(self, width: int, classes: int) -> AttentionPoolingStack:
        return AttentionPoolingStack(1, width, classes)

    @classmethod
    def _network(cls, record: Mapping[str, Any]) -> AttentionPooling:
        return AttentionPooling(record["width"], len(record["classes"]))
