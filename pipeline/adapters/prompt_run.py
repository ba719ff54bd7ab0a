"""`pipeline adapt prompt`: soft prompts trained in front of a network that is frozen as a whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.adapters.evaluation import HeldOut, in_words
from pipeline.adapters.gate import check_frozen, digest_of_frozen
from pipeline.adapters.resume import finish_run, train_each
from pipeline.adapters.rows import TaskRows
from pipeline.adapters.session import (
    Session,
    config_record,
    deciding,
    divide,
    score_splits,
    score_tasks,
    seeded,
    selection_record,
    settle,
    tell,
    write_run,
)
from pipeline.adapters.soft_prompt import LabelReading, PromptedNetwork, save_soft_prompt, text_ids
from pipeline.adapters.steps import StepPlan
from pipeline.adapters.training import Group, Trained, Training
from pipeline.adapters.zero_shot import label_reading, untuned_network
from pipeline.backbone.lm_head import lm_head_weight
from pipeline.backbone.load import Backbone
from pipeline.backbone.prefill import PrefillEngine
from pipeline.config import BackboneConfig, DataConfig, RunsConfig, TokensConfig
from pipeline.errors import AdapterError, ConfigError
from pipeline.live_config import LivePathConfig, PromptOptions, TrainingConfig, with_preset
from pipeline.progress import say
from pipeline.results.entering import new_run, new_run_name
from pipeline.results.ledger import Run, find_run, read_run
from pipeline.tasks.spec import TaskSpec, find_tasks, virtual_text

ADAPTERS, SHARED = "adapters", "shared.safetensors"
"""Of a run: a folder a task as peft saves prompt tuning, and the virtual tokens that the tasks share."""


@dataclass(frozen=True)
class Settings:
    """All settings of `pipeline adapt prompt`."""

    live: LivePathConfig
    prompt: PromptOptions
    training: TrainingConfig
    data: DataConfig
    backbone: BackboneConfig
    tokens: TokensConfig
    runs: RunsConfig


def adapt_prompt(settings: Settings) -> list[Run]:
    """Train soft prompts: a run for each task, or one for all of them where they share virtual tokens.

    Raises:
        PipelineError: a setting, the data or the backbone is at fault; or training diverges.
    """
    options, training = with_preset(settings.prompt, settings.training)
    settings = replace(settings, prompt=options, training=training)
    tasks = [_as_asked(task, settings) for task in find_tasks(settings.live.tasks, settings.live.task_files)]
    session = Session.open(settings.backbone)
    together = [tasks] if options.shared_text is not None or options.shared_from is not None else [[t] for t in tasks]
    plans = [_make_plan(settings, session, group) for group in together]
    train = partial(_adapt, settings, session)
    return train_each(session.device, settings.runs, settings.training.threads, plans, train)


@dataclass(frozen=True)
class _Plan:
    """What one run is to train.

    Args:
        rows: by task.
        readings: by task, how its label is read.
        texts: by task, what its own virtual tokens begin as.
        shared: `[s, d]` the shared ones of another run, if one is named.
        settled: all that decides what comes out.
    """

    rows: Mapping[str, TaskRows]
    readings: Mapping[str, LabelReading]
    texts: Mapping[str, str]
    shared: torch.Tensor | None
    settled: Mapping[str, Any]


def _as_asked(task: TaskSpec, settings: Settings) -> TaskSpec:
    """The task with the prompt and the label words that were asked for.

    Raises:
        ConfigError: there are not as many label words as labels.
    """
    words = settings.prompt.label_words or task.label_words
    return replace(task, answer_prompt=settings.tokens.prompt or task.answer_prompt, label_words=words)


def _make_plan(settings: Settings, session: Session, tasks: Sequence[TaskSpec]) -> _Plan:
    options, training = settings.prompt, settings.training
    texts = {t.name: virtual_text(t) if options.init_text is None else options.init_text for t in tasks}
    shared = _shared_of(settings, session)
    virtual = {
        name: _count(session, text, options.virtual_tokens)
        + (len(shared) if shared is not None else _count(session, options.shared_text or "", None))
        for name, text in texts.items()
    }
    readings = {
        task.name: label_reading(session.tokenizer, task, special_tokens=settings.tokens.special_tokens)
        for task in tasks
    }
    rows = {
        task.name: divide(
            session.read(task, settings.data, settings.tokens, task.answer_prompt, before=virtual[task.name]), training
        )
        for task in tasks
    }
    settled = settle(
        session, rows, prompts={t.name: t.answer_prompt for t in tasks}, words={t.name: t.label_words for t in tasks},
        prompt=asdict(options), training=deciding(training),
        shared=None if shared is None else digest_of_frozen({"shared": shared}),
    )  # fmt: skip
    return _Plan(rows, readings, texts, shared, settled)


def _count(session: Session, text: str, virtual_tokens: int | None) -> int:
    """How many virtual tokens begin as a text."""
    return len(text_ids(session.tokenizer, text, virtual_tokens)) if text else 0


def _adapt(settings: Settings, session: Session, plan: _Plan, folder: Path) -> Run:
    options, training = settings.prompt, settings.training
    rows, texts, shared = plan.rows, plan.texts, plan.shared
    backbone = session.load()
    with seeded(training.seed):
        engine = PrefillEngine(backbone, [backbone.num_hidden_layers], pack=False)
        if training.gradient_checkpointing:
            engine.keep_inputs_alone()
        own = {name: _begin(session, backbone, text, options.virtual_tokens) for name, text in texts.items()}
        if shared is None:
            shared = _begin(session, backbone, options.shared_text or "", None)
        lm_head = lm_head_weight(session.source, backbone)

        plain = untuned_network(engine, lm_head, plan.readings, over=options.over, token_budget=training.token_budget)
        untuned = _zero_shot(plain, rows, training)
        network = PromptedNetwork(
            engine, lm_head, plan.readings, own, shared,
            freeze_shared=options.freeze_shared, over=options.over, token_budget=training.token_budget,
        )  # fmt: skip
        if not dict(network.trained()):
            raise ConfigError(
                "there is nothing to train",
                where="init_text, shared_text",
                expected="virtual tokens of a task's own, or shared ones that are not frozen",
                found="none",
            )
        before = digest_of_frozen(backbone.model.state_dict())
        assert training.learning_rate is not None and training.batch_size is not None, "they are the preset's"
        groups = [Group(tuple(name for name, _ in network.trained()), training.learning_rate)]
        steps = StepPlan({n: r.fit for n, r in rows.items()}, training.batch_size, options.mixing, training.seed)
        name = new_run_name(*rows, "prompt")
        with new_run(settings.runs.runs_dir, name) as run_folder:
            trained = Training(
                network, rows, steps, training, groups, settled=plan.settled, folder=folder,
                label=f"{'+'.join(rows)}, prompt", log=settings.runs.log,
            ).run()  # fmt: skip
            check_frozen(before, backbone.model.state_dict())
            run = _enter(settings, session, name, run_folder, network, rows, texts, trained, untuned, before)
            finish_run(run_folder, folder, run)
    tell(run, settings.runs)
    return run


def _begin(session: Session, backbone: Backbone, text: str, virtual_tokens: int | None) -> torch.Tensor:
    """`[n, d]` float32: the embeddings of a text, or no row for an empty one."""
    if not text:
        return torch.zeros(0, backbone.hidden_size)
    ids = text_ids(session.tokenizer, text, virtual_tokens)
    weight = backbone.model.get_input_embeddings().weight
    embeddings: torch.Tensor = weight.detach()[torch.from_numpy(ids).to(weight.device)]
    return embeddings.float().cpu()


def _shared_of(settings: Settings, session: Session) -> torch.Tensor | None:
    """The shared virtual tokens of another run, if one is named.

    Raises:
        AdapterError: that run has none, or they are of another backbone.
    """
    name = settings.prompt.shared_from
    if name is None:
        return None
    folder = find_run(settings.runs.runs_dir, name)
    run = read_run(folder)
    if not (folder / SHARED).is_file():
        raise AdapterError(
            "this run has no virtual tokens that tasks share",
            where=f"shared_from: {run.run}",
            found=run.adapter["kind"] if run.adapter else run.head,
            remedy="name a run of pipeline adapt prompt --shared-text",
        )
    facts = run.config.get("facts", {})
    if (
        facts.get("weights") != session.facts.weights
        or facts.get("quantization", {}).get("type") != (session.facts.quantization["type"])
    ):
        raise AdapterError(
            "these virtual tokens were trained with another backbone",
            where=f"shared_from: {run.run}",
            expected=f"{session.source.name}, {session.facts.quantization['type']}",
            found=f"{run.config.get('backbone')}, {facts.get('quantization', {}).get('type')}",
        )
    shared: torch.Tensor = load_file(folder / SHARED)["shared"]
    return shared.float()


def _zero_shot(network: PromptedNetwork, rows: Mapping[str, TaskRows], training: TrainingConfig) -> dict[str, Any]:
    """Score the prompt as it is, without any virtual token, and say it."""
    record = HeldOut(rows, training.evaluation_rows, training.seed).evaluate(network)
    say(f"before any tuning, by the prompt alone: {in_words(record)}")
    found = {}
    for task, of_task in rows.items():
        found[task] = score_splits(network, of_task, unlabelled=False).scores
        metric = of_task.task.metric
        say(f"{task}: by the prompt alone on validation: {metric} {found[task]['validation'][metric]:.3f}")
        found[task]["held_out"] = record["held_out"][task]
    return found


def _enter(
    settings: Settings,
    session: Session,
    name: str,
    folder: Path,
    network: PromptedNetwork,
    rows: Mapping[str, TaskRows],
    texts: Mapping[str, str],
    trained: Trained,
    untuned: Mapping[str, Any],
    frozen: str,
) -> Run:
    """Score what was trained, and write the run."""
    scores, baseline, statistics, tables = score_tasks(network, rows, trained)
    options = settings.prompt
    run = Run(
        run=name,
        path="live",
        tasks=tuple(rows),
        head="label words",
        config=config_record(
            session,
            settings.data,
            settings.tokens,
            settings.training,
            rows,
            prompts={task: of_task.task.answer_prompt for task, of_task in rows.items()},
            label_words={task: of_task.task.label_words for task, of_task in rows.items()},
            prompt_tuning=asdict(options),
        ),
        seed=settings.training.seed,
        features={},
        seconds=round(trained.seconds, 3),
        scores=scores,
        baseline=baseline,
        statistics=statistics,
        selection=selection_record(trained),
        adapter={
            "kind": "prompt",
            "virtual_tokens": {task: len(network.own[task]) for task in rows},
            "shared_virtual_tokens": len(network.shared),
            "shared_frozen": options.freeze_shared,
            "init_text": dict(texts),
            "trained_parameters": sum(parameter.numel() for _, parameter in network.trained()),
            "frozen": frozen,
            "zero_shot": json.loads(json.dumps(untuned)),
        },
    )
    for task in rows:
        (folder / ADAPTERS).mkdir(exist_ok=True)
        save_soft_prompt(
            folder / ADAPTERS / task, network.virtual_tokens(task), network.engine.backbone.model, base=session.base
        )
    if len(network.shared):
        save_file({"shared": network.shared.detach().cpu().contiguous()}, folder / SHARED)
    write_run(folder, run, tables)
    return run
