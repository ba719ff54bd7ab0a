"""`pipeline adapt lora`: adapters and heads trained through the backbone, from the gate to the run's entry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adapters.gate import check_frozen, digest_of_frozen, largest_difference, pass_gate
from pipeline.adapters.lora import put_adapters_on, save_adapters
from pipeline.adapters.lora_plan import LoraPlan, Settings, plan_lora
from pipeline.adapters.network import HeadedNetwork
from pipeline.adapters.resume import finish_run, train_each
from pipeline.adapters.rows import TaskRows
from pipeline.adapters.session import (
    Session,
    config_record,
    score_tasks,
    seeded,
    selection_record,
    tell,
    write_run,
)
from pipeline.adapters.starting_heads import HEADS, HIDDEN_SIZE, starting_head
from pipeline.adapters.steps import StepPlan
from pipeline.adapters.top_layers import LowerStates, skip_blocks, states_before
from pipeline.adapters.training import Group, Trained, Training
from pipeline.backbone.prefill import TOLERANCE, PrefillEngine
from pipeline.classifier import Classifier, StoredClassifier
from pipeline.errors import AdapterError
from pipeline.live_config import LoraOptions, TrainingConfig, with_preset
from pipeline.progress import say
from pipeline.results.entering import new_run, new_run_name
from pipeline.results.ledger import Run
from pipeline.views import View, name_views

ADAPTER = "adapter"
"""The folder of a run with the adapters, as peft saves them."""
CANARIES = 8
AT_STEP_0 = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest relative difference between the adapted backbone at step 0 and the backbone, in the same passes: plain LoRA
has none, and what computes another way (DoRA) a rounding's."""


def adapt_lora(settings: Settings) -> list[Run]:
    """Train LoRA adapters with heads: a run for each task, or one for all of them with `freeze`.

    Raises:
        PipelineError: a setting, the data, the backbone or the cache is at fault; or training diverges.
    """
    lora, training = with_preset(settings.lora, settings.training)
    settings = replace(settings, lora=lora, training=training)
    session = Session.open(settings.backbone)
    plans = plan_lora(settings, session)
    train = partial(_adapt, settings, session)
    return train_each(session.device, settings.runs, settings.training.threads, plans, train)


def _adapt(settings: Settings, session: Session, plan: LoraPlan, folder: Path) -> Run:
    """One run: its tasks share the adapters."""
    lora, training = settings.lora, settings.training
    assert training.batch_size is not None, "it is the preset's"
    with seeded(training.seed):
        network, adapted, about = _begin(settings, session, plan)
        name = new_run_name(*plan.rows, "lora")
        with new_run(settings.runs.runs_dir, name) as run_folder:
            trained = Training(
                network,
                plan.rows,
                StepPlan({n: r.fit for n, r in plan.rows.items()}, training.batch_size, lora.mixing, training.seed),
                training,
                _groups(network, lora, training),
                settled=plan.settled,
                folder=folder,
                label=f"{'+'.join(plan.rows)}, lora",
                log=settings.runs.log,
            ).run()
            check_frozen(about["frozen"], _frozen(network))
            run = _enter(settings, session, plan, name, run_folder, network, trained, about)
            save_adapters(adapted, run_folder / ADAPTER)
            finish_run(run_folder, folder, run)
    tell(run, settings.runs)
    return run


def _begin(settings: Settings, session: Session, plan: LoraPlan) -> tuple[HeadedNetwork, Any, dict[str, Any]]:
    """The network as training begins, peft's model in it, and for the run's record what the gate found, and the digest
    of what must not change.

    Raises:
        AdapterError: the live path does not see what the cache holds, or does not begin as the backbone.
    """
    lora, training = settings.lora, settings.training
    backbone = session.load()
    engine = PrefillEngine(backbone, plan.layers, pack=False)
    plain = HeadedNetwork(engine, {}, token_budget=training.token_budget)
    gates, canaries, heads = {}, {}, {}
    lower: dict[tuple[str, str], LowerStates] = {}
    for name, rows in plan.rows.items():
        views = plan.views[name]
        gates[name] = pass_gate(plain, rows.train, plan.gates[name])
        if plan.begins_at:
            say(f"{name}: live passes begin at layer {plan.begins_at}, from {plan.lower[name, 'train'].manifest.name}")
            before = states_before(engine, [of_split.tokens for of_split in rows.splits.values()], plan.begins_at)
            for split, of_split in rows.splits.items():
                lower[name, split] = LowerStates(plan.lower[name, split], of_split.tokens, before)
        canaries[name] = _canaries(plain, rows, views)
        heads[name] = starting_head(plain, rows, views, lora, plan.warm.get(name))
    skip_blocks(engine.blocks, plan.begins_at)
    network = HeadedNetwork(engine, heads, token_budget=training.token_budget, lower=lower)
    begun = {name: _canaries(network, rows, plan.views[name]) for name, rows in plan.rows.items()}
    _check_same(
        begun,
        canaries,
        TOLERANCE[backbone.dtype],
        "passes that begin at the cached layer give something else than whole ones",
        "check the tokens view (pipeline cache verify --canaries): one that is stored in float16 has too few digits; a "
        "backbone that adds something to what its first block is given (GPT-2) takes --whole-passes",
    )
    if training.gradient_checkpointing:
        engine.keep_inputs_alone()
    adapted = put_adapters_on(backbone, lora, first=plan.first, past=plan.top, base=session.base)
    _check_same(
        {name: _canaries(network, rows, plan.views[name]) for name, rows in plan.rows.items()},
        begun,
        AT_STEP_0[backbone.dtype],
        "the adapted backbone does not begin as the backbone",
        "leave out what changes the beginning (--peft init_lora_weights)",
    )
    for name, head in network.heads.items():
        head.classifier.requires_grad_(name != lora.freeze)
    return network, adapted, {"gate": gates, "frozen": digest_of_frozen(_frozen(network))}


def _frozen(network: HeadedNetwork) -> dict[str, torch.Tensor]:
    """What must not change: the backbone's own weights, under the names that they have without adapters, and heads."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            parts = [part for part in name.split(".") if part not in ("base_layer", "original_module")]
            found[".".join(parts)] = parameter
    return found


def _canaries(network: HeadedNetwork, rows: TaskRows, views: Sequence[View]) -> np.ndarray:
    """What a few training rows give, pooled."""
    return network.pooled_rows(rows.train, rows.fit[:CANARIES], views)


def _check_same(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float, what: str, remedy: str
) -> None:
    for name, of_task in found.items():
        worst = largest_difference(of_task, expected[name])
        if not worst <= tolerance:
            raise AdapterError(
                what,
                where=name,
                expected=f"a relative difference of at most {tolerance:g}",
                found=f"{worst:.3g}",
                remedy=remedy,
            )


def _groups(network: HeadedNetwork, lora: LoraOptions, training: TrainingConfig) -> list[Group]:
    names = [name for name, _ in network.trained()]
    assert training.learning_rate is not None, "it is the preset's"
    groups = [Group(tuple(name for name in names if name.startswith("backbone.")), training.learning_rate)]
    for number, head in enumerate(network.heads.values()):
        of_head = tuple(name for name in names if name.startswith(f"classifiers.{number}."))
        if of_head:
            groups.append(Group(of_head, lora.head_learning_rate or head.classifier.default_learning_rate))
    return groups


def _enter(
    settings: Settings,
    session: Session,
    plan: LoraPlan,
    name: str,
    folder: Path,
    network: HeadedNetwork,
    trained: Trained,
    about: Mapping[str, Any],
) -> Run:
    """Score what was trained, and write the run, adapters aside."""
    scores, baseline, statistics, tables = score_tasks(network, plan.rows, trained)
    lora = settings.lora
    run = Run(
        run=name,
        path="live",
        tasks=tuple(plan.rows),
        head="+".join(dict.fromkeys(_kind(head.classifier) for head in network.heads.values())),
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
        statistics=statistics,
        selection=selection_record(trained),
        adapter={
            "kind": "lora",
            "rank": lora.rank,
            "alpha": lora.alpha,
            "target_modules": list(lora.target_modules),
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


def _kind(classifier: Classifier) -> str:
    return next(kind for kind, hidden_size in HIDDEN_SIZE.items() if bool(hidden_size) == bool(classifier.hidden_size))


def _fingerprints(network: HeadedNetwork) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for (task, split), states in network.lower.items():
        found.setdefault(task, {})[split] = [states.fingerprint]
    return found
