"""A head on several layers at once: it learns how much of each to take."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pipeline.classifier import LOGIT_STEP, Classifier
from pipeline.errors import HeadError
from pipeline.heads.stacked.rows import Batch, FeatureRows, Ragged
from pipeline.heads.stacked.stack import Stack, Tensors, body_state, first_weights, output_logits, wide
from pipeline.heads.stacked_head import StackedHead
from pipeline.heads.torch_head import matrix_rows

MIX_STEP = 0.02
"""How far a step of the default learning rate moves a layer's weight before the softmax, and the scale."""


class ScalarMix(nn.Module):
    """Layers standardised, mixed and classified, one state dict.

    `logits = body(gamma * sum_l softmax(mix)_l * z_l)`, where `z_l` `[n, d]` are the standardised features of layer l.

    Args:
        layers: how many, `L`.
        width: numbers of all layers together, `L * d`.
        classes: how many, `c`.
        hidden_size, dropout: as in `Classifier`.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layers: int, width: int, classes: int, hidden_size: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.mix = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(()))
        self.body = Classifier(width // layers, classes, hidden_size, dropout).body

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits `[n, c]` of features `[n, L * d]`."""
        layers = ((X - self.mean) / self.scale).view(len(X), len(self.mix), -1)
        logits: torch.Tensor = self.body(torch.einsum("l,nld->nd", self.gamma * self.mix.softmax(dim=0), layers))
        return logits


class ScalarMixStack(Stack):
    """K scalar mixes.

    A linear classifier of the mix is a linear classifier of all layers whose weights are the layers' shares of its own:
    one product serves all heads. With a hidden layer, each head mixes first.

    Args:
        seeds: of each head's first weights; as many as there are heads.
        layers: how many, `L`.
        width: numbers of all layers together, `L * d`.
        classes: `c`.
        hidden_size, dropout: as in `ClassifierStack`.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset({"mix", "gamma"})

    def __init__(
        self,
        seeds: Sequence[int],
        layers: int,
        width: int,
        classes: int,
        *,
        hidden_size: int = 0,
        dropout: float = 0.0,
    ) -> None:
        self.layers, self.hidden_size, self.dropout = layers, hidden_size, dropout
        tensors = first_weights(seeds, width // layers, classes, hidden_size)
        tensors |= {"mix": torch.zeros(len(seeds), layers), "gamma": torch.ones(len(seeds))}
        super().__init__(tensors, width, classes)

    @property
    def rates(self) -> Mapping[str, float]:
        """A mix moves by `MIX_STEP` where a logit moves by `LOGIT_STEP`; of one layer there is nothing to mix."""
        rate = 0.0 if self.layers == 1 else MIX_STEP / LOGIT_STEP * self.width / self.layers
        return {"mix": rate, "gamma": rate}

    def logits(self, batch: Batch, dropped: torch.Generator | None = None) -> torch.Tensor:
        """Logits `[K, c, b]` of features `[b, L * d]`."""
        assert not isinstance(batch, Ragged)
        shared = self._shared(batch)
        shares = self.tensors["gamma"][:, None] * self.tensors["mix"].softmax(dim=1)  # [K, L]
        if not self.hidden_size:
            weight = shares[:, None, :, None] * self.tensors["weight"][:, :, None]  # [K, c, L, d]
            return wide(*self._on_shared(weight.flatten(2), self.tensors["bias"]), shared)
        layers = shared.view(len(shared), self.layers, -1)  # [b, L, d]
        means, scales = (own.view(len(self), self.layers, -1) for own in (self._own_mean, self._own_scale))
        parts = shares[:, :, None] / scales  # [K, L, d]
        mixed = -(parts * means).sum(dim=1)[:, None]
        for number in range(self.layers):
            mixed = torch.addcmul(mixed, layers[None, :, number], parts[:, None, number])
        hidden = torch.baddbmm(
            self.tensors["hidden_bias"][:, :, None], self.tensors["hidden_weight"], mixed.transpose(1, 2)
        )
        return output_logits(self.tensors, hidden, self.dropout, dropped)

    def head(self, k: int) -> ScalarMix:
        """One head as a network of its own."""
        with torch.device("meta"):
            network = ScalarMix(self.layers, self.width, self.classes, self.hidden_size, self.dropout)
        mix: Tensors = {name: self.tensors[name][k].detach().clone() for name in ("mix", "gamma")}
        network.load_state_dict(self._standardisation(k) | mix | body_state(self.tensors, k), assign=True)
        return network.eval()


class ScalarMixHead(StackedHead[np.ndarray]):
    """A classifier of a learned mix of layers, with scikit-learn's manners.

    Features `[n, L * d]` are L views of equal width side by side, each standardised by the rows fitted on. They are
    mixed with softmax weights, one a layer, and a scale (Peters et al., 2018, arXiv:1802.05365, equation 1; as a probe:
    Tenney et al., 2019, arXiv:1905.05950), and classified. Weights begin equal and the scale at 1; weight decay leaves
    both alone, and they learn at a rate of their own, by which a step moves them equally far at any width. With one
    layer there is nothing to mix, both stay as they are, and the head is a `TorchHead`.

    Args:
        layers: how many views there are, `L`.
        hidden_size, dropout, learning_rate, weight_decay, batch_size, max_epochs, patience, random_state: as
            `TorchHead` has them.

    Attributes:
        classes_, best_epoch_, losses_: as `TorchHead` has them.
    """

    kind = "mix"
    whole: ClassVar[Mapping[str, int]] = {"layers": 1, "hidden_size": 0, **StackedHead.whole}
    real: ClassVar[Mapping[str, tuple[float, float]]] = {"dropout": (0.0, 1.0), **StackedHead.real}

    def __init__(
        self,
        *,
        layers: int = 2,
        hidden_size: int = 0,
        dropout: float = 0.1,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        batch_size: int = 128,
        max_epochs: int = 200,
        patience: int = 10,
        random_state: int = 0,
    ) -> None:
        self.layers = layers
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.random_state = random_state

    @property
    def weights_(self) -> np.ndarray:
        """`[L]` float32, how much of each layer is taken; together 1."""
        assert isinstance(self.module_, ScalarMix)
        return np.asarray(self.module_.mix.detach().softmax(dim=0).numpy())

    @property
    def gamma_(self) -> float:
        """The scale of the mix."""
        assert isinstance(self.module_, ScalarMix)
        return float(self.module_.gamma.detach())

    def _source(self, X: np.ndarray, width: int | None = None) -> FeatureRows:
        source = matrix_rows(X, width)
        if source.width % self.layers:
            raise HeadError(
                "the features are not layers of equal width",
                expected=f"a multiple of {self.layers} numbers a row",
                found=source.width,
                remedy="set layers to the number of views that stand side by side",
            )
        return source

    def _stack(self, width: int, classes: int) -> ScalarMixStack:
        seeds = [self.random_state]
        return ScalarMixStack(seeds, self.layers, width, classes, hidden_size=self.hidden_size, dropout=self.dropout)

    @classmethod
    def _network(cls, record: Mapping[str, Any]) -> ScalarMix:
        params = record["params"]
        return ScalarMix(
            params["layers"], record["width"], len(record["classes"]), params["hidden_size"], params["dropout"]
        )
