"""A live run taken up again in a new process: its backbone, with what was trained on or in front of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.adapters.evaluation import predict_logits
from pipeline.adapters.lora import read_adapters
from pipeline.adapters.lora_run import ADAPTER
from pipeline.adapters.network import HeadedNetwork, TaskHead
from pipeline.adapters.prompt_run import ADAPTERS
from pipeline.adapters.rows import LiveRows, tokenize_split
from pipeline.adapters.session import Session
from pipeline.adapters.soft_prompt import LabelReading, PromptedNetwork, read_soft_prompt
from pipeline.adapters.starting_heads import HEADS
from pipeline.adapters.training import LiveNetwork
from pipeline.adapters.zero_shot import HEAD as ZERO_SHOT
from pipeline.adapters.zero_shot import label_reading, untuned_network
from pipeline.backbone.lm_head import lm_head_weight
from pipeline.backbone.prefill import PrefillEngine
from pipeline.backbone.tokens import OF_A_RUN, resolve_max_length
from pipeline.classifier import StoredClassifier
from pipeline.config import BackboneConfig, TokensConfig
from pipeline.errors import AdapterError, RunError
from pipeline.kernels import exact_float32
from pipeline.live_config import TrainingConfig
from pipeline.results.ledger import Run, read_run
from pipeline.results.scored import over_labels
from pipeline.tasks.examples import parse_examples
from pipeline.tasks.spec import TaskSpec
from pipeline.views import parse_views


@dataclass(frozen=True)
class LiveRun:
    """A run of the live path, ready to predict.

    Args:
        run: its record.
        session: its backbone.
        network: with what was trained.
        truncation: cut sentences beyond the run's limit, also where its training refused them.
    """

    run: Run
    session: Session
    network: LiveNetwork
    truncation: bool = False

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        models_dir: Path | None = None,
        device: str = "auto",
        backbone: str | None = None,
        truncation: bool = False,
    ) -> "LiveRun":
        """Load a run's backbone and put on it what was trained.

        Args:
            folder: the run's.
            models_dir: where models are kept; by default `data/models`.
            device: where to compute; the numbers are those of the run's compute dtype anywhere.
            backbone: where the run's backbone is now, if that is elsewhere than it was.
            truncation: cut sentences beyond the run's limit, also where its training refused them.

        Raises:
            RunError: it is no run of the live path, or its record does not say enough.
            AdapterError: the backbone is another one than it was, or what was trained is damaged.
            BackboneError: the backbone cannot be loaded.
        """
        run = read_run(folder)
        if run.path != "live" or (run.adapter is None and run.head != ZERO_SHOT):
            raise RunError(
                "this run has no adapter",
                where=folder,
                expected="a run of pipeline adapt, or of the LLM asked as it is",
                found=f"path {run.path!r}, head {run.head!r}",
                remedy="pipeline.predicting.load_predictor loads runs of every kind",
            )
        try:
            config = run.config
            asked = BackboneConfig(
                backbone=backbone or config["backbone"],
                revision=config["revision"] if backbone is None else None,
                quantization=config["quantization"],
                compute_dtype=config["compute_dtype"],
                device=device,
            )
            session = Session.open(asked if models_dir is None else replace(asked, models_dir=models_dir))
            now = asdict(session.facts)
            if changed := [name for name, value in config["facts"].items() if now.get(name) != value]:
                raise AdapterError(
                    "the backbone is not the one that this run was trained on",
                    where=folder,
                    expected="; ".join(f"{name} {config['facts'][name]}" for name in changed),
                    found="; ".join(f"{name} {now.get(name)}" for name in changed),
                )
            kind = ZERO_SHOT if run.adapter is None else run.adapter["kind"]
            load, needed = KINDS[kind]
            # read here, so that a field that is missing is told from a fault further down
            _ = [config[name] for name in needed] + ([] if kind == ZERO_SHOT else [config["training"]["token_budget"]])
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError("a run's record does not say enough to use it", where=folder, found=repr(error)) from error
        with exact_float32(session.device):
            return cls(run, session, load(folder, run, session), truncation)

    def rows(
        self, task: str, texts: Sequence[str], lines: Sequence[int] | None = None, origin: str = "sentences"
    ) -> LiveRows:
        """Sentences as the network sees them.

        Args:
            lines, origin: where each of them stands, from 1, and where all are from, for errors.

        Raises:
            RunError: the run is of other tasks.
            DataError: a sentence is empty or too long.
        """
        if task not in self.run.tasks:
            raise RunError("this run is of another task", expected=", ".join(self.run.tasks), found=task)
        spec = TaskSpec(task, tuple(self.run.config["labels"][task]), self.run.config["prompts"][task])
        examples = parse_examples(
            spec,
            "test",
            texts=texts,
            labels=None,
            lines=range(1, len(texts) + 1) if lines is None else lines,
            path=origin,
            origin=origin,
        )
        tokens = TokensConfig(**self.run.config["tokens"])
        tokens = replace(tokens, truncation=tokens.truncation or self.truncation)
        most = self.session.facts.max_positions
        if most is not None and isinstance(self.network, PromptedNetwork):
            most -= len(self.network.virtual_tokens(task))
        rows = tokenize_split(self.session.tokenizer, examples, tokens, spec.prompt, most, OF_A_RUN)
        rows.tokens.say_if_cut(origin, resolve_max_length(tokens.max_length, most))
        return rows

    def logits(
        self, task: str, texts: Sequence[str], lines: Sequence[int] | None = None, origin: str = "sentences"
    ) -> np.ndarray:
        """Logits `[n, c]` float32 of sentences, in the order of the task's labels that were trained.

        Raises:
            RunError: the run is of other tasks.
            DataError: a sentence is empty or too long.
        """
        rows = self.rows(task, texts, lines, origin)
        with exact_float32(self.session.device):
            return predict_logits(self.network, rows, np.arange(len(rows)))

    def predict_proba(
        self, task: str, texts: Sequence[str], lines: Sequence[int] | None = None, origin: str = "sentences"
    ) -> np.ndarray:
        """Probabilities `[n, c]` of sentences over all of a task's labels; arguments as of `rows`."""
        logits = self.logits(task, texts, lines, origin)
        probabilities = torch.from_numpy(logits).double().softmax(dim=1).numpy()
        return over_labels(probabilities, self.network.classes_of(task), len(self.run.config["labels"][task]))


def _load_lora(folder: Path, run: Run, session: Session) -> HeadedNetwork:
    views = {task: parse_views(text) for task, text in run.config["views"].items()}
    backbone = session.load()
    layers = sorted({int(view.layer) for of_task in views.values() for view in of_task})
    engine = PrefillEngine(backbone, layers, pack=False)
    read_adapters(backbone.model, folder / ADAPTER)
    heads = {}
    for task in run.tasks:
        stored = StoredClassifier.load(folder / HEADS / f"{task}.safetensors")
        heads[task] = TaskHead(views[task], stored.network.eval().to(backbone.device), np.asarray(stored.classes))
    return HeadedNetwork(engine, heads, token_budget=int(run.config["training"]["token_budget"]))


def _load_prompt(folder: Path, run: Run, session: Session) -> PromptedNetwork:
    backbone = session.load()
    engine = PrefillEngine(backbone, [backbone.num_hidden_layers], pack=False)
    return PromptedNetwork(
        engine,
        lm_head_weight(session.source, backbone),
        _readings(run, session),
        {name: read_soft_prompt(folder / ADAPTERS / name, backbone.hidden_size) for name in run.tasks},
        torch.zeros(0, backbone.hidden_size),
        freeze_shared=True,
        over=run.config["prompt_tuning"]["over"],
        token_budget=int(run.config["training"]["token_budget"]),
    )


def _load_zero_shot(folder: Path, run: Run, session: Session) -> PromptedNetwork:
    backbone = session.load()
    engine = PrefillEngine(backbone, [backbone.num_hidden_layers], pack=False)
    lm_head = lm_head_weight(session.source, backbone)
    budget = TrainingConfig().token_budget
    return untuned_network(engine, lm_head, _readings(run, session), over="words", token_budget=budget)


def _readings(run: Run, session: Session) -> dict[str, LabelReading]:
    """By task, how its label is read behind its answer prompt."""
    special_tokens = bool(run.config["tokens"]["special_tokens"])
    readings = {}
    for name in run.tasks:
        words, prompt = (run.config[field][name] for field in ("label_words", "prompts"))
        task = TaskSpec(name, tuple(run.config["labels"][name]), prompt, answer_prompt=prompt, label_words=tuple(words))
        readings[name] = label_reading(session.tokenizer, task, special_tokens=special_tokens)
    return readings


KINDS: Mapping[str, tuple[Callable[[Path, Run, Session], LiveNetwork], tuple[str, ...]]] = {
    "lora": (_load_lora, ("views",)),
    "prompt": (_load_prompt, ("prompts", "label_words", "prompt_tuning", "tokens")),
    ZERO_SHOT: (_load_zero_shot, ("prompts", "label_words", "tokens")),
}
"""By what was trained: how it is loaded, and which fields of the run's config that takes."""
