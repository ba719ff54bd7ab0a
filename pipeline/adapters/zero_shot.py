"""What the frozen LLM says of its own: the label words behind a task's answer prompt, nothing trained or calibrated."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from pipeline.adapters.label_words import label_word_ids, tokens_behind
from pipeline.adapters.rows import tokenize_split
from pipeline.adapters.session import Session, score_split, tell, write_run
from pipeline.adapters.soft_prompt import LabelReading, PromptedNetwork
from pipeline.backbone.lm_head import lm_head_weight
from pipeline.backbone.prefill import PrefillEngine
from pipeline.cache import FeatureSet
from pipeline.config import BackboneConfig, RunsConfig, TokensConfig
from pipeline.errors import AdapterError
from pipeline.kernels import exact_float32
from pipeline.live_config import TrainingConfig
from pipeline.progress import say
from pipeline.results.entering import new_run, new_run_name
from pipeline.results.ledger import Run
from pipeline.results.scored import ScoredSplits
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import Split, TaskSpec

HEAD = "zero-shot"


def label_reading(tokenizer: Any, task: TaskSpec, *, special_tokens: bool) -> LabelReading:
    """How a task's label is read behind its answer prompt.

    Raises:
        AdapterError: the label words cannot be told apart by their first tokens, or melt into the prompt.
    """
    ids = label_word_ids(tokenizer, task.answer_prompt, task.label_words, special_tokens=special_tokens, task=task.name)
    behind = tokens_behind(tokenizer, task.answer_prompt, special_tokens=special_tokens)
    return LabelReading(ids, np.arange(len(task.labels)), behind)


def untuned_network(
    engine: PrefillEngine,
    lm_head: torch.Tensor,
    readings: Mapping[str, LabelReading],
    *,
    over: Literal["words", "vocabulary"],
    token_budget: int,
) -> PromptedNetwork:
    """The LLM behind each task's answer prompt, without any virtual token; arguments as of `PromptedNetwork`."""
    none = torch.zeros(0, engine.backbone.hidden_size)
    return PromptedNetwork(
        engine, lm_head, readings, dict.fromkeys(readings, none), none,
        freeze_shared=True, over=over, token_budget=token_budget,
    )  # fmt: skip


@dataclass(frozen=True)
class ZeroShot:
    """The LLM, asked about rows of the cache.

    Args:
        session: its backbone, which is loaded once, when it is first asked.
        runs: where its answers are entered.
    """

    session: Session
    runs: RunsConfig

    @classmethod
    def open(cls, config: BackboneConfig, runs: RunsConfig) -> "ZeroShot":
        """Find a backbone; it is loaded when it is first asked.

        Raises:
            BackboneError: it cannot be found or read.
        """
        return cls(Session.open(config), runs)

    @cached_property
    def _engine(self) -> PrefillEngine:
        backbone = self.session.load()
        return PrefillEngine(backbone, [backbone.num_hidden_layers], pack=False)

    def answer(self, task: TaskSpec, train: FeatureSet, validation: FeatureSet) -> Run:
        """Score the answers for a task's validation rows, and enter them as a run.

        The texts and labels come from the cache; its features are not read.

        Args:
            train: features of the training rows, whose labels say which class is the commonest.
            validation: those of validation.

        Raises:
            AdapterError: the features are of another backbone, or the label words cannot be read.
            BackboneError: the backbone cannot be loaded.
            DataError: a sentence is too long behind the answer prompt.
        """
        session, identity = self.session, validation.manifest.identity
        if identity.adapter is not None or identity.weights != session.facts.weights:
            raise AdapterError(
                "the LLM here is not the one that the features are of",
                expected=identity.weights + (f" with adapter {identity.adapter}" if identity.adapter else ""),
                found=session.facts.weights,
            )
        tokens = TokensConfig(truncation=identity.truncation, special_tokens=identity.special_tokens)
        examples = _examples(task, "validation", validation)
        most, remedy = session.facts.max_positions, "leave the LLM out: --no-zero-shot"
        rows = tokenize_split(session.tokenizer, examples, tokens, task.answer_prompt, most, remedy)
        reading = label_reading(session.tokenizer, task, special_tokens=tokens.special_tokens)
        assert train.y is not None
        scored = ScoredSplits(task.name, len(task.labels), train.y, _examples(task, "train", train).sources)
        with exact_float32(session.device):
            engine = self._engine
            say(f"{task.name}: asking {session.source.name} about {len(rows)} validation rows")
            began = time.monotonic()
            network = untuned_network(
                engine,
                lm_head_weight(session.source, engine.backbone),
                {task.name: reading},
                over="words",
                token_budget=TrainingConfig().token_budget,
            )
            score_split(scored, network, rows)
            seconds = time.monotonic() - began
        return self._enter(task, tokens, train, validation, scored, seconds)

    def _enter(
        self,
        task: TaskSpec,
        tokens: TokensConfig,
        train: FeatureSet,
        validation: FeatureSet,
        scored: ScoredSplits,
        seconds: float,
    ) -> Run:
        session = self.session
        config = {
            "backbone": session.config.backbone,
            "revision": session.config.revision,
            "quantization": session.config.quantization,
            "compute_dtype": session.dtype,
            "data": validation.manifest.source,
            "labels": {task.name: task.labels},
            "metric": task.metric,
            "tokens": asdict(tokens),
            "facts": asdict(session.facts),
            "prompts": {task.name: task.answer_prompt},
            "label_words": {task.name: task.label_words},
        }
        run = Run(
            run=new_run_name(task.name, HEAD),
            path="live",
            tasks=(task.name,),
            head=HEAD,
            config=json.loads(json.dumps(config, default=str)),
            seed=0,
            features={task.name: {"train": [train.fingerprint], "validation": [validation.fingerprint]}},
            seconds=round(seconds, 3),
            scores={task.name: scored.scores},
            baseline={task.name: scored.baseline},
            selection={},
            statistics={task.name: scored.statistics},
        )
        with new_run(self.runs.runs_dir, run.run) as folder:
            write_run(folder, run, scored.tables)
        tell(run, self.runs)
        return run


def _examples(task: TaskSpec, split: Split, rows: FeatureSet) -> Examples:
    """A split as its index has it."""
    return Examples(
        task=task,
        split=split,
        texts=tuple(rows.texts),
        labels=None if rows.y is None else tuple(rows.y.tolist()),
        idx=tuple(rows.sample_ids.tolist()),
        sources=rows.sources,
        origin=f"the cache, {task.name}/{split}",
    )
