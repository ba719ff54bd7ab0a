"""`pipeline adapt lora`: adapters and heads trained through the backbone, from the gate to the run's entry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adapters.cached import lower_states, wanted_identity
from pipeline.adapters.gate import digest_of_frozen, largest_difference, pass_gate
from pipeline.adapters.lora import put_adapters_on, save_adapters
from pipeline.adapters.network import HeadedNetwork
from pipeline.adapters.rows import TaskRows
from pipeline.adapters.session import (
    Session,
    config_record,
    deciding,
    divide,
    score_tasks,
    seeded,
    selection_record,
    settle,
    state_folder,
    tell,
    write_run,
)
from pipeline.adapters.starting_heads import HEADS, starting_head, stored_heads, views_of
from pipeline.adapters.steps import StepPlan
from pipeline.adapters.top_layers import LowerStates, skip_blocks
from pipeline.adapters.training import Group, Trained, Training
from pipeline.backbone.kernels import exact_float32
from pipeline.backbone.prefill import TOLERANCE, PrefillEngine
from pipeline.cache import FeatureCache
from pipeline.classifier import StoredClassifier
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, RunsConfig, TokensConfig
from pipeline.errors import AdapterError, ConfigError
from pipeline.live_config import LivePathConfig, LoraOptions, TrainingConfig
from pipeline.results.ledger import Run, new_run, new_run_name
from pipeline.tasks.spec import TaskSpec, find_tasks
from pipeline.threads import limited_threads
from pipeline.views import View, name_views

ADAPTER = "adapter"
"""The folder of a run with the adapters, as peft saves them."""
CANARIES = 8


@dataclass(frozen=True)
class Settings:
    """All settings of `pipeline adapt lora`."""

    live: LivePathConfig
    lora: LoraOptions
    training: TrainingConfig
    data: DataConfig
    backbone: BackboneConfig
    tokens: TokensConfig
    cache: CacheConfig
    runs: RunsConfig


def adapt_lora(settings: Settings) -> list[Run]:
    """Train LoRA adapters with heads: a run for each task, or one for all of them with `freeze`.

    Raises:
        PipelineError: a setting, the data, the backbone or the cache is at fault; or training diverges.
    """
    tasks = find_tasks(settings.live.tasks, settings.live.task_files)
    freeze = settings.lora.freeze
    if freeze not in (None, "none", *(task.name for task in tasks)):
        raise ConfigError(
            "the task whose head is to be frozen is not among the tasks",
            where="freeze",
            expected=" | ".join(["none", *(task.name for task in tasks)]),
            found=freeze,
            remedy="name it with --tasks too",
        )
    session = Session.open(settings.backbone)
    warm = stored_heads(settings.lora, settings.runs, tasks, session)
    if freeze not in (None, "none") and freeze not in warm:
        raise ConfigError(
            "a head that is frozen must have learnt something",
            where=f"freeze {freeze}",
            found="no --head-from run of that task",
            remedy=f"train one (pipeline heads --tasks {freeze} --heads linear) and name the run with --head-from",
        )
    together = [tasks] if freeze else [[task] for task in tasks]
    with limited_threads(settings.training.threads), exact_float32(session.device):
        return [_adapt(settings, session, group, warm) for group in together]


@dataclass(frozen=True)
class _Plan:
    """What one run is to train.

    Args:
        rows: by task.
        prompts: the text around its sentences.
        views: what its head looks at, with non-negative layers.
        first, top: adapters sit in blocks `first` to `top - 1`.
        begins_at: the layer in whose states live passes begin; 0 is at the token ids.
        warm: the heads that training begins with, of tasks that have one.
    """

    rows: Mapping[str, TaskRows]
    prompts: Mapping[str, str]
    views: Mapping[str, tuple[View, ...]]
    first: int
    top: int
    begins_at: int
    warm: Mapping[str, StoredClassifier]

    @property
    def layers(self) -> list[int]:
        """All whose states are looked at."""
        return sorted({int(view.layer) for of_task in self.views.values() for view in of_task} | {self.begins_at} - {0})


def _adapt(
    settings: Settings, session: Session, tasks: Sequence[TaskSpec], warm: Mapping[str, StoredClassifier]
) -> Run:
    """One run: its tasks share the adapters."""
    lora, training = settings.lora, settings.training
    plan = _make_plan(settings, session, tasks, warm)
    settled = settle(
        session,
        plan.rows,
        prompts=plan.prompts,
        views={name: name_views(views) for name, views in plan.views.items()},
        lora=asdict(lora),
        training=deciding(training),
        heads={name: digest_of_frozen(head.network.state_dict()) for name, head in warm.items()},
    )
    with seeded(training.seed), state_folder(settings.runs, settled) as folder:
        network, adapted, gates = _begin(settings, session, plan)
        frozen = {name: value for name, value in network.named_parameters() if not value.requires_grad}
        before = digest_of_frozen(frozen)
        name = new_run_name(*plan.rows, "lora")
        with new_run(settings.runs.runs_dir, name) as run_folder:
            trained = Training(
                network,
                plan.rows,
                StepPlan({n: r.fit for n, r in plan.rows.items()}, training.batch_size, lora.mixing, training.seed),
                training,
                _groups(network, lora, training),
                settled=settled,
                folder=folder,
                label=f"{'+'.join(plan.rows)}, lora",
                logs=run_folder / "tensorboard" if training.log == "tensorboard" else None,
            ).run()
            if digest_of_frozen(frozen) != before:
                raise AssertionError("frozen weights changed")
            about = {"frozen": before, "gate": gates}
            run = _enter(settings, session, plan, name, run_folder, network, trained, about)
            save_adapters(adapted, run_folder / ADAPTER)
    tell(run)
    return run


def _make_plan(
    settings: Settings, session: Session, tasks: Sequence[TaskSpec], warm: Mapping[str, StoredClassifier]
) -> _Plan:
    blocks = session.facts.num_hidden_layers
    views = {task.name: tuple(v.resolved(blocks) for v in views_of(settings.lora, task)) for task in tasks}
    top = max(int(view.layer) for of_task in views.values() for view in of_task)
    first = _first_block(settings.lora.top_layers, top, views)
    prompts = {task.name: settings.tokens.prompt or task.prompt for task in tasks}
    rows = {
        task.name: divide(session.read(task, settings.data, settings.tokens, prompts[task.name]), settings.training)
        for task in tasks
    }
    begins_at = 0 if settings.lora.whole_passes else first
    return _Plan(
        rows, prompts, views, first, top, begins_at, {name: head for name, head in warm.items() if name in rows}
    )


def _begin(settings: Settings, session: Session, plan: _Plan) -> tuple[HeadedNetwork, Any, dict[str, Any]]:
    """The network as training begins, peft's model in it, and what the gate found.

    Raises:
        AdapterError: the live path does not see what the cache holds, or does not begin as the backbone.
    """
    lora, training = settings.lora, settings.training
    cache = FeatureCache(settings.cache.cache_dir)
    place = {"backbone": settings.backbone.backbone, "source": settings.data.source}
    backbone = session.load()
    engine = PrefillEngine(backbone, plan.layers, pack=False)
    plain = HeadedNetwork(engine, {}, token_budget=training.token_budget)
    gates, canaries, heads = {}, {}, {}
    lower: dict[tuple[str, str], LowerStates] = {}
    for name, rows in plan.rows.items():
        wanted = partial(wanted_identity, session.facts, settings.tokens, plan.prompts[name])
        views = plan.views[name]
        gates[name] = pass_gate(
            plain, rows.train, views, gate=settings.live.gate, cache=cache, wanted=wanted(rows.train), **place
        )
        if plan.begins_at:
            of_splits = lower_states(cache, rows, plan.begins_at, engine, wanted, **place)
            lower |= {(name, split): states for split, states in of_splits.items()}
        canaries[name] = _canaries(plain, rows, views)
        heads[name] = starting_head(plain, rows, views, lora, plan.warm.get(name))
    skip_blocks(engine.blocks, plan.begins_at)
    network = HeadedNetwork(engine, heads, token_budget=training.token_budget, lower=lower)
    _check_same(network, plan, canaries, "passes that begin at the cached layer give something else than whole ones")
    if training.gradient_checkpointing:
        engine.keep_inputs_alone()
    adapted = put_adapters_on(backbone, lora, first=plan.first, past=plan.top, base=session.base)
    _check_same(network, plan, canaries, "the adapted backbone does not begin as the backbone")
    for name, head in network.heads.items():
        head.classifier.requires_grad_(name != lora.freeze)
    return network, adapted, gates


def _first_block(top_layers: int, top: int, views: Mapping[str, Sequence[View]]) -> int:
    """In which block live passes begin."""
    if not top_layers:
        return 0
    if top_layers > top:
        raise ConfigError(
            "there are not so many blocks below the highest view",
            where="top_layers",
            expected=f"1 to {top}",
            found=top_layers,
        )
    first = top - top_layers
    if below := sorted({str(view) for of_task in views.values() for view in of_task if view.layer < first}):
        raise ConfigError(
            "a view lies below the layer where live passes begin",
            where="top_layers",
            expected=f"views of layers {first} to {top}",
            found=", ".join(below),
            remedy="raise --top-layers, or name other --views",
        )
    return first


def _canaries(network: HeadedNetwork, rows: TaskRows, views: Sequence[View]) -> np.ndarray:
    """What a few training rows give, pooled."""
    return network.pooled_rows(rows.train, rows.fit[:CANARIES], views)


def _check_same(network: HeadedNetwork, plan: _Plan, expected: Mapping[str, np.ndarray], what: str) -> None:
    tolerance = TOLERANCE[network.engine.backbone.dtype]
    for name, rows in plan.rows.items():
        worst = largest_difference(_canaries(network, rows, plan.views[name]), expected[name])
        if not worst <= tolerance:
            raise AdapterError(
                what,
                where=name,
                expected=f"a relative difference of at most {tolerance:g}",
                found=f"{worst:.3g}",
                remedy="leave out what changes the beginning (--peft init_lora_weights, --top-layers)",
            )


def _groups(network: HeadedNetwork, lora: LoraOptions, training: TrainingConfig) -> list[Group]:
    names = [name for name, _ in network.trained()]
    rate = training.learning_rate or lora.resolved.learning_rate
    groups = [Group(tuple(name for name in names if name.startswith("backbone.")), rate)]
    for task, head in network.heads.items():
        of_head = tuple(name for name in names if name.startswith(f"classifiers.{task}."))
        if of_head:
            groups.append(Group(of_head, lora.head_learning_rate or head.classifier.default_learning_rate))
    return groups


def _enter(
    settings: Settings,
    session: Session,
    plan: _Plan,
    name: str,
    folder: Path,
    network: HeadedNetwork,
    trained: Trained,
    about: Mapping[str, Any],
) -> Run:
    """Score what was trained, and write the run, adapters aside."""
    scores, baseline, tables = score_tasks(network, plan.rows, trained)
    lora = settings.lora
    run = Run(
        run=name,
        path="live",
        tasks=tuple(plan.rows),
        head=lora.head,
        config=config_record(
            session,
            settings.data,
            settings.tokens,
            settings.training,
            plan.rows,
            prompts=plan.prompts,
            features=" | ".join(dict.fromkeys(map(name_views, plan.views.values()))),
            views={task: name_views(views) for task, views in plan.views.items()},
            lora=asdict(lora),
        ),
        seed=settings.training.seed,
        features=_fingerprints(network),
        seconds=round(trained.seconds, 3),
        scores=scores,
        baseline=baseline,
        selection=selection_record(trained),
        adapter={
            "kind": "lora",
            "rank": lora.resolved.rank,
            "alpha": lora.resolved.alpha,
            "target_modules": list(lora.resolved.target_modules),
            "blocks": [plan.first, plan.top],
            "begins_at": plan.begins_at,
            "trained_parameters": sum(parameter.numel() for _, parameter in network.trained()),
            "heads": {task: digest_of_frozen(head.classifier.state_dict()) for task, head in network.heads.items()},
            **about,
        },
    )
    (folder / HEADS).mkdir()
    for task, head in network.heads.items():
        params = {"hidden_size": head.classifier.hidden_size, "random_state": settings.training.seed}
        StoredClassifier(head.classifier, head.classes.tolist(), params).save(folder / HEADS / f"{task}.safetensors")
    write_run(folder, run, tables)
    return run


def _fingerprints(network: HeadedNetwork) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for (task, split), states in network.lower.items():
        found.setdefault(task, {})[split] = [states.fingerprint]
    return found
