"""One training loop for a stack of heads: the same batches for all, each head stopped on its own held-out rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.errors import HeadError
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.stacked.adamw import AdamW, Schedule
from pipeline.heads.stacked.rows import FeatureRows, RowSource
from pipeline.heads.stacked.stack import Stack
from pipeline.heads.stacked.standardisation import measure_standardisation
from pipeline.kernels import exact_float32

Told = Callable[[int, int], None]
"""Told after each epoch: its number, and how many heads go on."""


@dataclass(frozen=True)
class StackResult:
    """What training a stack came to.

    Args:
        stack: the heads, each with the weights of its best epoch.
        best_epochs: `[K]` int64, from 1.
        losses: of each head, its held-out loss after each of its epochs.
    """

    stack: Stack
    best_epochs: np.ndarray
    losses: list[list[float]]

    @property
    def best_losses(self) -> np.ndarray:
        """`[K]` the lowest held-out losses."""
        return np.asarray([min(of_head) for of_head in self.losses])


def train_stack(
    stack: Stack,
    data: np.ndarray | FeatureStream | RowSource,
    y: np.ndarray,
    fit: np.ndarray,
    held: np.ndarray,
    schedule: Schedule = Schedule(),
    *,
    standardisation: tuple[np.ndarray, np.ndarray] | None = None,
    names: Sequence[str] = (),
    told: Told | None = None,
) -> StackResult:
    """Train K heads on the same batches, each on its own rows.

    Each head predicts its classes' shares at first. A step minimises, for each head, the mean cross-entropy over the
    batch's rows that it fits on; AdamW (Loshchilov & Hutter, 2019, arXiv:1711.05101) moves every number by itself, so
    that heads do not meet: a head trained alone on the same batches comes out the same. After each epoch every head is
    evaluated on its own held-out rows. One whose loss has not fallen for `patience` epochs leaves the stack, and keeps
    the weights of its best epoch.

    Args:
        stack: as it begins; it is not changed.
        data: `[n, d]`, a matrix (also a mapped one), a stream, or any source of rows.
        y: `[n]` int64 from 0 to c - 1, or `[K, n]`, labels of each head's own. Those of rows that a head neither fits
            nor holds out are not looked at.
        fit: `[K, n]` bool, the rows that each head is fitted on.
        held: `[K, n]` bool, the rows that each head is stopped on.
        standardisation: mean and scale, `[K, d]` each; by default those of the rows that each head is fitted on.
        names: of the heads, for errors.

    Raises:
        HeadError: shapes do not go together, a head has no rows to fit or none held out, a value is not finite, or
            training diverges: the error names the head.
    """
    data = as_rows(data)
    names = names or [f"head {k}" for k in range(len(stack))]
    labels = _check(stack, data, y, fit, held, schedule, names)
    fits, helds = torch.from_numpy(fit), torch.from_numpy(held)
    with exact_float32("cpu"):
        begun = stack.take(range(len(stack)))
        begun.standardise_by(
            *(
                measure_standardisation(data, fits)
                if standardisation is None
                else map(torch.from_numpy, standardisation)
            )
        )
        counts = [
            torch.bincount(of_head[rows], minlength=stack.classes) for of_head, rows in zip(labels, fits, strict=True)
        ]
        begun.begin_at_shares(torch.stack(counts))
        return _Training(begun, data, labels, fits, helds, schedule, names).run(told)


def held_out_logits(stack: Stack, data: np.ndarray | FeatureStream | RowSource, held: np.ndarray) -> list[np.ndarray]:
    """Each head's logits for its own held-out rows, all from one read.

    Args:
        held: `[K, n]` bool.

    Returns:
        of each head `[m, c]` float32, rows in ascending order.
    """
    masks = torch.from_numpy(held)
    found = [torch.empty(int(rows.sum()), stack.classes) for rows in masks]
    places = masks.cumsum(dim=1) - 1
    with exact_float32("cpu"), torch.inference_mode():
        for heads, rows, logits in evaluate(stack, as_rows(data), masks):
            for k, of_head in zip(heads, logits, strict=True):
                found[k][places[k, rows]] = of_head.T
    return [np.asarray(logits.numpy()) for logits in found]


def evaluate(
    stack: Stack, data: RowSource, held: torch.Tensor
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Go through all rows that are held out, in order.

    Args:
        held: `[K, n]` bool.

    Yields:
        heads that hold out the same rows `[g]`, some of these rows `[m]` int64, and their logits `[g, c, m]`.
    """
    together: dict[bytes, list[int]] = {}
    for k, rows in enumerate(held):
        together.setdefault(rows.numpy().tobytes(), []).append(k)
    groups = [(heads, held[heads[0]], stack.take(heads)) for heads in together.values()]
    for rows, batch in data.blocks(held.any(dim=0)):
        for heads, mask, part in groups:
            here = mask[rows]
            if bool(here.any()):
                yield heads, rows[here], part.logits(batch[here])


def as_rows(data: np.ndarray | FeatureStream | RowSource) -> RowSource:
    """Whatever the features are, as a source of rows."""
    return FeatureRows.of(data) if isinstance(data, np.ndarray | FeatureStream) else data


class _Training:
    """Heads under way, and the best that was seen of each.

    Attributes:
        going: `[k]` int64, the heads that are still trained; `stack`, `labels`, `fit` and `held` are of these alone.
    """

    def __init__(
        self,
        stack: Stack,
        data: RowSource,
        labels: torch.Tensor,
        fit: torch.Tensor,
        held: torch.Tensor,
        schedule: Schedule,
        names: Sequence[str],
    ) -> None:
        self.data, self.schedule, self.names = data, schedule, names
        self.best = stack.take(range(len(stack)))
        self.best_epochs = torch.zeros(len(stack), dtype=torch.int64)
        self.best_losses = torch.full((len(stack),), float("inf"), dtype=torch.float64)
        self.losses: list[list[float]] = [[] for _ in names]
        self.going = torch.arange(len(stack))
        self.stack, self.labels, self.fit, self.held = stack, labels, fit, held
        self.optimizer = AdamW(stack, schedule)
        self._lay_out()

    def run(self, told: Told | None) -> StackResult:
        batches = torch.Generator().manual_seed(self.schedule.seed)
        dropped = torch.Generator().manual_seed(self.schedule.seed)
        for epoch in range(1, self.schedule.max_epochs + 1):
            for rows, batch in self.data.batches(self.schedule.batch_size, batches):
                logits = self.stack.logits(batch, dropped)
                self.optimizer.step(logits, self._gradient(logits.detach(), rows))
            self._keep_the_best(epoch)
            if told is not None:
                told(epoch, len(self.going))
            if not len(self.going):
                break
        return StackResult(self.best, self.best_epochs.numpy(), self.losses)

    def _gradient(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Of each head's mean cross-entropy over its rows by the logits, `[k, c, b]`: probabilities less the labels.

        The loss itself is nobody's business here, and torch takes many times longer over it.
        """
        weights = self._fit_by_row[rows].float()
        weights /= weights.sum(dim=0).clamp_min(1.0)
        exp = (logits - logits.amax(dim=1, keepdim=True)).exp_()
        labels = self._labels_by_row[rows].T[:, None] == torch.arange(logits.shape[1])[:, None]
        return (exp / exp.sum(dim=1, keepdim=True) - labels.float()) * weights.T[:, None]

    @torch.no_grad()
    def _keep_the_best(self, epoch: int) -> None:
        """Evaluate all heads; let go of those that have not become better for too long."""
        found = self._held_out_losses()
        for k, loss in zip(self.going.tolist(), found.tolist(), strict=True):
            if not np.isfinite(loss):
                raise HeadError(
                    "training diverged",
                    where=f"{self.names[k]}, epoch {epoch}",
                    found=f"held-out loss {loss}",
                    remedy="lower the learning rate",
                )
            self.losses[k].append(loss)
        better = found < self.best_losses[self.going]
        heads = self.going[better]
        self.best_losses[heads], self.best_epochs[heads] = found[better], epoch
        for name, tensor in self.stack.tensors.items():
            self.best.tensors[name][heads] = tensor[better]
        goes_on = epoch - self.best_epochs[self.going] < self.schedule.patience
        if not bool(goes_on.all()):
            self._take(goes_on.nonzero()[:, 0])

    def _held_out_losses(self) -> torch.Tensor:
        """`[k]` float64."""
        sums = torch.zeros(len(self.going), dtype=torch.float64)
        for heads, rows, logits in evaluate(self.stack, self.data, self.held):
            losses = cross_entropy(logits, self.labels[heads][:, rows], reduction="none")
            sums[heads] += losses.sum(dim=1, dtype=torch.float64)
        return sums / self.held.sum(dim=1)

    def _take(self, which: torch.Tensor) -> None:
        self.going = self.going[which]
        if not len(which):
            return
        self.labels, self.fit, self.held = self.labels[which], self.fit[which], self.held[which]
        self.stack = self.stack.take(which)
        self.optimizer = self.optimizer.take(which, self.stack)
        self._lay_out()

    def _lay_out(self) -> None:
        """A row's masks and labels of all heads lie together: batches pick rows."""
        self._fit_by_row, self._labels_by_row = self.fit.T.contiguous(), self.labels.T.contiguous()


def _check(
    stack: Stack,
    data: RowSource,
    y: np.ndarray,
    fit: np.ndarray,
    held: np.ndarray,
    schedule: Schedule,
    names: Sequence[str],
) -> torch.Tensor:
    """Refuse what does not go together; gives labels `[K, n]`, 0 where they are not looked at."""
    heads, rows = len(stack), len(data)
    decays = np.shape(schedule.weight_decay)
    wrong = {name: value.shape for name, value in (("fit", fit), ("held", held)) if value.shape != (heads, rows)}
    wrong |= {} if y.shape in ((rows,), (heads, rows)) else {"y": y.shape}
    wrong |= {} if decays in ((), (heads,)) else {"weight_decay": decays}
    wrong |= {} if data.width == stack.width else {"features": (rows, data.width)}
    wrong |= {} if len(names) == heads else {"names": (len(names),)}
    if wrong:
        raise HeadError(
            "heads, rows and labels do not go together",
            expected=f"{heads} heads, {rows} rows, {stack.width} features",
            found=", ".join(f"{name} {list(shape)}" for name, shape in wrong.items()),
        )
    for what, masks in (("to fit on", fit), ("held out to stop on", held)):
        if not masks.any(axis=1).all():
            where = names[int(np.flatnonzero(~masks.any(axis=1))[0])]
            raise HeadError(f"a head has no rows {what}", where=where, expected="one or more")
    used = fit | held
    labels = np.where(used, y, 0)
    if labels.min() < 0 or labels.max() >= stack.classes:
        k = int(np.argwhere((labels < 0) | (labels >= stack.classes))[0][0])
        raise HeadError(
            "a label is no class",
            where=names[k],
            expected=f"0 to {stack.classes - 1}",
            found=np.unique(labels).tolist(),
        )
    return torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
