"""The network of a PyTorch head, and its file: what heads on cached features and heads on a live backbone share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import HeadError

Network = TypeVar("Network", bound=nn.Module)

KIND = "torch"
"""Of classifiers, in their files' metadata."""
LOGIT_STEP = 0.2
"""About how far one step of the default learning rate moves a logit."""


class Classifier(nn.Module):
    """Standardisation and the trained body, one state dict.

    Args:
        width: numbers a row, `d`.
        classes: how many, `c`.
        hidden_size: units of a hidden layer (GELU); 0 is a linear classifier.
        dropout: share of hidden units dropped in training.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int, classes: int, hidden_size: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        hidden = [nn.Linear(width, hidden_size), nn.GELU(), nn.Dropout(dropout)] if hidden_size else []
        self.body = nn.Sequential(*hidden, nn.Linear(hidden_size or width, classes))

    @property
    def width(self) -> int:
        """Numbers a row."""
        return len(self.mean)

    @property
    def hidden_size(self) -> int:
        """Units of the hidden layer, or 0 where there is none."""
        first = self.body[0]
        assert isinstance(first, nn.Linear)
        return first.out_features if len(self.body) > 1 else 0

    @property
    def default_learning_rate(self) -> float:
        """AdamW's, which moves every weight by about the rate: a step then moves a logit equally far at any width (Yang
        et al., 2022, arXiv:2203.03466).
        """
        return LOGIT_STEP / max(layer.in_features for layer in self.body if isinstance(layer, nn.Linear))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits `[n, c]` of features `[n, d]`."""
        logits: torch.Tensor = self.body(self.standardised(X))
        return logits

    def standardised(self, X: torch.Tensor) -> torch.Tensor:
        """Features `[n, d]` as the body sees them."""
        return (X - self.mean) / self.scale

    @torch.no_grad()
    def standardise_by(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Set the standardisation, `[d]` each; features that do not vary are left as they are."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale == 0, torch.ones_like(scale), scale))

    @torch.no_grad()
    def begin_at_shares(self, y: torch.Tensor) -> None:
        """Set the output layer so that it predicts the classes' shares among `y` `[n]`, whatever the features."""
        output = self.body[-1]
        assert isinstance(output, nn.Linear)
        output.weight.zero_()
        output.bias.copy_(torch.bincount(y, minlength=output.out_features).double().div(len(y)).log())


@dataclass(frozen=True)
class StoredClassifier:
    """A classifier with what its file says of it.

    Args:
        network: the classifier.
        classes: `[c]` class numbers, in the order of the logits.
        params: the settings of the head that it was trained by.
    """

    network: Classifier
    classes: list[int]
    params: dict[str, Any]

    def save(self, path: Path) -> None:
        """Store weights, standardisation and settings as one safetensors file."""
        record = {"kind": KIND, "params": self.params, "classes": self.classes, "width": self.network.width}
        write_network(path, self.network, record)

    @classmethod
    def load(cls, path: Path) -> "StoredClassifier":
        """Read what `save` wrote.

        Raises:
            HeadError: the file is no such head.
        """
        network, record = read_network(path, KIND, _empty_classifier)
        return cls(network, list(record["classes"]), dict(record["params"]))


def write_network(path: Path, network: nn.Module, record: Mapping[str, Any]) -> None:
    """Store a network's state as one safetensors file.

    Args:
        record: what to build the network from when it is read, and its `kind`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"head": json.dumps(record)})


def stored_kind(path: Path) -> str:
    """The kind of the network that `write_network` wrote; the oldest files name none, and hold classifiers.

    Raises:
        HeadError: the file is no such network.
    """
    try:
        with safe_open(path, framework="np") as file:
            return str(json.loads((file.metadata() or {})["head"]).get("kind", KIND))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error


def read_network(
    path: Path, kind: str, build: Callable[[Mapping[str, Any]], Network]
) -> tuple[Network, dict[str, Any]]:
    """Read a network that `write_network` wrote, with its record.

    Args:
        kind: which it has to be; the oldest files name none, and hold classifiers.
        build: makes the network of a record; its first weights are not drawn, for they would only be replaced.

    Raises:
        HeadError: the file is no such network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record: dict[str, Any] = json.loads((file.metadata() or {})["head"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if (found := record.get("kind", KIND)) != kind:
            raise HeadError("this is a head of another kind", where=path, expected=kind, found=found)
        with torch.device("meta"):
            network = build(record)
        network.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
    return network, record


def _empty_classifier(record: Mapping[str, Any]) -> Classifier:
    params = record["params"]
    return Classifier(record["width"], len(record["classes"]), params["hidden_size"], params.get("dropout", 0.0))
