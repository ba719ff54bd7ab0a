"""Fit one head: what is chosen (a strength, when to stop) is chosen on held-out training rows, never on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import log_loss

from pipeline.errors import HeadError
from pipeline.heads.attention_pooling import AttentionPoolingHead
from pipeline.heads.fused.fit import FITS, Candidate, fit_candidates
from pipeline.heads.fused.moments import FitRows
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.linear_head import TOLERANCE, LinearHead
from pipeline.heads.params import with_params
from pipeline.heads.scalar_mix import ScalarMixHead
from pipeline.heads.sklearn_head import SklearnHead
from pipeline.heads.torch_head import TorchHead
from pipeline.progress import counted
from pipeline.results.calibration import fit_temperature, probabilities_of
from pipeline.results.metrics import score
from pipeline.views import View, name_views

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "logreg": tuple(np.logspace(-4, 0, 9).tolist()),
    "svm": tuple(np.logspace(-5, -1, 9).tolist()),
    "ridge": tuple(np.logspace(-6, -1, 11).tolist()),
    "lda": (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7),
}
"""What is tried where nothing is named: `C`, for lda `shrinkage`, on standardised features.

The lowest held-out log-loss decides: on few rows it is far steadier than a score that counts errors.
"""
OF_PROBABILITIES = ("logreg", "lda")
"""Linear heads whose decision values are log-odds as they are: a penalty too weak shows in their log-loss."""
TORCH_HEADS: Mapping[str, Callable[..., Any]] = {
    "linear": partial(TorchHead, hidden_size=0, weight_decay=0.1),
    "mlp": partial(TorchHead, hidden_size=256, dropout=0.3, weight_decay=0.1),
    "mix": partial(ScalarMixHead, weight_decay=0.1),
    "attention": partial(AttentionPoolingHead, weight_decay=0.1),
}
"""Heads that AdamW trains, with what they are by default."""


@dataclass(frozen=True)
class Fitted:
    """A fitted head.

    Args:
        head: with scikit-learn's `predict`.
        held_out: its scores on the held-out rows, which it had not been fitted on when these were taken.
        selection: what was chosen there.
        temperature: that its decision values were found to need there.
    """

    head: Any
    held_out: dict[str, float]
    selection: dict[str, Any]
    temperature: float


@dataclass(frozen=True)
class TrainingRows:
    """A task's training rows, some of them held out.

    Args:
        X: `[n, d]`; of the tokens view `TokenRows`.
        y: `[n]`.
        fit, held: row numbers.
        views: how many of equal width stand side by side in `X`.
        others: more ways of holding out, each the row numbers to fit on and those held out: with these the strength of
            a linear head is chosen, and its temperature.
    """

    X: Any
    y: np.ndarray
    fit: np.ndarray
    held: np.ndarray
    views: int = 1
    others: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def ways(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """All ways of holding out, the first of them first."""
        return [(self.fit, self.held), *self.others]


HEADS = (*FITS, *TORCH_HEADS)
"""All that are not scikit-learn's classes."""


def check_head(kind: str, params: Mapping[str, Any], known: Sequence[str] = HEADS) -> None:
    """Refuse a head that does not exist, or that has no such setting, before anything is trained.

    Args:
        known: what can be meant beside scikit-learn's classes.

    Raises:
        HeadError: it is so.
    """
    if kind in TORCH_HEADS:
        with_params(TORCH_HEADS[kind](), params, kind).check_params()
    elif kind in FITS:
        _linear(kind, params).check_params()
    else:
        SklearnHead(kind, params).check(beside=known)


def check_views(kind: str, views: Sequence[View]) -> None:
    """Refuse views that a head cannot be trained on, before anything is read.

    Raises:
        HeadError: it needs others.
    """
    tokens = sum(view.pooling == "tokens" for view in views)
    if kind == "attention":
        fits, expected = (len(views), tokens) == (1, 1), "one tokens view, such as L20-tokens"
    elif kind == "mix":
        fits, expected = len(views) > 1 and not tokens, "two or more pooled views, such as L16-mean+L20-mean"
    else:
        fits, expected = not tokens, "pooled views (last, mean or first); attention is the head for a tokens view"
    if not fits:
        raise HeadError(
            "this head cannot be trained on these views",
            where=kind,
            expected=expected,
            found=name_views(tuple(views)),
            remedy="name others with --views",
        )


def fit_head(kind: str, rows: TrainingRows, *, params: Mapping[str, Any], seed: int) -> Fitted:
    """Fit a head of a kind.

    Args:
        kind: `logreg`, `ridge`, `svm`, `lda`, `centroid`, `linear`, `mlp`, `mix`, `attention`, or the class name of a
            scikit-learn classifier.
        params: settings of the head, by their scikit-learn names.
        seed: of everything random.

    Raises:
        HeadError: there is no such head, or it has no such setting.
    """
    check_head(kind, params)
    if kind in FITS:
        return _fit_linear(kind, rows, params)
    if kind in TORCH_HEADS:
        return _fit_torch(kind, rows, params, seed)
    return _fit_sklearn(kind, rows, params, seed)


def _fit_linear(kind: str, rows: TrainingRows, params: Mapping[str, Any]) -> Fitted:
    strength = FITS[kind].strength
    named = (params[strength],) if strength and strength in params else STRENGTHS.get(kind, (None,))
    candidates = [Candidate(kind, each) for each in named]
    classes, numbers = np.unique(rows.y, return_inverse=True)
    ways = rows.ways if len(candidates) > 1 else rows.ways[:1]
    masks = [np.isin(np.arange(len(rows.y)), fit, assume_unique=True) for fit, _ in ways]
    sets = [FitRows(mask, numbers, len(classes)) for mask in (*masks, np.ones(len(rows.y), dtype=bool))]
    *trials, finals = fit_candidates(FeatureStream.of_matrix(rows.X), sets, candidates, tolerance=TOLERANCE)
    tried = [
        [LinearHead.of(candidate, of_way[place], classes) for of_way in trials]
        for place, candidate in enumerate(candidates)
    ]
    judged = [_judge(heads, rows) for heads in tried]
    best = min(range(len(judged)), key=lambda place: judged[place].log_loss)
    head = LinearHead.of(candidates[best], finals[best], classes)
    head.temperature_ = judged[best].temperature
    chosen: dict[str, Any] = {"tried": len(candidates)} | ({strength: candidates[best].strength} if strength else {})
    if len(candidates) > 1:
        chosen["by"] = f"log-loss on rows held out in {counted(len(ways), 'way')}"
    return Fitted(head, judged[best].scores, chosen, judged[best].temperature)


def _fit_torch(kind: str, rows: TrainingRows, params: Mapping[str, Any], seed: int) -> Fitted:
    layers = {"layers": rows.views} if kind == "mix" else {}
    head = with_params(TORCH_HEADS[kind](random_state=seed, **layers), params)
    head.fit(rows.X[rows.fit], rows.y[rows.fit], rows.X[rows.held], rows.y[rows.held])
    judged = _judge([head], rows)
    head.temperature_ = judged.temperature
    losses = [{"epoch": epoch, "held_out_loss": loss} for epoch, loss in enumerate(head.losses_, start=1)]
    chosen = {"epochs": head.best_epoch_, "tried": len(losses), "evaluations": losses}
    weights = {"weights": head.weights_.tolist()} if kind == "mix" else {}
    return Fitted(head, judged.scores, chosen | weights, judged.temperature)


def _fit_sklearn(name: str, rows: TrainingRows, params: Mapping[str, Any], seed: int) -> Fitted:
    judged = _judge([SklearnHead(name, params, seed).fit(rows.X[rows.fit], rows.y[rows.fit])], rows)
    head = SklearnHead(name, params, seed).fit(rows.X, rows.y)
    head.temperature_ = judged.temperature
    return Fitted(head, judged.scores, {"tried": 1}, judged.temperature)


@dataclass(frozen=True)
class _Judged:
    """How a head did on the held-out rows: its scores on those of the first way, the rest on those of all."""

    scores: dict[str, float]
    temperature: float
    log_loss: float


def _judge(heads: Sequence[Any], rows: TrainingRows) -> _Judged:
    """Scores, the temperature that suits the held-out rows best, and the log-loss: of a margin at that temperature.

    Args:
        heads: one kind and strength, fitted on the rows of the first way of holding out, or of every one.
    """
    held = [held for _, held in rows.ways[: len(heads)]]
    decisions = np.concatenate([head.decision_function(rows.X[some]) for head, some in zip(heads, held, strict=True)])
    y, classes = np.concatenate([rows.y[some] for some in held]), heads[0].classes_
    temperature = fit_temperature(decisions, y, classes)
    own = 1.0 if getattr(heads[0], "kind", None) in OF_PROBABILITIES else temperature
    loss = float(log_loss(y, probabilities_of(decisions, own), labels=classes))
    return _Judged(score(rows.y[rows.held], heads[0].predict(rows.X[rows.held])), temperature, loss)


def _linear(kind: str, params: Mapping[str, Any]) -> LinearHead:
    """A linear head with settings; those that its kind has no use for are none of it."""
    strength = FITS[kind].strength
    if unknown := set(params) - {strength}:
        raise HeadError(
            "the head has no such setting",
            where=kind,
            expected=strength or "none",
            found=", ".join(sorted(unknown)),
            remedy="LogisticRegression, LinearSVC and others of scikit-learn's names have all of its settings"
            if kind != "centroid"
            else None,
        )
    head = LinearHead(kind)
    head.set_params(**params)
    return head
