"""A trunk and a linear head on it for each task: one loop for several tasks or one, with a head frozen or none."""

import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.classifier import Classifier, StoredClassifier
from pipeline.errors import HeadError
from pipeline.heads.fit import TrainingRows
from pipeline.heads.rows import check_rows
from pipeline.heads_config import JointConfig
from pipeline.kernels import exact_float32
from pipeline.progress import StepsLine
from pipeline.results.metrics import score


@dataclass(frozen=True)
class Start:
    """What a training with a frozen head begins as.

    Args:
        task: whose head is frozen.
        classifier: that head with its standardisation, and the trunk that it was trained on.
    """

    task: str
    classifier: StoredClassifier


@dataclass(frozen=True)
class TrainedTrunk:
    """What a training came to.

    Args:
        heads: by task, its standardisation, the trunk and its head.
        held_out: by task, the scores on the held-out rows.
        evaluations: one record each: `step`, and `held_out_loss` by task; the first is of step 0.
        best: the place of the one whose weights were kept.
        stopped_early: whether `patience` ended the training.
        frozen: the frozen head's `task`, and its digests `before` and `after`; None where no head was frozen.
        seconds: of training and evaluating.
    """

    heads: Mapping[str, StoredClassifier]
    held_out: Mapping[str, dict[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    best: int
    stopped_early: bool
    frozen: Mapping[str, str] | None
    seconds: float


def train_trunk(
    rows: Mapping[str, TrainingRows],
    config: JointConfig,
    *,
    seed: int,
    label: str,
    start: Start | None = None,
    looks_every: int | None = None,
) -> TrainedTrunk:
    """Train a trunk with a head for each task.

    A row goes through its task's standardisation, `Linear [d -> h]`, GELU and dropout, which all tasks share, and its
    task's `Linear [h -> c]`: for one task it is a head with one hidden layer. The trunk's first weights depend on the
    seed alone; heads begin at zero and at the classes' log shares. Each step of AdamW (Loshchilov & Hutter, 2019,
    arXiv:1711.05101) takes a batch of each task and minimises the mean of the tasks' mean losses. A task's rows come in
    an order of their own, from its name and the seed, and again in another order when all were seen: a small task is
    repeated while a large one goes on. So alone or together, a task's head sees the same batches. The mean of the
    tasks' held-out losses decides which weights are kept and when training stops, also with a frozen head: the trunk
    matters to both tasks. Training stops when that has not fallen for `patience * evaluation_steps` steps.

    Args:
        rows: by task; features of all tasks are equally wide.
        seed: of the trunk's first weights, the batches and dropout.
        label: for people.
        start: a head that is frozen, with the trunk to begin with.
        looks_every: steps between two looks at the held-out rows; by default `evaluation_steps`.

    Raises:
        HeadError: rows that nothing can be learned from, other widths, a head of other classes; training diverges; or a
            frozen head has changed.
    """
    for task, of_task in rows.items():
        _check(task, of_task)
    widths = {task: of_task.X.shape[1] for task, of_task in rows.items()}
    if len(set(widths.values())) > 1:
        raise HeadError("the tasks' features are not equally wide", expected="one width", found=widths)
    began = time.monotonic()
    with exact_float32("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = _Training(rows, config, seed, start, looks_every or config.evaluation_steps)
        before = None if start is None else digest_of_head(start.classifier.network)
        stopped_early = training.run(label)
    frozen = None
    if start is not None and before is not None:
        frozen = {"task": start.task, "before": before, "after": digest_of_head(training.classifiers[start.task])}
        if frozen["after"] != before:
            raise HeadError("a head that was frozen has changed", where=label, expected=before, found=frozen["after"])
    return TrainedTrunk(
        heads={task: training.stored(task) for task in rows},
        held_out={task: training.score(task) for task in rows},
        evaluations=training.evaluations,
        best=training.best,
        stopped_early=stopped_early,
        frozen=frozen,
        seconds=time.monotonic() - began,
    )


def digest_of_head(classifier: Classifier) -> str:
    """The SHA-256 of a head's weights and bias, its output layer alone, as safetensors has their bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in output_of(classifier).state_dict().items()}
    return f"sha256:{hashlib.sha256(save(state)).hexdigest()}"


def output_of(classifier: Classifier) -> nn.Linear:
    """The head on the trunk."""
    output = classifier.body[-1]
    assert isinstance(output, nn.Linear)
    return output


def _check(task: str, rows: TrainingRows) -> None:
    try:
        check_rows(rows.X, rows.y)
    except HeadError as error:
        where = task if error.where is None else f"{task}, {error.where}"
        raise HeadError(
            error.what, where=where, expected=error.expected, found=error.found, remedy=error.remedy
        ) from error


class _Training:
    """The network with its optimizer, and how it went."""

    def __init__(
        self,
        rows: Mapping[str, TrainingRows],
        config: JointConfig,
        seed: int,
        start: Start | None,
        looks_every: int,
    ) -> None:
        self.config, self.seed, self.rows, self.looks_every = config, seed, rows, looks_every
        width = next(iter(rows.values())).X.shape[1]
        trunk = nn.Linear(width, config.hidden_size)  # drawn first: the same whatever the tasks
        self.classes = {task: np.unique(of_task.y) for task, of_task in rows.items()}
        if start is not None:
            _check_fits(start, self.classes[start.task], trunk)
            trunk.load_state_dict(start.classifier.network.body[0].state_dict())
        self.X = {task: torch.from_numpy(of_task.X) for task, of_task in rows.items()}
        self.y = {
            task: torch.from_numpy(np.searchsorted(self.classes[task], of_task.y)) for task, of_task in rows.items()
        }
        self.classifiers = {task: self._classifier(task, trunk, start) for task in rows}
        frozen = None if start is None else start.task
        for parameter in output_of(self.classifiers[frozen]).parameters() if frozen is not None else ():
            parameter.requires_grad_(False)
        heads = [output_of(classifier) for task, classifier in self.classifiers.items() if task != frozen]
        self.trained = [parameter for layer in (trunk, *heads) for parameter in layer.parameters()]
        first = next(iter(self.classifiers.values()))
        self.learning_rate = config.learning_rate or first.default_learning_rate
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=self.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.held = {task: (self.X[task][of_task.held], self.y[task][of_task.held]) for task, of_task in rows.items()}
        self.evaluations: list[dict[str, Any]] = []
        self.best = 0

    def _classifier(self, task: str, trunk: nn.Linear, start: Start | None) -> Classifier:
        rows, classes = self.rows[task], self.classes[task]
        classifier = Classifier(trunk.in_features, len(classes), trunk.out_features, self.config.dropout)
        if start is not None and task == start.task:
            classifier.load_state_dict(start.classifier.network.state_dict())
        else:
            X = rows.X[rows.fit]
            mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
            classifier.standardise_by(torch.from_numpy(mean), torch.from_numpy(scale))
            classifier.begin_at_shares(self.y[task][rows.fit])
        classifier.body[0] = trunk
        return classifier

    def run(self, label: str) -> bool:
        """Train to the end, and keep the best weights; gives whether it stopped early."""
        batches = {task: self._batches(task) for task in self.rows}
        kept: list[torch.Tensor] = []
        stopped_early = False
        with StepsLine(label, self.config.max_steps) as line:
            for step in range(self.config.max_steps + 1):
                if step:
                    line.advance(self._step({task: next(of_task) for task, of_task in batches.items()}))
                if step % self.looks_every and step < self.config.max_steps:
                    continue
                self._evaluate(step, label)
                if self.best == len(self.evaluations) - 1:
                    kept = [parameter.detach().clone() for parameter in self.trained]
                elif step - self.evaluations[self.best]["step"] >= self.config.patience * self.config.evaluation_steps:
                    if stopped_early := step < self.config.max_steps:
                        line.stops_early(self.evaluations[self.best]["step"])
                    break
        with torch.no_grad():
            for parameter, value in zip(self.trained, kept, strict=True):
                parameter.copy_(value)
        return stopped_early

    def _batches(self, task: str) -> Iterator[torch.Tensor]:
        """Row numbers `[b]`, without an end."""
        fit = self.rows[task].fit
        for number in itertools.count():
            order = np.random.default_rng([self.seed, number, *task.encode()]).permutation(fit)
            yield from torch.split(torch.from_numpy(order), self.config.batch_size)

    def _step(self, batches: Mapping[str, torch.Tensor]) -> float:
        for classifier in self.classifiers.values():
            classifier.train()
        self.optimizer.zero_grad()
        losses = [
            cross_entropy(self.classifiers[task](self.X[task][rows]), self.y[task][rows])
            for task, rows in batches.items()
        ]
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def _evaluate(self, step: int, label: str) -> None:
        losses = {
            task: float(cross_entropy(self._logits_of_held(task), self.held[task][1])) for task in self.classifiers
        }
        mean = float(np.mean(list(losses.values())))
        if not np.isfinite(mean):
            raise HeadError(
                "training diverged",
                where=f"{label}, step {step}",
                found="held-out losses " + ", ".join(f"{task} {loss:.3g}" for task, loss in losses.items()),
                remedy="lower the learning rate",
            )
        self.evaluations.append({"step": step, "held_out_loss": losses})
        if mean < float(np.mean(list(self.evaluations[self.best]["held_out_loss"].values()))):
            self.best = len(self.evaluations) - 1

    @torch.inference_mode()
    def _logits_of_held(self, task: str) -> torch.Tensor:
        logits: torch.Tensor = self.classifiers[task].eval()(self.held[task][0])
        return logits

    def score(self, task: str) -> dict[str, float]:
        """Scores on the held-out rows."""
        predictions = self.classes[task][self._logits_of_held(task).argmax(dim=1).numpy()]
        return score(self.rows[task].y[self.rows[task].held], predictions)

    def stored(self, task: str) -> StoredClassifier:
        """A task's head on the trunk, with the settings that it was trained by."""
        params = {
            "hidden_size": self.config.hidden_size,
            "dropout": self.config.dropout,
            "learning_rate": self.learning_rate,
            "weight_decay": self.config.weight_decay,
            "batch_size": self.config.batch_size,
            "random_state": self.seed,
        }
        return StoredClassifier(self.classifiers[task].eval(), self.classes[task].tolist(), params)


def _check_fits(start: Start, classes: np.ndarray, trunk: nn.Linear) -> None:
    network = start.classifier.network
    there = (network.width, network.hidden_size, list(start.classifier.classes))
    here = (trunk.in_features, trunk.out_features, classes.tolist())
    if there != here:
        names = ("features", "hidden units", "classes")
        raise HeadError(
            "the head that is to be frozen is of another shape",
            where=start.task,
            expected=", ".join(f"{name} {value}" for name, value in zip(names, here, strict=True)),
            found=", ".join(f"{name} {value}" for name, value in zip(names, there, strict=True)),
        )
