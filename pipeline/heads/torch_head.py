"""A PyTorch head on features: linear or with one hidden layer, trained by AdamW, stopped on held-out rows."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn

from pipeline.classifier import Classifier, StoredClassifier
from pipeline.errors import HeadError


class TorchHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear or one-hidden-layer classifier with scikit-learn's manners.

    Features are standardised by the rows fitted on. The output layer begins at zero and at the classes' log shares, so
    that an untrained head predicts these shares: on few rows, stopping early then means staying close to them. AdamW
    (Loshchilov & Hutter, 2019, arXiv:1711.05101) minimises the cross-entropy; training stops when the held-out loss has
    not fallen for `patience` epochs, and the weights of the best epoch are kept.

    Args:
        hidden_size: units of the hidden layer (GELU); 0 is a linear head.
        dropout: share of hidden units dropped in training.
        learning_rate: AdamW's; None is 0.2 over the widest layer's inputs. AdamW moves every weight by about the rate,
            so a step then moves a logit equally far whatever the width (Yang et al., 2022, arXiv:2203.03466).
        weight_decay: AdamW's.
        batch_size: rows a step.
        max_epochs: at most.
        patience: epochs without a lower held-out loss before stopping.
        random_state: seed of the first weights, the batches and dropout.

    Attributes:
        classes_: `[c]` class numbers.
        best_epoch_: the epoch whose weights are kept, from 1.
        losses_: held-out loss after each epoch.
    """

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

    def fit(self, X: np.ndarray, y: np.ndarray, X_held_out: np.ndarray, y_held_out: np.ndarray) -> Self:
        """Fit on `X` `[n, d]`, `y` `[n]`; stop on `X_held_out` `[m, d]`, `y_held_out` `[m]`.

        Raises:
            HeadError: a setting is wrong, or training diverges.
        """
        self._check_params()
        generator = torch.Generator().manual_seed(self.random_state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self.classes_ = np.unique(y)
            mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
            self.module_ = Classifier(X.shape[1], len(self.classes_), self.hidden_size, self.dropout)
            self.module_.standardise_by(torch.from_numpy(mean), torch.from_numpy(scale))
            data = self._standardise(X), torch.from_numpy(np.searchsorted(self.classes_, y))
            self.module_.begin_at_shares(data[1])
            held = self._standardise(X_held_out), torch.from_numpy(np.searchsorted(self.classes_, y_held_out))
            self._train(data, held, generator)
        return self

    def _train(
        self,
        data: tuple[torch.Tensor, torch.Tensor],
        held: tuple[torch.Tensor, torch.Tensor],
        generator: torch.Generator,
    ) -> None:
        rate = self.learning_rate or self.module_.default_learning_rate
        optimizer = torch.optim.AdamW(self.module_.body.parameters(), lr=rate, weight_decay=self.weight_decay)
        loss_of = nn.CrossEntropyLoss()
        best, best_state = float("inf"), {}
        self.losses_: list[float] = []
        self.best_epoch_ = 0
        for epoch in range(1, self.max_epochs + 1):
            self.module_.train()
            for rows in torch.split(torch.randperm(len(data[1]), generator=generator), self.batch_size):
                optimizer.zero_grad()
                loss_of(self.module_.body(data[0][rows]), data[1][rows]).backward()
                optimizer.step()
            self.module_.eval()
            with torch.inference_mode():
                self.losses_.append(float(loss_of(self.module_.body(held[0]), held[1])))
            if not np.isfinite(self.losses_[-1]):
                raise HeadError(
                    "training diverged",
                    where=f"epoch {epoch}",
                    found=f"held-out loss {self.losses_[-1]}",
                    remedy="lower the learning rate",
                )
            if self.losses_[-1] < best:
                best, self.best_epoch_ = self.losses_[-1], epoch
                best_state = {name: value.clone() for name, value in self.module_.state_dict().items()}
            elif epoch - self.best_epoch_ >= self.patience:
                break
        self.module_.load_state_dict(best_state)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Logits `[n, c]` of features `[n, d]`.

        Raises:
            HeadError: the features have another width than those fitted on.
        """
        if X.ndim != 2 or X.shape[1] != self.module_.width:
            raise HeadError(
                "the features are not of the width that the head was trained on",
                expected=f"[n, {self.module_.width}]",
                found=f"{list(X.shape)}",
            )
        self.module_.eval()
        with torch.inference_mode():
            return np.asarray(self.module_.body(self._standardise(X)).numpy())

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities `[n, c]` of features `[n, d]`."""
        return np.asarray(torch.from_numpy(self.decision_function(X)).double().softmax(dim=1).numpy())

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Classes `[n]` of features `[n, d]`."""
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])

    def save(self, path: Path) -> None:
        """Store weights, standardisation and settings as one safetensors file."""
        StoredClassifier(self.module_, self.classes_.tolist(), self.get_params()).save(path)

    @classmethod
    def load(cls, path: Path) -> "TorchHead":
        """Read a head that `save` wrote.

        Raises:
            HeadError: the file is no such head.
        """
        stored = StoredClassifier.load(path)
        try:
            head = cls(**stored.params)
            head._check_params()
            head.classes_ = np.asarray(stored.classes)
        except (TypeError, ValueError) as error:
            raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
        head.module_ = stored.network
        return head

    def _check_params(self) -> None:
        """Raise one error for all settings that are wrong."""
        whole = {"hidden_size": 0, "batch_size": 1, "max_epochs": 1, "patience": 1, "random_state": 0}
        real = {"dropout": (0.0, 1.0), "learning_rate": (1e-12, 1e38), "weight_decay": (0.0, 1e6)}
        problems = []
        for name, value in self.get_params().items():
            if name == "learning_rate" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                problems.append(f"{name}: expected a number, found {value!r}")
            elif name in whole and (not isinstance(value, int) or value < whole[name]):
                problems.append(f"{name}: expected a whole number from {whole[name]} on, found {value!r}")
            elif name in real and not real[name][0] <= value <= real[name][1]:
                problems.append(f"{name}: expected {real[name][0]:g} to {real[name][1]:g}, found {value!r}")
        if problems:
            raise HeadError("the head's settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))

    def _standardise(self, X: np.ndarray) -> torch.Tensor:
        return self.module_.standardised(torch.from_numpy(np.array(X, dtype=np.float32)))
