"""What PyTorch heads have in common: a stack of one, trained by the one loop, behind scikit-learn's manners."""

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted
from torch import nn

from pipeline.classifier import read_network, write_network
from pipeline.errors import HeadError
from pipeline.heads.params import plain_params
from pipeline.heads.rows import check_classes, check_decisions
from pipeline.heads.stacked.adamw import Schedule
from pipeline.heads.stacked.rows import RowSource, WithHeldOut
from pipeline.heads.stacked.stack import Stack
from pipeline.heads.stacked.training import train_stack
from pipeline.results.calibration import probabilities_of

HELD_OUT = 0.1
"""Of the rows, to stop on, where the caller brings none."""
Rows = TypeVar("Rows")
"""What features come as: a matrix, or rows of differing length."""


class StackedHead(ClassifierMixin, BaseEstimator, Generic[Rows]):  # type: ignore[misc]
    """A head that is trained as a stack of one.

    Attributes:
        classes_: `[c]` class numbers.
        best_epoch_: the epoch whose weights are kept, from 1.
        losses_: held-out loss after each epoch.
        module_: the network, standardisation included.
        temperature_: what logits are divided by before they become probabilities; 1 after `fit`.
    """

    kind: ClassVar[str]
    """In the metadata of its file."""
    whole: ClassVar[Mapping[str, int]] = {"batch_size": 1, "max_epochs": 1, "patience": 1, "random_state": 0}
    """Settings that are whole numbers, with the least that each may be."""
    real: ClassVar[Mapping[str, tuple[float, float]]] = {"learning_rate": (1e-12, 1e38), "weight_decay": (0.0, 1e6)}
    """Settings that are numbers, with the least and the most that each may be."""

    learning_rate: float | None
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    random_state: int
    classes_: np.ndarray
    module_: nn.Module
    temperature_: float = 1.0

    @abstractmethod
    def _source(self, X: Rows, width: int | None = None) -> RowSource:
        """Features as a source of rows.

        Args:
            width: that they need to have; by default any.

        Raises:
            HeadError: they are none that this head can take.
        """

    @abstractmethod
    def _stack(self, width: int, classes: int) -> Stack:
        """An untrained stack of one head for features of a width."""

    @classmethod
    @abstractmethod
    def _network(cls, record: Mapping[str, Any]) -> nn.Module:
        """A network without weights, by what its file says."""

    def fit(self, X: Rows, y: np.ndarray, X_held_out: Rows | None = None, y_held_out: np.ndarray | None = None) -> Self:
        """Fit on `n` rows `X`, `y` `[n]`; stop on `m` rows `X_held_out`, `y_held_out` `[m]`.

        Where no rows are held out by the caller, a tenth of each class is, by `random_state`.

        Raises:
            HeadError: a setting is wrong, rows cannot be learned from (one class, lengths that differ, a held-out row
                of an unknown class, a value that is not finite), or training diverges.
        """
        self.check_params()
        y, data = np.asarray(y), self._source(X)
        _check_lengths(data, y)
        check_classes(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if X_held_out is None or y_held_out is None:
            if X_held_out is not None or y_held_out is not None:
                raise HeadError("held-out rows need features and labels", expected="X_held_out and y_held_out")
            held = self._hold_out(y)
        else:
            y_held_out, held_data = np.asarray(y_held_out), self._source(X_held_out, data.width)
            _check_lengths(held_data, y_held_out)
            if unknown := sorted(set(y_held_out.tolist()) - set(self.classes_.tolist())):
                raise HeadError("held-out rows have a class that no row to fit on has", found=unknown)
            data = WithHeldOut(data, held_data)
            held = np.arange(len(data)) >= len(y)
            numbers = np.concatenate([numbers, np.searchsorted(self.classes_, y_held_out)])
        result = train_stack(
            self._stack(data.width, len(self.classes_)),
            data,
            numbers,
            ~held[None],
            held[None],
            Schedule(
                self.learning_rate,
                self.weight_decay,
                self.batch_size,
                self.max_epochs,
                self.patience,
                self.random_state,
            ),
            names=[type(self).__name__],
        )
        self.best_epoch_ = int(result.best_epochs[0])
        self.losses_ = result.losses[0]
        self.module_ = result.stack.head(0)
        self.temperature_ = 1.0
        return self

    def _hold_out(self, y: np.ndarray) -> np.ndarray:
        """`[n]` bool."""
        try:
            _, rows = train_test_split(
                np.arange(len(y)), test_size=HELD_OUT, stratify=y, random_state=self.random_state
            )
        except ValueError as error:
            raise HeadError(
                "too few rows to hold some out", found=error, remedy="bring more rows, or X_held_out and y_held_out"
            ) from error
        return np.isin(np.arange(len(y)), rows, assume_unique=True)

    @property
    def n_features_in_(self) -> int:
        """Numbers a vector."""
        mean = self.module_.get_buffer("mean")
        return len(mean)

    def logits(self, X: Rows) -> np.ndarray:
        """Logits `[n, c]` float32, one for each class also where there are two.

        Raises:
            HeadError: the features have another width than those fitted on, or are not finite.
            NotFittedError: the head is not fitted.
        """
        check_is_fitted(self)
        data = self._source(X, self.n_features_in_)
        self.module_.eval()
        with torch.inference_mode():
            parts = [self.module_(batch) for _, batch in data.blocks(torch.ones(len(data), dtype=torch.bool))]
        return check_decisions(torch.cat(parts).numpy()) if parts else np.empty((0, len(self.classes_)), np.float32)

    def decision_function(self, X: Rows) -> np.ndarray:
        """Decision values: for two classes `[n]`, the second one's logit less the first one's; else the logits."""
        logits = self.logits(X)
        return np.asarray(logits[:, 1] - logits[:, 0]) if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Rows) -> np.ndarray:
        """Probabilities `[n, c]` float64."""
        return probabilities_of(self.logits(X), self.temperature_)

    def predict(self, X: Rows) -> np.ndarray:
        """Classes `[n]`."""
        numbers = self.logits(X).argmax(axis=1)
        return np.asarray(self.classes_[numbers])

    def save(self, path: Path) -> None:
        """Store weights, standardisation and settings as one safetensors file."""
        record = {"kind": self.kind, "params": plain_params(self), "classes": self.classes_.tolist()}
        record["temperature"] = self.temperature_
        write_network(path, self.module_, record | {"width": self.n_features_in_})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a head that `save` wrote.

        Raises:
            HeadError: the file is no such head.
        """
        network, record = read_network(path, cls.kind, cls._network)
        try:
            head = cls(**record["params"])
            head.check_params()
            head.classes_ = np.asarray(record["classes"])
            head.temperature_ = float(record.get("temperature", 1.0))
        except (TypeError, ValueError) as error:
            raise HeadError("a head cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error
        head.module_ = network
        return head

    def check_params(self) -> None:
        """Raise one error for all settings that are wrong."""
        problems = []
        for name, value in self.get_params().items():
            if name == "learning_rate" and value is None:
                continue
            if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
                problems.append(f"{name}: expected a number, found {value!r}")
            elif name in self.whole and (not isinstance(value, Integral) or value < self.whole[name]):
                problems.append(f"{name}: expected a whole number from {self.whole[name]} on, found {value!r}")
            elif name in self.real and not self.real[name][0] <= float(value) <= self.real[name][1]:
                least, most = self.real[name]
                problems.append(f"{name}: expected {least:g} to {most:g}, found {value!r}")
        if problems:
            raise HeadError("the head's settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))


def _check_lengths(data: RowSource, y: np.ndarray) -> None:
    if y.shape != (len(data),):
        raise HeadError(
            "features and labels do not fit together", expected=f"[{len(data)}] labels", found=list(y.shape)
        )
