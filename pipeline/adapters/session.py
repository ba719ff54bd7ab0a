"""What every live run begins and ends with: the backbone, the tasks' rows, a run's scores."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adapters.evaluation import predict_logits
from pipeline.adapters.rows import LiveRows, TaskRows, split_rows, tokenize_split
from pipeline.adapters.training import LiveNetwork, Trained
from pipeline.backbone.catalogue import BackboneSource, find_backbone
from pipeline.backbone.facts import BackboneFacts, check_unchanged, read_facts, resolve_device, resolve_dtype
from pipeline.backbone.load import Backbone, load_backbone
from pipeline.backbone.tokens import load_tokenizer
from pipeline.config import BackboneConfig, DataConfig, Dtype, RunsConfig, TokensConfig
from pipeline.digests import sha256_of_record, sha256_of_texts
from pipeline.errors import AdapterError, ConfigError
from pipeline.holdout import digest_of_held_out
from pipeline.live_config import TrainingConfig
from pipeline.progress import say
from pipeline.results.counts import COUNTED
from pipeline.results.entering import write_predictions, write_record
from pipeline.results.ledger import Run
from pipeline.results.scored import ScoredSplits
from pipeline.results.trackers import track
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Session:
    """A backbone as it was asked for, not loaded yet.

    Args:
        config: as asked for.
        source: its files.
        facts: what they say.
        device, dtype: resolved, never `auto`.
        tokenizer: the backbone's.
    """

    config: BackboneConfig
    source: BackboneSource
    facts: BackboneFacts
    device: str
    dtype: Dtype
    tokenizer: Any

    @classmethod
    def open(cls, config: BackboneConfig) -> "Session":
        """Find a backbone and read what its files say.

        Raises:
            BackboneError: it cannot be found or read.
            ConfigError: an adapter is named: the live path trains one of its own.
        """
        if config.adapter is not None:
            raise ConfigError(
                "the live path trains an adapter of its own on the plain backbone",
                where="adapter",
                found=config.adapter,
                remedy="leave --adapter out",
            )
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.compute_dtype, device)
        source = find_backbone(config)
        facts = read_facts(source, config, dtype)
        return cls(config, source, facts, device, dtype, load_tokenizer(source.folder))

    def load(self) -> Backbone:
        """Load the backbone.

        Raises:
            BackboneError: it cannot be loaded, or its files changed.
        """
        loaded = load_backbone(self.source, self.config, device=self.device, compute_dtype=self.dtype, facts=self.facts)
        check_unchanged(self.facts, self.source, self.config, self.dtype)
        say(f"{self.source.name}: {loaded.note}, on {self.device}")
        return loaded

    @property
    def base(self) -> str:
        """What an adapter's config names as its backbone: a Hub id, a name of the catalogue, or a folder."""
        from pipeline.backbone.catalogue import HUB_IDS

        return HUB_IDS.get(self.config.backbone, self.config.backbone)

    def read(
        self, task: TaskSpec, data: DataConfig, tokens: TokensConfig, prompt: str, *, before: int = 0
    ) -> dict[Any, LiveRows]:
        """All splits of a task that are there, as token ids behind a prompt.

        Args:
            before: virtual tokens that will stand before it: they count against what the backbone was made for.

        Raises:
            DataError: a file is missing or malformed, or a sentence is too long.
        """
        splits = read_task(task, data)
        for split, examples in splits.items():
            say(f"{task.name}/{split}: {len(examples)} rows from {examples.origin}")
        most = self.facts.max_positions
        if most is not None and before >= most:
            raise AdapterError(
                "there are more virtual tokens than the backbone was made for",
                where=task.name,
                expected=f"fewer than {most}",
                found=before,
            )
        left = None if most is None else most - before
        return {
            split: tokenize_split(self.tokenizer, examples, tokens, prompt, left) for split, examples in splits.items()
        }


def divide(splits: dict[Any, LiveRows], training: TrainingConfig) -> TaskRows:
    """Hold out a part of a task's training rows."""
    return split_rows(splits, held_out=training.held_out, max_rows=training.max_rows, seed=training.seed)


def settle(session: Session, tasks: Mapping[str, TaskRows], **settings: Any) -> dict[str, Any]:
    """A record of all that decides what a training gives, as JSON has it."""
    record = {
        "backbone": asdict(session.facts),
        "rows": {
            name: {
                "texts": sha256_of_texts(rows.train.examples.texts),
                "labels": sha256_of_record(rows.y.tolist()),
                "ids": sha256_of_record(rows.train.tokens.ids.tolist()),
                "fit": sha256_of_record(rows.fit.tolist()),
                "metric": rows.task.metric,
            }
            for name, rows in tasks.items()
        },
        **settings,
    }
    settled: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return settled


def deciding(training: TrainingConfig) -> dict[str, Any]:
    """The settings of training that decide what comes out."""
    return {name: value for name, value in asdict(training).items() if name != "threads"}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, everything random of torch begins at a seed, and what can be is computed in a fixed order."""
    devices = list(range(torch.cuda.device_count()))
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # nothing here reads it, and filling it takes a while
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn)
            memory.fill_uninitialized_memory = filled


def score_splits(network: LiveNetwork, rows: TaskRows, *, unlabelled: bool = True) -> ScoredSplits:
    """Predict every split but train, once; those without labels only if they are wanted."""
    scored = ScoredSplits(rows.task.name, len(rows.task.labels), rows.y, rows.train.examples.sources)
    for split, of_split in rows.splits.items():
        if split != "train" and (of_split.y is not None or unlabelled):
            score_split(scored, network, of_split)
    return scored


def score_split(scored: ScoredSplits, network: LiveNetwork, rows: LiveRows) -> None:
    """Predict one split more, once."""
    logits, classes = predict_logits(network, rows, np.arange(len(rows))), network.classes_of(rows.task.name)
    sample_ids = np.asarray(rows.examples.idx, dtype=np.int64)
    probabilities = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    predictions, examples = classes[logits.argmax(axis=1)], rows.examples
    scored.add(
        examples.split, sample_ids, examples.texts, rows.y, predictions, probabilities, classes, examples.sources
    )


def score_tasks(
    network: LiveNetwork, rows: Mapping[str, TaskRows], trained: Trained
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[Any]]:
    """Scores, those of the majority class and statistics by task and split, the scores of the held-out rows too, and
    tables of predictions."""
    scores: dict[str, Any] = {}
    baseline: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    tables: list[Any] = []
    for task, of_task in rows.items():
        scored = score_splits(network, of_task)
        held_out = trained.evaluations[trained.best]["held_out"][task]
        # an evaluation of a training that began before there was another score lacks it
        scores[task] = {**scored.scores, "held_out": {name: held_out[name] for name in COUNTED if name in held_out}}
        baseline[task] = scored.baseline
        statistics[task] = scored.statistics
        if sum(held_out["predicted"]) == len(of_task.held):  # all of them, not --evaluation-rows
            texts = of_task.train.examples.texts
            statistics[task]["held_out"] = {"texts": digest_of_held_out(texts, [of_task.held])}
        tables += scored.tables
    return scores, baseline, statistics, tables


def config_record(
    session: Session,
    data: DataConfig,
    tokens: TokensConfig,
    training: TrainingConfig,
    rows: Mapping[str, TaskRows],
    **more: Any,
) -> dict[str, Any]:
    """Every setting of a live run, as JSON has it, with what is needed to use the run again."""
    record = {
        "backbone": session.config.backbone,
        "revision": session.config.revision,
        "quantization": session.config.quantization,
        "compute_dtype": session.dtype,
        "data": data.source,
        "labels": {name: of_task.task.labels for name, of_task in rows.items()},
        "metric": next(iter(rows.values())).task.metric,
        "metrics": {name: of_task.task.metric for name, of_task in rows.items()},
        "tokens": asdict(tokens),
        "training": asdict(training),
        "facts": asdict(session.facts),
        **more,
    }
    config: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return config


def write_run(folder: Path, run: Run, tables: Sequence[Any]) -> None:
    """Write what every run has into its folder."""
    write_predictions(folder, tables)
    write_record(folder, run)


def tell(run: Run, runs: RunsConfig) -> None:
    """Say a stored run's scores, and what is amiss with it; then tell it to a tracker."""
    for task in run.tasks:
        say(f"{task}: {run.adapter['kind'] if run.adapter else run.head} on validation: {run.describe_scores(task)}")
    for warning in run.selection.get("warnings", ()):
        say(f"warning: {warning}")
    if run.selection.get("warnings"):
        say("more --epochs, more rows or another --learning-rate may help")
    track(run, runs)


def selection_record(trained: Trained) -> dict[str, Any]:
    """What a run's record says of how its weights were chosen, with the learning curve."""
    chosen = trained.evaluations[trained.best]
    return {
        "step": chosen["step"],
        "epoch": chosen["epoch"],
        "tried": len(trained.evaluations),
        "stopped_early": trained.stopped_early,
        "evaluations": list(trained.evaluations),
        "warnings": list(trained.warnings),
    }
