"""Settings of stage two's larger commands: the sweep, joint heads, and baselines."""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config import FeaturesConfig


@dataclass(frozen=True)
class SweepConfig(FeaturesConfig):
    """What a sweep tries.

    Args:
        views: all (each pooled view that the cache holds), views such as L20-mean, or several side by side, such as
            L16-mean+L20-mean.
        side_by_side: then also put the best views side by side, up to so many of them; of one pooling, none nearer to
            another than a tenth of the depth.
        heads: logreg, ridge, svm, lda, centroid (trained together, from shared reads), linear, mlp (trained together
            by AdamW), or any scikit-learn classifier by its class name (one by one).
        finalists: linear and mlp are tried on so many sets of views, those that the other heads did best on; where
            there are no other heads, on all.
        strengths: inverse strengths C of the penalty of logreg, ridge and svm; by default a range for each. The other
            heads keep their own.
        seeds: how many ways of holding out training rows every head is tried on. A fifth five times is five-fold
            cross-validation: every row is held out once.
        held_out: the share of training rows that each way holds out, to select heads on and to stop at.
        group_by: what is held out together: source, the rows of one source where the data names enough of them (CoLA's
            are publications), else the phrases of one sentence; or sentence, always the latter.
        score_on: which of the rows held out count: whole, the texts that no other training text contains (of SST-2's
            phrases the whole sentences, which its validation split has alone), or all.
        show: lines of the leaderboard to print; then comes the best of every head that is not among them.
    """

    views: tuple[str, ...] = ("all",)
    side_by_side: int = 4
    heads: tuple[str, ...] = ("logreg", "ridge", "svm", "lda", "centroid", "mlp")
    finalists: int = 1
    strengths: tuple[float, ...] = ()
    seeds: int = 5
    held_out: float = 0.2
    group_by: Literal["source", "sentence"] = "source"
    score_on: Literal["whole", "all"] = "whole"
    show: int = 10

    def _problems(self) -> list[str]:
        problems = super()._problems()
        for name, values in (("heads", self.heads), ("views", self.views)):
            if not values:
                problems.append(f"{name}: expected at least one, found none")
        if "all" in self.views and len(self.views) > 1:
            extra = [text for text in self.views if text != "all" and "+" not in text and not text.endswith("-tokens")]
            problems += [f"views: all holds {text} already" for text in extra]
        for name, value, least in (
            ("seeds", self.seeds, 1),
            ("side_by_side", self.side_by_side, 0),
            ("finalists", self.finalists, 1),
            ("show", self.show, 1),
        ):
            if value < least:
                problems.append(f"{name}: expected at least {least}, found {value}")
        problems += [
            f"strengths: expected numbers from 1e-12 to 1e12, found {C}"
            for C in self.strengths
            if not 1e-12 <= C <= 1e12
        ]
        if self.strengths and not {"logreg", "ridge", "svm"} & set(self.heads):
            problems.append("strengths: none of the heads has a C")
        return problems


@dataclass(frozen=True)
class JointConfig(FeaturesConfig):
    """How two tasks' heads are trained on a trunk that both share.

    Args:
        views: such as L20-mean, or several side by side: L16-mean+L20-mean; one for both tasks, or one for each in
            their order, which must be equally wide. By default the first view that both tasks list and the cache holds,
            one that both tasks' heads look at before others.
        freeze: the task whose head stays as its own separate training left it, while the other head and the trunk
            train; none trains both heads; all trains none and each task in turn.
        head_from: an earlier run of this command, whose head and trunk are taken for the task that is frozen; by
            default it is trained separately first, with the same settings and seed.
        seeds: how many trainings of each kind, with consecutive seeds.
        hidden_size: units of the trunk.
        dropout: share of them dropped in training.
        learning_rate: AdamW's; by default 0.2 over the widest layer's inputs.
        weight_decay: AdamW's.
        batch_size: rows of each task a step.
        evaluation_steps: steps between two looks at the held-out rows; at most an epoch of the smaller task.
        patience: so many times these steps without a lower mean of the tasks' held-out losses, and training stops.
        max_steps: at most.
    """

    views: tuple[str, ...] = ()
    freeze: str = "all"
    head_from: str | None = None
    seeds: int = 3
    hidden_size: int = 256
    dropout: float = 0.5
    learning_rate: float | None = None
    weight_decay: float = 1.0
    batch_size: int = 128
    evaluation_steps: int = 50
    patience: int = 10
    max_steps: int = 5000

    @property
    def freezes(self) -> tuple[str, ...]:
        """What the joint trainings of a seed freeze: `none`, or a task's head."""
        return ("none", *self.tasks) if self.freeze == "all" else (self.freeze,)

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if len(self.tasks) != 2:
            problems.append(f"tasks: expected two, found {len(self.tasks)}")
        if self.freeze not in (known := ("all", "none", *self.tasks)):
            problems.append(f"freeze: expected {' | '.join(known)}, found {self.freeze!r}")
        if self.head_from is not None and self.freeze not in self.tasks:
            problems.append("head_from: expected --freeze with the task whose head it is")
        if len(self.views) > 2:
            problems.append(f"views: expected one for both tasks or one for each, found {len(self.views)}")
        for name in ("seeds", "hidden_size", "batch_size", "evaluation_steps", "patience", "max_steps"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.seed + self.seeds > 2**32:
            problems.append(f"seeds: expected the last seed to be at most {2**32 - 1}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout: expected a share from 0 to below 1, found {self.dropout}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate: expected a number above 0, found {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            problems.append(f"weight_decay: expected a number from 0 on, found {self.weight_decay}")
        return problems


@dataclass(frozen=True)
class BaselinesConfig(FeaturesConfig):
    """Which head is held against baselines, and against which.

    Args:
        views: such as L20-mean, or several side by side: L16-mean+L20-mean; one for all tasks, or one for each in their
            order. By default each task's own.
        strengths: inverse strengths C of the head's penalty; by default a sweep's range.
        seeds: how many ways of holding out training rows every strength is tried on.
        held_out: the share of training rows that each way holds out: with both, five-fold cross-validation.
        group_by: what is held out together, as in a sweep: source or sentence.
        draws: how often the labels of the control task are drawn.
        zero_shot: also ask the LLM itself, which needs the packages of the live path and the backbone.
        revision: of the backbone that is asked: the Hub commit, branch or tag.
    """

    views: tuple[str, ...] = ()
    strengths: tuple[float, ...] = ()
    seeds: int = 5
    held_out: float = 0.2
    group_by: Literal["source", "sentence"] = "source"
    draws: int = 5
    zero_shot: bool = True
    revision: str | None = None

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if len(self.views) not in (0, 1, len(self.tasks)):
            problems.append(f"views: expected one, or one for each of {len(self.tasks)} tasks, found {len(self.views)}")
        for name in ("seeds", "draws"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: expected at least 1, found {getattr(self, name)}")
        problems += [
            f"strengths: expected numbers from 1e-12 to 1e12, found {C}"
            for C in self.strengths
            if not 1e-12 <= C <= 1e12
        ]
        return problems
