"""Settings of the live path: what is trained through the backbone, on which rows, and how."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.config import raise_problems

Mixing = Literal["proportional", "equal"]
Schedule = Literal["linear", "cosine", "constant"]
SelectBy = Literal["score", "loss"]


@dataclass(frozen=True)
class TrainingConfig:
    """How the live path trains.

    Args:
        epochs: passes over the training rows, a share of one too.
        learning_rate: AdamW's highest; by default the preset's: 1e-3 for LoRA (`card` 3e-5), 1e-2 for soft prompts.
        weight_decay: AdamW's.
        batch_size: rows a step; by default 32 for LoRA, 16 for soft prompts.
        token_budget: tokens a live pass; the gradients of a step's passes are added up.
        schedule: of the learning rate behind the warm-up: `linear` or `cosine` to zero, or `constant`.
        warmup: share of the steps in which the learning rate rises from zero.
        max_grad_norm: the gradient's length is cut to this.
        evaluations: how often an epoch the held-out rows are scored.
        evaluation_rows: so many of them at most are scored each time, drawn by the seed.
        patience: evaluations without a better one before training stops; 0 never stops early.
        select_by: what makes one evaluation better: the tasks' `score` or their `loss`.
        held_out: about the share of the training rows to select on (one over a whole number).
        max_rows: train on so many rows of each task at most, drawn by the seed; 0 is all.
        gradient_checkpointing: keep each block's input alone and compute the rest again: less memory, more time.
        seed: of the held-out rows, the order of the rows, first weights and dropout.
        threads: CPU threads; 0 is all cores.
    """

    epochs: float = 3.0
    learning_rate: float | None = None
    weight_decay: float = 0.0
    batch_size: int | None = None
    token_budget: int = 1024
    schedule: Schedule = "linear"
    warmup: float = 0.06
    max_grad_norm: float = 1.0
    evaluations: int = 2
    evaluation_rows: int = 2000
    patience: int = 0
    select_by: SelectBy = "score"
    held_out: float = 0.1
    max_rows: int = 0
    gradient_checkpointing: bool = False
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        problems = []
        for name, least in (
            ("batch_size", 1), ("token_budget", 1), ("evaluations", 1), ("evaluation_rows", 1),
            ("patience", 0), ("max_rows", 0), ("threads", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                problems.append(f"{name}: expected at least {least}, found {value}")
        for name in ("epochs", "max_grad_norm", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problems.append(f"{name}: expected a number above 0, found {value}")
        if not 0 <= self.weight_decay < math.inf:
            problems.append(f"weight_decay: expected a number from 0 on, found {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            problems.append(f"warmup: expected a share from 0 to below 1, found {self.warmup}")
        if not 0 < self.held_out <= 0.5:
            problems.append(f"held_out: expected a share above 0 and up to 0.5, found {self.held_out}")
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed: expected a number from 0 to {2**32 - 1}, found {self.seed}")
        raise_problems(problems)


@dataclass(frozen=True)
class LivePathConfig:
    """Which tasks the live path trains.

    Args:
        tasks: their names.
        task_files: TOML files that describe tasks of your own.
    """

    tasks: tuple[str, ...] = ("cola", "sst2")
    task_files: tuple[Path, ...] = ()


LORA_PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "rank": 4, "alpha": 16, "dropout": 0.0, "target_modules": ("q_proj", "v_proj"),
        "learning_rate": 1e-3, "batch_size": 32,
    },
    "card": {
        "rank": 4, "alpha": 512, "dropout": 0.0, "target_modules": ("q_proj", "v_proj"),
        "learning_rate": 3e-5, "batch_size": 32,
    },
}  # fmt: skip
"""Settings of `LoraOptions` and `TrainingConfig` that go together: a learning rate suits a scale alpha / rank."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters on the backbone's layers, and heads on what comes out (Hu et al., 2021, arXiv:2106.09685).

    Args:
        gate: cached features that the backbone must reproduce before anything is trained: `auto`, those of the same
            backbone, prompt and texts, where the cache has them; `off`; or the name of a feature set of a task's
            training rows, or the beginning of its fingerprint.
        preset: `default` (r=4, alpha=16), or `card` (r=4, alpha=512); no dropout, no bias, on q_proj and v_proj.
            Settings below win.
        rank: of the matrices, `r`; by default the preset's.
        alpha: the update is scaled by alpha / rank; by default the preset's.
        dropout: of what the adapters are given, in training; by default none.
        target_modules: the linear layers that get adapters, by the ends of their names; by default q_proj and v_proj.
        peft: any other field of peft's LoraConfig, such as use_rslora=true.
        top_layers: adapters sit in so many blocks below the highest view, and live passes begin there, from the cached
            `tokens` view of the layer below; 0 is all blocks, and whole passes.
        whole_passes: go through the whole backbone all the same, where no such view is cached.
        views: such as L20-mean, or several side by side: L16-mean+L20-mean; by default each task's own, and with
            top_layers the last layer's mean.
        head: `linear` or `mlp` (one hidden layer of 256), where it does not begin as another run's.
        head_from: runs of `linear` or `mlp` heads on cached features, each the first weights of its task's head.
        head_learning_rate: by default 0.2 over the widest layer's inputs.
        freeze: one set of adapters for all tasks, whose batches are mixed: `none` trains all heads, the name of a task
            freezes its head; by default each task has adapters of its own.
        mixing: how the tasks' steps are mixed: `proportional`, an epoch is each row of every task once; or `equal`, it
            is the smallest task's rows once, and as many of each other task.
    """

    gate: str = "auto"
    preset: Literal["default", "card"] = "default"
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    target_modules: tuple[str, ...] = ()
    peft: tuple[str, ...] = ()
    top_layers: int = 0
    whole_passes: bool = False
    views: str | None = None
    head: Literal["linear", "mlp"] = "linear"
    head_from: tuple[str, ...] = ()
    head_learning_rate: float | None = None
    freeze: str | None = None
    mixing: Mixing = "proportional"

    def __post_init__(self) -> None:
        problems = []
        if self.rank is not None and self.rank < 1:
            problems.append(f"rank: expected at least 1, found {self.rank}: an adapter of that rank holds nothing")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            problems.append(f"alpha: expected a number above 0, found {self.alpha}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            problems.append(f"dropout: expected a share from 0 to below 1, found {self.dropout}")
        if self.top_layers < 0:
            problems.append(f"top_layers: expected at least 0, found {self.top_layers}")
        if self.head_learning_rate is not None and not 0 < self.head_learning_rate < math.inf:
            problems.append(f"head_learning_rate: expected a number above 0, found {self.head_learning_rate}")
        if self.whole_passes and not self.top_layers:
            problems.append("whole_passes: expected --top-layers with it; without, passes are whole ones anyway")
        if self.mixing != "proportional" and self.freeze is None:
            problems.append("mixing: expected --freeze with it, if only none; tasks have adapters of their own")
        problems += [f"peft: expected <field>=<value>, found {text!r}" for text in self.peft if "=" not in text]
        raise_problems(problems)


PROMPT_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"learning_rate": 1e-2, "batch_size": 16},
    "card": {"virtual_tokens": 4, "learning_rate": 1e-2, "batch_size": 16},
}
"""Settings of `PromptOptions` and `TrainingConfig` that go together."""


@dataclass(frozen=True)
class PromptOptions:
    """Virtual tokens in front of the text; the whole network is frozen (Lester et al., 2021, arXiv:2104.08691).

    Args:
        preset: `default`, or `card` (4 virtual tokens); settings below win.
        init_text: what a task's own virtual tokens begin as; by default the task's text. An empty text gives a task
            none of its own.
        virtual_tokens: how many of its own a task has; the text is cut or repeated to that. By default as many as the
            text has.
        label_words: one a class, in the order of the task's labels; by default the task's own.
        over: the loss is the label's log-likelihood among the label `words`, or over the whole `vocabulary`.
        shared_text: virtual tokens before those, which all tasks share and train together; they begin as this text.
        shared_from: a run whose shared virtual tokens are taken.
        freeze_shared: those stay as they are; the tasks' own alone are trained.
        mixing: how the steps of tasks that share are mixed: `proportional`, an epoch is each row of every task once; or
            `equal`, it is the smallest task's rows once, and as many of each other task.
    """

    preset: Literal["default", "card"] = "default"
    init_text: str | None = None
    virtual_tokens: int | None = None
    label_words: tuple[str, ...] = ()
    over: Literal["words", "vocabulary"] = "words"
    shared_text: str | None = None
    shared_from: str | None = None
    freeze_shared: bool = False
    mixing: Mixing = "proportional"

    def __post_init__(self) -> None:
        problems = []
        if self.virtual_tokens is not None and self.virtual_tokens < 1:
            problems.append(f"virtual_tokens: expected at least 1, found {self.virtual_tokens}")
        if self.virtual_tokens is not None and self.init_text == "":
            problems.append("virtual_tokens and init_text: expected a text that they begin as, found an empty one")
        if self.shared_text == "":
            problems.append("shared_text: expected a text, found an empty one")
        if self.shared_text is not None and self.shared_from is not None:
            problems.append("shared_text and shared_from: expected one of them, found both")
        if self.freeze_shared and self.shared_from is None:
            problems.append("freeze_shared: expected --shared-from with it, found nothing that was trained before")
        if self.mixing != "proportional" and self.shared_text is None and self.shared_from is None:
            problems.append("mixing: expected --shared-text or --shared-from with it; tasks share nothing")
        raise_problems(problems)


Options = TypeVar("Options", LoraOptions, PromptOptions)


def with_preset(options: Options, training: TrainingConfig) -> tuple[Options, TrainingConfig]:
    """Both, with what the preset says wherever nothing was set."""
    preset = dict((LORA_PRESETS if isinstance(options, LoraOptions) else PROMPT_PRESETS)[options.preset])
    if isinstance(options, PromptOptions) and options.init_text == "":
        preset.pop("virtual_tokens", None)  # no task has any of its own
    return _with_defaults(options, preset), _with_defaults(training, preset)


Config = TypeVar("Config", LoraOptions, PromptOptions, TrainingConfig)


def _with_defaults(config: Config, defaults: Mapping[str, Any]) -> Config:
    unset = {field.name for field in fields(config) if getattr(config, field.name) in (None, ())}
    return replace(config, **{name: value for name, value in defaults.items() if name in unset})
