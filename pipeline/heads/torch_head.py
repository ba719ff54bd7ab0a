"""A PyTorch head on features: linear or with one hidden layer, trained by AdamW, stopped on held-out rows."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pipeline.classifier import KIND, Classifier
from pipeline.heads.rows import as_matrix
from pipeline.heads.stacked.rows import FeatureRows
from pipeline.heads.stacked.stack import ClassifierStack
from pipeline.heads.stacked_head import StackedHead


class TorchHead(StackedHead[np.ndarray]):
    """A linear or one-hidden-layer classifier with scikit-learn's manners.

    Features `[n, d]` are standardised by the rows fitted on. The output layer begins at zero and at the classes' log
    shares, so that an untrained head predicts these shares: on few rows, stopping early then means staying close to
    them. AdamW (Loshchilov & Hutter, 2019, arXiv:1711.05101) minimises the cross-entropy; training stops when the
    held-out loss has not fallen for `patience` epochs, and the weights of the best epoch are kept.

    Args:
        hidden_size: units of the hidden layer (GELU); 0 is a linear head.
        dropout: share of hidden units dropped in training.
        learning_rate: AdamW's; None is 0.2 over the widest layer's inputs. AdamW moves every weight by about the rate,
            so a step then moves a logit equally far whatever the width (Yang et al., 2022, arXiv:2203.03466).
        weight_decay: AdamW's.
        batch_size: rows a step.
        max_epochs: at most.
        patience: epochs without a lower held-out loss before stopping.
        random_state: seed of the first weights, the batches, dropout, and the rows held out where none are given.

    Attributes:
        classes_: `[c]` class numbers.
        best_epoch_: the epoch whose weights are kept, from 1.
        losses_: held-out loss after each epoch.
    """

    kind = KIND
    whole: ClassVar[Mapping[str, int]] = {"hidden_size": 0, **StackedHead.whole}
    real: ClassVar[Mapping[str, tuple[float, float]]] = {"dropout": (0.0, 1.0), **StackedHead.real}

    def __init__(
        self,
        *,
        hidden_size: int = 0,
        dropout: float = 0.1,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        batch_size: int = 128,
        max_epochs: int = 200,
        patience: int = 10,
        random_state: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.random_state = random_state

    def _source(self, X: np.ndarray, width: int | None = None) -> FeatureRows:
        return matrix_rows(X, width)

    def _stack(self, width: int, classes: int) -> ClassifierStack:
        return ClassifierStack([self.random_state], width, classes, hidden_size=self.hidden_size, dropout=self.dropout)

    @classmethod
    def _network(cls, record: Mapping[str, Any]) -> Classifier:
        params = record["params"]
        return Classifier(record["width"], len(record["classes"]), params["hidden_size"], params.get("dropout", 0.0))


def matrix_rows(X: np.ndarray, width: int | None) -> FeatureRows:
    """The rows of a matrix `[n, d]`.

    Args:
        width: that it needs to have, or None.

    Raises:
        HeadError: it has not.
    """
    return FeatureRows.of(as_matrix(X, width))
