"""What `pipeline adapt lora` is to train, settled before anything loads: rows, views, blocks, what the cache holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.adapters.cached import CachedRows
from pipeline.adapters.gate import Gate, digest_of_frozen, find_gate
from pipeline.adapters.lora import check_targets, peft_settings
from pipeline.adapters.rows import TaskRows
from pipeline.adapters.session import Session, deciding, divide, settle
from pipeline.adapters.starting_heads import stored_heads, views_of
from pipeline.backbone.load import without_weights
from pipeline.cache import FeatureCache, FeatureSet
from pipeline.classifier import StoredClassifier
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, RunsConfig, TokensConfig
from pipeline.errors import AdapterError, ConfigError
from pipeline.live_config import LivePathConfig, LoraOptions, TrainingConfig
from pipeline.tasks.spec import Split, TaskSpec, find_tasks
from pipeline.views import View, name_views


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


@dataclass(frozen=True)
class LoraPlan:
    """What one run is to train.

    Args:
        rows: by task.
        prompts: the text around its sentences.
        views: what its head looks at, with non-negative layers.
        first, top: adapters sit in blocks `first` to `top - 1`.
        begins_at: the layer in whose states live passes begin; 0 is at the token ids.
        warm: the heads that training begins with, of tasks that have one.
        gates: by task, what the live path is held against.
        lower: by task and split, the cached states of layer `begins_at`; none where passes begin at the token ids.
        settled: all that decides what comes out.
    """

    rows: Mapping[str, TaskRows]
    prompts: Mapping[str, str]
    views: Mapping[str, tuple[View, ...]]
    first: int
    top: int
    begins_at: int
    warm: Mapping[str, StoredClassifier]
    gates: Mapping[str, Gate | None]
    lower: Mapping[tuple[str, Split], FeatureSet]
    settled: Mapping[str, Any]

    @property
    def layers(self) -> list[int]:
        """All whose states are looked at."""
        return sorted({int(view.layer) for of_task in self.views.values() for view in of_task} | {self.begins_at} - {0})


def plan_lora(settings: Settings, session: Session) -> list[LoraPlan]:
    """The runs to be: one for each task, or one for all of them with `freeze`.

    Raises:
        PipelineError: a setting, the data or the cache is at fault.
    """
    tasks = find_tasks(settings.live.tasks, settings.live.task_files)
    peft_settings(settings.lora)  # before anything is read or loaded
    freeze = settings.lora.freeze
    if freeze not in (None, "none", *(task.name for task in tasks)):
        raise ConfigError(
            "the task whose head is to be frozen is not among the tasks",
            where="freeze",
            expected=" | ".join(["none", *(task.name for task in tasks)]),
            found=freeze,
            remedy="name it with --tasks too",
        )
    cache = FeatureCache.of(settings.cache)
    warm = stored_heads(settings.lora, settings.runs, tasks, session, settings.tokens, cache)
    if freeze not in (None, "none") and freeze not in warm:
        raise ConfigError(
            "a head that is frozen must have learnt something",
            where=f"freeze {freeze}",
            found="no --head-from run of that task",
            remedy=f"train one (pipeline heads --tasks {freeze} --heads linear) and name the run with --head-from",
        )
    _check_gate(settings.lora.gate, cache, tasks)
    return [_plan(settings, session, group, warm, cache) for group in ([tasks] if freeze else [[t] for t in tasks])]


def _plan(
    settings: Settings,
    session: Session,
    tasks: Sequence[TaskSpec],
    warm: Mapping[str, StoredClassifier],
    cache: FeatureCache,
) -> LoraPlan:
    blocks = session.facts.num_hidden_layers
    views = {task.name: tuple(v.resolved(blocks) for v in views_of(settings.lora, task)) for task in tasks}
    top = max(int(view.layer) for of_task in views.values() for view in of_task)
    first = _first_block(settings.lora.top_layers, top, views)
    if (network := without_weights(session.source)) is not None:
        check_targets(network, blocks, settings.lora.target_modules, range(first, top))
    prompts = {task.name: settings.tokens.prompt or task.prompt for task in tasks}
    rows = {
        task.name: divide(session.read(task, settings.data, settings.tokens, prompts[task.name]), settings.training)
        for task in tasks
    }
    begins_at = 0 if settings.lora.whole_passes else first
    place = {"backbone": settings.backbone.backbone, "source": settings.data.source}
    cached = {
        (name, split): CachedRows.of(cache, of_split, session.facts, settings.tokens, prompts[name], **place)
        for name, of_task in rows.items()
        for split, of_split in of_task.splits.items()
    }
    lower = {where: of_split.open_tokens(begins_at) for where, of_split in cached.items()} if begins_at else {}
    settled = settle(
        session,
        rows,
        prompts=prompts,
        views={name: name_views(of_task) for name, of_task in views.items()},
        lora=asdict(settings.lora),
        training=deciding(settings.training),
        heads={name: digest_of_frozen(head.network.state_dict()) for name, head in warm.items() if name in rows},
    )
    for name, head in warm.items():
        if name in rows and (missing := sorted(set(rows[name].y.tolist()) - set(head.classes))):
            raise ConfigError(
                "this head has never seen some of the task's classes",
                where=f"head_from, {name}",
                expected=rows[name].task.labels,
                found=f"no {', '.join(rows[name].task.labels[number] for number in missing)}",
            )
    return LoraPlan(
        rows=rows,
        prompts=prompts,
        views=views,
        first=first,
        top=top,
        begins_at=begins_at,
        warm={name: head for name, head in warm.items() if name in rows},
        gates={name: find_gate(cached[name, "train"], views[name], settings.lora.gate) for name in rows},
        lower=lower,
        settled=settled,
    )


def _check_gate(gate: str, cache: FeatureCache, tasks: Sequence[TaskSpec]) -> None:
    """Refuse a gate by name that is of no task here."""
    if gate in ("auto", "off"):
        return
    found = cache.open_folder(gate).manifest
    if found.task not in {task.name for task in tasks} or found.split != "train":
        raise AdapterError(
            "the feature set for the gate is not of these tasks' training rows",
            where=f"gate: {found.name}",
            expected=" | ".join(f"{task.name}/train" for task in tasks),
            found=f"{found.task}/{found.split}",
        )


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
