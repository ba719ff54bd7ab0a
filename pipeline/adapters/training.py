"""The one training loop of the live path: AdamW under accelerate, evaluated on held-out rows, resumed to the bit."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipeline.adapters.checkpoint import Progress, read_state, write_state
from pipeline.adapters.evaluation import Evaluations, HeldOut, in_words
from pipeline.adapters.rows import LiveRows, TaskRows
from pipeline.adapters.steps import Step, StepPlan
from pipeline.backbone.batch import Batch
from pipeline.backbone.quiet import quiet_loading
from pipeline.config import Tracker
from pipeline.errors import AdapterError
from pipeline.live_config import TrainingConfig
from pipeline.progress import StepsLine, say
from pipeline.results.curves import tag_of
from pipeline.results.trackers import TENSORBOARD

CHECKPOINT_SECONDS = 60.0
"""A killed training loses about so much work."""


class LiveNetwork(Protocol):
    """What is trained: it gives logits for rows of a task."""

    def batches(self, rows: LiveRows, numbers: np.ndarray) -> list[Batch]:
        """Live passes for some rows of a split `[m]`; a batch's `rows` are places in `numbers`."""

    def logits(self, rows: LiveRows, numbers: np.ndarray, batch: Batch) -> torch.Tensor:
        """Logits `[r, c]` float32 of a batch's rows, in the order of `batch.rows`."""

    def loss(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The sum over rows of what is minimised, for places of classes `[r]` in the logits."""

    def classes_of(self, task: str) -> np.ndarray:
        """`[c]` class numbers, in the order of a task's logits."""

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What trains, by name."""

    def modules_in_training(self) -> Iterator[nn.Module]:
        """The modules whose dropout is at work while training."""


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate.

    Args:
        names: of them, as `LiveNetwork.trained` has them.
        learning_rate: the highest.
    """

    names: tuple[str, ...]
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """What a training did.

    Args:
        evaluations: one record each, as `Evaluations` has them; the first is of step 0, before anything was trained.
        best: the place of the one whose weights were kept.
        seconds: of training and evaluating, over all of its parts where it was stopped in between.
        stopped_early: whether `patience` ended it.
        warnings: what a person must know of a training that did nothing.
    """

    evaluations: Sequence[Mapping[str, Any]]
    best: int
    seconds: float
    stopped_early: bool
    warnings: Sequence[str]


class Training:
    """Trains a network, and leaves it with the weights of its best evaluation.

    Args:
        network: what is trained.
        tasks: the rows by task; of those that are held out, at most `evaluation_rows` of each are evaluated on.
        plan: which rows each step trains on.
        config: how.
        groups: which parameters learn at which rate.
        settled: a record of all that decides what comes out: a state of another one is never gone on with.
        folder: where the state is kept while the training is under way, and TensorBoard's files if they are wanted; a
            state that is there is gone on from.
        label: for people.
        log: `tensorboard` writes its files as training goes on.

    Raises:
        AdapterError: the state in `folder` is of another training, or cannot be read.
    """

    def __init__(
        self,
        network: LiveNetwork,
        tasks: Mapping[str, TaskRows],
        plan: StepPlan,
        config: TrainingConfig,
        groups: Sequence[Group],
        *,
        settled: Mapping[str, Any],
        folder: Path,
        label: str,
        log: Tracker = "none",
    ) -> None:
        with quiet_loading():  # both import bitsandbytes
            from accelerate import Accelerator
            from transformers import get_scheduler

        self.network, self.tasks, self.plan, self.config = network, tasks, plan, config
        self.settled, self.folder, self.label = dict(settled), folder, label
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs = folder / TENSORBOARD if log == "tensorboard" else None
        self.parameters = dict(network.trained())
        self.total = max(1, round(plan.steps_an_epoch * config.epochs))
        self._optimizer = torch.optim.AdamW(
            [{"params": [self.parameters[name] for name in g.names], "lr": g.learning_rate} for g in groups],
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._scheduler = get_scheduler(
            "constant_with_warmup" if config.schedule == "constant" else config.schedule,
            self._optimizer,
            num_warmup_steps=round(self.total * config.warmup),
            num_training_steps=self.total,
        )
        self._device = next(iter(self.parameters.values())).device
        self._accelerator = Accelerator(
            cpu=self._device.type == "cpu", log_with="tensorboard" if self.logs else None, project_dir=self.logs
        )
        self._prepared = self._accelerator.prepare(self._optimizer)
        self._held = HeldOut(tasks, config.evaluation_rows, config.seed)
        self._best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._evaluations = Evaluations(config.select_by)
        self._losses: dict[str, list[float]] = {}
        self._step, self._seconds_before = 0, 0.0
        self._go_on()

    def run(self) -> Trained:
        """Train to the end.

        Raises:
            AdapterError: the loss is not finite.
        """
        if self.logs:
            if not self._evaluations.records:
                shutil.rmtree(self.logs, ignore_errors=True)  # of a training that was stopped before it kept anything
            again = {"purge_step": self._step + 1} if self._step else {}  # else steps behind the state stand twice
            self._accelerator.init_trackers("", init_kwargs={"tensorboard": again})
        self._began = self._saved = time.monotonic()
        stopped_early = False
        with StepsLine(self.label, self.total, self._step) as self._line, _training(self.network):
            if not self._evaluations.records:
                self._evaluate()
            for step in self._steps_left():
                if self._waited_enough:
                    stopped_early = True
                    self._line.stops_early(self._evaluations.records[self._evaluations.best]["step"])
                    break
                loss, rate = self._do(step), self._scheduler.get_last_lr()[0]
                self._log({tag_of(step.task, "training", "loss"): loss, "learning_rate": rate})
                if self._is_due or self._step == self.total:
                    self._evaluate()
                    self._keep()
                elif time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                    self._keep()
        if self.logs:
            self._accelerator.end_training()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self._best[name])
        return Trained(
            self._evaluations.records,
            self._evaluations.best,
            self._seconds,
            stopped_early,
            self._evaluations.warnings(),
        )

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    @property
    def _is_due(self) -> bool:
        """Whether an evaluation comes behind this step: the last one of its share of an epoch."""
        step, an_epoch = self._step % self.plan.steps_an_epoch, self.plan.steps_an_epoch
        often = self.config.evaluations
        return step * often // an_epoch > (step - 1) * often // an_epoch

    @property
    def _waited_enough(self) -> bool:
        waited = len(self._evaluations.records) - 1 - self._evaluations.best
        return bool(self.config.patience) and waited >= self.config.patience

    def _steps_left(self) -> Iterator[Step]:
        an_epoch = self.plan.steps_an_epoch
        for epoch in range(self._step // an_epoch, -(-self.total // an_epoch)):
            yield from self.plan.epoch(epoch)[self._step - epoch * an_epoch : self.total - epoch * an_epoch]

    def _do(self, step: Step) -> float:
        """One step of the optimizer, over as many live passes as its rows take; gives the rows' mean loss."""
        self._prepared.zero_grad()
        rows = self.tasks[step.task]
        y = np.searchsorted(self.network.classes_of(step.task), rows.y[step.rows])
        loss = 0.0
        for batch in self.network.batches(rows.train, step.rows):
            logits = self.network.logits(rows.train, step.rows, batch)
            part = self.network.loss(logits, torch.from_numpy(y[batch.rows]).to(logits.device)) / len(step.rows)
            self._accelerator.backward(part)
            loss += float(part.detach())
        if not np.isfinite(loss):
            raise AdapterError(
                "training diverged",
                where=f"{self.label}, step {self._step + 1}",
                found=f"loss {loss}",
                remedy="lower the learning rate",
            )
        with_gradient = [parameter for parameter in self.parameters.values() if parameter.grad is not None]
        self._accelerator.clip_grad_norm_(with_gradient, self.config.max_grad_norm)
        self._prepared.step()
        self._scheduler.step()
        self._step += 1
        self._losses.setdefault(step.task, []).append(loss)
        self._line.advance(loss)
        return loss

    def _evaluate(self) -> None:
        with _evaluating(self.network):
            record = self._held.evaluate(self.network)
        record |= {
            "step": self._step,
            "epoch": round(self._step / self.plan.steps_an_epoch, 4),
            "train_loss": {task: float(np.mean(losses)) for task, losses in self._losses.items()},
        }
        self._losses.clear()
        self._evaluations.add(record)
        if self._evaluations.best == len(self._evaluations.records) - 1:
            for name, parameter in self.parameters.items():
                self._best[name].copy_(parameter.detach())
        self._line.shows(in_words(record))
        self._log(
            {
                tag_of(task, "held_out", name): value
                for task, values in record["held_out"].items()
                for name, value in values.items()
                if isinstance(value, float)
            }
        )

    def _log(self, values: Mapping[str, float]) -> None:
        if self.logs:
            self._accelerator.log(dict(values), step=self._step)

    def _keep(self) -> None:
        """Write down where the training is, so that it can go on from here."""
        progress = Progress(
            self.settled,
            self._step,
            self._seconds,
            self._scheduler.state_dict(),
            self._evaluations.records,
            self._losses,
        )
        tensors: dict[str, torch.Tensor] = {f"now/{name}": parameter for name, parameter in self.parameters.items()}
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        for name, parameter in self.parameters.items():
            for kind, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{kind}/{name}"] = value
        tensors |= {f"first/{task}": torch.from_numpy(of_task) for task, of_task in self._held.first.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        write_state(self.folder, progress, tensors)
        self._saved = time.monotonic()

    @torch.no_grad()
    def _go_on(self) -> None:
        """Take up the state that the folder holds, if it holds one."""
        kept = read_state(self.folder)
        if kept is None:
            return
        progress, tensors = kept
        if progress.settled != self.settled:
            raise AdapterError(
                "the state in this folder is of another training", where=self.folder, remedy="remove the folder"
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"now/{name}"])
            self._best[name].copy_(tensors[f"best/{name}"])
            for kind in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"optimizer/{kind}/{name}")
                if value is not None:
                    self._optimizer.state[parameter][kind] = value.to(parameter.device)
        self._held.first = {task: tensors[f"first/{task}"].numpy() for task in self.tasks}
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and self._device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], self._device)
        self._scheduler.load_state_dict(dict(progress.scheduler))
        for group, rate in zip(self._optimizer.param_groups, self._scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        self._evaluations.records.extend(progress.evaluations)
        self._losses = progress.losses
        self._step, self._seconds_before = progress.step, progress.seconds
        say(f"{self.label}: goes on from step {self._step} of {self.total}")


@contextmanager
def _training(network: LiveNetwork) -> Iterator[None]:
    _set_training(network, True)
    try:
        yield
    finally:
        _set_training(network, False)


@contextmanager
def _evaluating(network: LiveNetwork) -> Iterator[None]:
    _set_training(network, False)
    try:
        yield
    finally:
        _set_training(network, True)


def _set_training(network: LiveNetwork, on: bool) -> None:
    for module in network.modules_in_training():
        module.train(on)
