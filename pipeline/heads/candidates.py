"""What a sweep tries of each kind of head, and how heads of a kind are fitted: all ways and strengths of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pipeline.errors import HeadError
from pipeline.heads.fit import HEADS, STRENGTHS, TORCH_HEADS, check_head
from pipeline.heads.fused.fit import FITS, Candidate, Told, decide, fit_candidates
from pipeline.heads.fused.moments import FitRows
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.heads.stacked.adamw import Schedule
from pipeline.heads.stacked.stack import ClassifierStack
from pipeline.heads.stacked.training import StackResult, held_out_logits, train_stack
from pipeline.heads.torch_head import TorchHead
from pipeline.results.calibration import fit_temperature

WEIGHT_DECAYS = (1.0, 3.0, 10.0)
"""Of linear and mlp. A step takes off the product with the learning rate, which is small for wide features."""
NOT_TRIED = ("mix", "attention")
"""Heads that need other features than the views that a sweep goes through."""
PATIENCE = 5
"""Epochs without a lower held-out loss before one of many heads stops; what is selected trains to the best epoch."""


@dataclass(frozen=True)
class SpecRows:
    """The training rows of one spec of views, all arrays in the stream's order.

    Args:
        stream: the features.
        y: `[n]` int64 class numbers.
        fits: `[n]` bool each, the rows to fit on; the others are held out. One for each way of holding out.
        counts: `[n]` bool, the rows that count where they are held out.
    """

    stream: FeatureStream
    y: np.ndarray
    fits: tuple[np.ndarray, ...]
    counts: np.ndarray

    @cached_property
    def classes(self) -> np.ndarray:
        """`[c]` the classes that there are."""
        return np.unique(self.y)

    @cached_property
    def ways(self) -> list[FitRows]:
        """The rows to fit on, one set for each way of holding out."""
        return [self._of(fit) for fit in self.fits]

    @cached_property
    def scored(self) -> list[np.ndarray]:
        """`[n]` bool each, the rows that are held out and count, one for each way."""
        return [~fit & self.counts for fit in self.fits]

    @cached_property
    def whole(self) -> FitRows:
        """All rows to fit on."""
        return self._of(np.ones(len(self.y), dtype=bool))

    @cached_property
    def X(self) -> np.ndarray:
        """`[n, d]` float32, in memory."""
        return self.stream.matrix()

    def _of(self, fit: np.ndarray) -> FitRows:
        return FitRows(fit, np.searchsorted(self.classes, self.y).astype(np.int64), len(self.classes))


class Family(Protocol):
    """Kinds of heads that are fitted in one manner."""

    def candidates(self, kind: str, strengths: Sequence[float]) -> list[Candidate]:
        """What is tried of a kind; strengths where the caller names them, else this family's own."""

    def predict_held_out(self, rows: SpecRows, candidates: Sequence[Candidate], told: Told) -> list[list[np.ndarray]]:
        """For each way of holding out, each candidate's classes for the rows that are scored, `[m]`."""

    def fit(self, rows: SpecRows, candidate: Candidate) -> Any:
        """A head on all rows, with scikit-learn's manners; its probabilities are calibrated on rows held out."""


class Fused:
    """Linear heads, fitted together from shared reads."""

    def candidates(self, kind: str, strengths: Sequence[float]) -> list[Candidate]:
        """A range of strengths; named ones are `C`, which lda and centroid do not have."""
        if FITS[kind].strength is None:
            return [Candidate(kind, None)]
        named = strengths if FITS[kind].strength == "C" else ()
        return [Candidate(kind, strength) for strength in dict.fromkeys(named or STRENGTHS[kind])]

    def predict_held_out(self, rows: SpecRows, candidates: Sequence[Candidate], told: Told) -> list[list[np.ndarray]]:
        """One read gives the decisions of all heads."""
        found = fit_candidates(rows.stream, rows.ways, candidates, told)
        predictions = []
        for scored, heads in zip(rows.scored, found, strict=True):
            decisions = decide(rows.stream, heads, scored)  # [m, k, 1 or c]
            numbers = decisions.argmax(axis=2) if decisions.shape[2] > 1 else (decisions[..., 0] > 0).astype(np.int64)
            predictions.append(list(rows.classes[numbers].T))
        return predictions

    def fit(self, rows: SpecRows, candidate: Candidate) -> LinearHead:
        """The temperature is fitted on what heads of the same strength say of the rows that they were not fitted on."""
        *ways, whole = fit_candidates(rows.stream, [*rows.ways, rows.whole], [candidate])
        head = LinearHead.of(candidate, whole[0], rows.classes)
        decisions = np.concatenate(
            [decide(rows.stream, heads, scored)[:, 0] for scored, heads in zip(rows.scored, ways, strict=True)]
        )
        y = np.concatenate([rows.y[scored] for scored in rows.scored])
        decisions = decisions[:, 0] if decisions.shape[1] == 1 else decisions
        head.temperature_ = fit_temperature(decisions, y, rows.classes)
        return head


class Stacked:
    """PyTorch heads, trained as a stack by AdamW on the same batches; each way and weight decay is a head.

    Args:
        seed: of the first weights (each way has its own), the batches and dropout.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def candidates(self, kind: str, strengths: Sequence[float]) -> list[Candidate]:
        """A range of weight decays; named strengths are `C`, which these heads do not have."""
        return [Candidate(kind, decay) for decay in WEIGHT_DECAYS]

    def predict_held_out(self, rows: SpecRows, candidates: Sequence[Candidate], told: Told) -> list[list[np.ndarray]]:
        """Each head is stopped on all rows that its way holds out."""
        predictions: list[list[np.ndarray]] = [[] for _ in rows.fits]
        for kind in dict.fromkeys(each.kind for each in candidates):
            some = [each for each in candidates if each.kind == kind]
            result = self._train(rows, kind, some, told)
            logits = held_out_logits(result.stack, rows.stream, np.repeat(rows.scored, len(some), axis=0))
            for place, of_head in enumerate(logits):
                predictions[place // len(some)].append(rows.classes[of_head.argmax(axis=1)])
        return predictions

    def fit(self, rows: SpecRows, candidate: Candidate) -> TorchHead:
        """On all rows, for as many epochs as the heads took that were stopped on rows held out."""
        ways = self._train(rows, candidate.kind, [candidate], lambda *now: None)
        logits = held_out_logits(ways.stack, rows.stream, np.asarray(rows.scored))
        y = np.concatenate([rows.y[scored] for scored in rows.scored])
        head: TorchHead = TORCH_HEADS[candidate.kind]()
        head.set_params(weight_decay=candidate.strength, random_state=self.seed)
        epochs = max(1, round(float(ways.best_epochs.mean())))
        everywhere = np.ones((1, len(rows.y)), dtype=bool)
        schedule = Schedule(weight_decay=head.weight_decay, max_epochs=epochs, patience=epochs, seed=self.seed)
        # what is watched are rows that it fits: their loss falls as long as there are epochs
        trained = train_stack(
            self._stack(rows, candidate.kind, [self.seed]), rows.stream, rows.whole.y, everywhere, everywhere, schedule
        )
        head.classes_, head.module_ = rows.classes, trained.stack.head(0)
        head.best_epoch_, head.losses_ = int(trained.best_epochs[0]), trained.losses[0]
        head.temperature_ = fit_temperature(np.concatenate(logits), y, rows.classes)
        return head

    def _train(self, rows: SpecRows, kind: str, candidates: Sequence[Candidate], told: Told) -> StackResult:
        """Heads by way, then by candidate."""
        fit = np.repeat(rows.fits, len(candidates), axis=0)
        decays = [float(each.strength or 0.0) for each in candidates] * len(rows.fits)
        stack = self._stack(rows, kind, np.repeat(self.seed + np.arange(len(rows.fits)), len(candidates)).tolist())
        return train_stack(
            stack,
            rows.stream,
            rows.whole.y,
            fit,
            ~fit,
            Schedule(weight_decay=decays, patience=PATIENCE, seed=self.seed),
            names=[f"{kind}, weight decay {decay:g}" for decay in decays],
            told=lambda epoch, going: told(kind, epoch, len(decays) - going),
        )

    def _stack(self, rows: SpecRows, kind: str, seeds: Sequence[int]) -> ClassifierStack:
        head: TorchHead = TORCH_HEADS[kind]()
        width, classes = rows.stream.width, len(rows.classes)
        return ClassifierStack(seeds, width, classes, hidden_size=head.hidden_size, dropout=head.dropout)


class OneByOne:
    """A scikit-learn classifier by its class name, fitted in memory.

    Args:
        seed: its `random_state`, where it has one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def candidates(self, kind: str, strengths: Sequence[float]) -> list[Candidate]:
        """The classifier with its own defaults."""
        return [Candidate(kind, None)]

    def predict_held_out(self, rows: SpecRows, candidates: Sequence[Candidate], told: Told) -> list[list[np.ndarray]]:
        """One fit after the other."""
        predictions = []
        for done, (fit, scored) in enumerate(zip(rows.fits, rows.scored, strict=True)):
            heads = [
                SklearnHead(each.kind, random_state=self.seed).fit(rows.X[fit], rows.y[fit]) for each in candidates
            ]
            predictions.append([np.asarray(head.predict(rows.X[scored])) for head in heads])
            told(candidates[0].kind, 0, (done + 1) * len(candidates))
        return predictions

    def fit(self, rows: SpecRows, candidate: Candidate) -> Any:
        """On all rows; the temperature is of the heads that were not fitted on the rows it is fitted on."""
        head = SklearnHead(candidate.kind, random_state=self.seed).fit(rows.X, rows.y)
        decisions, y = [], []
        for fit, scored in zip(rows.fits, rows.scored, strict=True):
            way = SklearnHead(candidate.kind, random_state=self.seed).fit(rows.X[fit], rows.y[fit])
            decisions.append(way.decision_function(rows.X[scored]))
            y.append(rows.y[scored])
        head.temperature_ = fit_temperature(np.concatenate(decisions), np.concatenate(y), rows.classes)
        return head


def families_of(kinds: Sequence[str], seed: int) -> dict[str, Family]:
    """How heads of each kind are fitted.

    Raises:
        HeadError: there is no such head.
    """
    fused, stacked, one_by_one = Fused(), Stacked(seed), OneByOne(seed)
    families: dict[str, Family] = {}
    for kind in kinds:
        if kind in NOT_TRIED:
            raise HeadError(
                "a sweep does not try this head, which takes other features than single pooled views",
                where="heads",
                found=kind,
                remedy="train it with pipeline heads, whose runs can be compared with the sweep's",
            )
        check_head(kind, {}, [each for each in HEADS if each not in NOT_TRIED])
        families[kind] = fused if kind in FITS else stacked if kind in TORCH_HEADS else one_by_one
    return families
