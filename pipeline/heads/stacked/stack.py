"""A stack: K heads as tensors with a leading dimension K, which one product of a batch serves together."""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn.functional import gelu

from pipeline.classifier import LOGIT_STEP, Classifier
from pipeline.heads.stacked.rows import Batch, Ragged

Tensors = dict[str, torch.Tensor]


class Stack(ABC):
    """K heads of one shape, with their standardisations.

    Batches are standardised once, by the first head's mean and scale; what another head's own differ from these is
    folded into its weights where that is less work, so that features are never copied K times.

    Args:
        tensors: what is trained, `[K, ...]` each.
        width: numbers a vector, `d`.
        classes: how many, `c`.

    Attributes:
        mean, scale: `[K, d]` float64, each head's standardisation; 0 and 1 at first.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset()
    """Tensors that weight decay leaves alone."""

    def __init__(self, tensors: Tensors, width: int, classes: int) -> None:
        self.tensors, self.width, self.classes = tensors, width, classes
        heads = len(next(iter(tensors.values())))
        self.standardise_by(torch.zeros(heads, width), torch.ones(heads, width))

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def default_learning_rate(self) -> float:
        """AdamW's, as `Classifier.default_learning_rate`."""
        return LOGIT_STEP / max(
            self.tensors[name].shape[-1] for name in ("weight", "hidden_weight") if name in self.tensors
        )

    @property
    def rates(self) -> Mapping[str, float]:
        """By tensor, what the learning rate is multiplied by; 1 where nothing is said."""
        return {}

    @abstractmethod
    def logits(self, batch: Batch, dropped: torch.Generator | None = None) -> torch.Tensor:
        """Logits `[K, c, b]` of a batch.

        Args:
            dropped: draws the hidden units to drop, the same for all heads; None drops none.
        """

    @abstractmethod
    def head(self, k: int) -> nn.Module:
        """One head as a network of its own, standardisation included."""

    def standardise_by(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Set each head's standardisation, `[K, d]` each; features that do not vary are left as they are."""
        self.mean = mean.double()
        self.scale = torch.where(scale == 0, 1.0, scale.double())
        center, spread = self.mean[0], self.scale[0]
        self._center, self._spread = center.float(), spread.float()
        self._own_mean = ((self.mean - center) / spread).float()
        self._own_scale = (self.scale / spread).float()
        differs = ((self.mean[1:] != self.mean[:-1]) | (self.scale[1:] != self.scale[:-1])).any(dim=1)
        starts = [0, *(differs.nonzero()[:, 0] + 1).tolist(), len(self.mean)]
        self._runs = [slice(first, stop) for first, stop in itertools.pairwise(starts)]

    def begin_at_shares(self, counts: torch.Tensor) -> None:
        """Let each head predict its classes' shares, whatever the features.

        Args:
            counts: `[K, c]` rows by class; a class without any counts as half a row.
        """
        self.tensors["weight"] = torch.zeros_like(self.tensors["weight"])
        shares = counts.double() / counts.sum(dim=1, keepdim=True)
        self.tensors["bias"] = shares.clamp_min(0.5 / counts.sum(dim=1, keepdim=True)).log().float()

    def take(self, which: Sequence[int] | torch.Tensor) -> Self:
        """A stack of copies of some of the heads, in that order."""
        rows = torch.as_tensor(which, dtype=torch.int64)
        taken = copy.copy(self)
        taken.tensors = {name: tensor.detach()[rows] for name, tensor in self.tensors.items()}
        taken.standardise_by(self.mean[rows], self.scale[rows])
        return taken

    def _standardisation(self, k: int) -> Tensors:
        """One head's, by the names in a network's state."""
        return {"mean": self.mean[k].float(), "scale": self.scale[k].float()}

    def _shared(self, X: torch.Tensor) -> torch.Tensor:
        """Features `[n, d]` in the standardisation that all heads' own are relative to."""
        return (X - self._center) / self._spread

    def _on_shared(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Linear maps `[K, m, d]`, `[K, m]` of each head's own standardised features, as maps of the shared ones."""
        if len(self._runs) == 1:
            return weight, bias
        weight = weight / self._own_scale[:, None]
        return weight, bias - (weight * self._own_mean[:, None]).sum(dim=2)

    def _own(self, shared: torch.Tensor, run: slice) -> torch.Tensor:
        """Shared features `[n, d]` as the heads of a run have them."""
        if len(self._runs) == 1:
            return shared
        return (shared - self._own_mean[run.start]) / self._own_scale[run.start]


class ClassifierStack(Stack):
    """Linear heads `[d -> c]`, or heads with one hidden layer `[d -> h -> c]` (GELU).

    Output layers begin at zero, hidden ones as `nn.Linear` draws them.

    Args:
        seeds: of each head's first weights; as many as there are heads.
        width: `d`.
        classes: `c`.
        hidden_size: `h`; 0 is linear.
        dropout: share of hidden units dropped in training.
    """

    def __init__(
        self, seeds: Sequence[int], width: int, classes: int, *, hidden_size: int = 0, dropout: float = 0.0
    ) -> None:
        self.hidden_size, self.dropout = hidden_size, dropout
        super().__init__(first_weights(seeds, width, classes, hidden_size), width, classes)

    def logits(self, batch: Batch, dropped: torch.Generator | None = None) -> torch.Tensor:
        """Logits `[K, c, b]` of features `[b, d]`."""
        assert not isinstance(batch, Ragged)
        shared = self._shared(batch)
        if not self.hidden_size:
            return wide(*self._on_shared(self.tensors["weight"], self.tensors["bias"]), shared)
        sizes = [run.stop - run.start for run in self._runs]
        parts = zip(
            torch.split(self.tensors["hidden_weight"], sizes),
            torch.split(self.tensors["hidden_bias"], sizes),
            self._runs,
            strict=True,
        )
        hidden = [wide(weight, bias, self._own(shared, run)) for weight, bias, run in parts]
        return output_logits(self.tensors, hidden[0] if len(hidden) == 1 else torch.cat(hidden), self.dropout, dropped)

    def head(self, k: int) -> Classifier:
        """One head as a classifier of its own."""
        with torch.device("meta"):  # no first weights are drawn: they would only be replaced
            network = Classifier(self.width, self.classes, self.hidden_size, self.dropout)
        network.load_state_dict(self._standardisation(k) | body_state(self.tensors, k), assign=True)
        return network.eval()


def first_weights(seeds: Sequence[int], width: int, classes: int, hidden_size: int) -> Tensors:
    """The tensors of linear heads, or of heads with a hidden layer."""
    heads = len(seeds)
    tensors = {"weight": torch.zeros(heads, classes, hidden_size or width), "bias": torch.zeros(heads, classes)}
    if not hidden_size:
        return tensors
    weight, bias, bound = torch.empty(heads, hidden_size, width), torch.empty(heads, hidden_size), width**-0.5
    for k, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for tensor in (weight[k], bias[k]):
            tensor.uniform_(-bound, bound, generator=generator)
    return {"hidden_weight": weight, "hidden_bias": bias, **tensors}


def output_logits(
    tensors: Tensors, hidden: torch.Tensor, dropout: float, dropped: torch.Generator | None
) -> torch.Tensor:
    """Logits `[K, c, b]` of hidden units `[K, h, b]` before their GELU."""
    active = gelu(hidden)
    if dropout and dropped is not None:
        kept = torch.rand(active.shape[1:], generator=dropped) >= dropout
        active = active * (kept / max(1 - dropout, torch.finfo(torch.float32).tiny))
    return torch.baddbmm(tensors["bias"][:, :, None], tensors["weight"], active)


def body_state(tensors: Tensors, k: int) -> Tensors:
    """One head's layers by their names in a `Classifier`."""
    layers = {"body.0": "hidden_", "body.3": ""} if "hidden_weight" in tensors else {"body.0": ""}
    return {
        f"{layer}.{kind}": tensors[f"{prefix}{kind}"][k].detach().clone()
        for layer, prefix in layers.items()
        for kind in ("weight", "bias")
    }


def wide(weight: torch.Tensor, bias: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """Linear maps `[K, m, d]`, `[K, m]` of features `[b, d]`, as one product: `[K, m, b]`."""
    heads, outputs, width = weight.shape
    return torch.addmm(bias.reshape(-1, 1), weight.reshape(-1, width), X.T).view(heads, outputs, -1)
