"""Many heads on many views, trained together; the best on rows held out is trained on all rows, and it alone scored."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.cache import FeatureCache
from pipeline.config import CacheConfig, RunsConfig, source_name
from pipeline.digests import sha256_of_labels
from pipeline.engine_config import EngineConfig
from pipeline.errors import HeadError
from pipeline.heads.candidates import Family, Stacked, families_of
from pipeline.heads.entry import TrainedHead, enter_run
from pipeline.heads.features import Opened, Own, cached_views, check_same_rows, facts_of, open_features, side_by_side
from pipeline.heads.fit import check_views
from pipeline.heads.fused.fit import Candidate, check_width
from pipeline.heads.rows import labelled
from pipeline.heads.trying import Attempt, TrainRows, Tried, Try, try_here
from pipeline.heads_config import SweepConfig
from pipeline.holdout import digest_of_held_out, groups_by, hold_outs, whole_texts
from pipeline.progress import TrialsLine, counted, say
from pipeline.results.ledger import Run
from pipeline.results.trackers import track, tracking
from pipeline.results.trainings import note_done, run_there, state_folders
from pipeline.results.trials import TRIALS, Standing, leaderboard, read_trials, write_trials
from pipeline.store_config import record_of
from pipeline.tasks.spec import TaskSpec, find_tasks
from pipeline.threads import limited_threads
from pipeline.views import View, name_views, parse_views

APART = 0.1
"""Of the depth: how far from each other views of one pooling are that a sweep puts side by side."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep of one task came to.

    Args:
        run: the selected head's.
        standings: everything that was tried, the best first.
        trials: one row a candidate and way of holding out.
    """

    run: Run
    standings: list[Standing]
    trials: pa.Table


@dataclass(frozen=True)
class _Plan:
    """What decides a task's sweep.

    Args:
        singles: the specs of views that are tried first.
        opened: the first of them, whose rows are everyone's.
        depth: of the backbone, in blocks.
        prints: the fingerprints of each of them, by split.
        groups: `[n]` of training rows that are held out together; None is by sentence.
        settings: for the run's record.
    """

    task: TaskSpec
    singles: list[tuple[View, ...]]
    opened: Opened
    depth: int
    prints: dict[str, dict[str, list[str]]]
    groups: np.ndarray | None
    settings: dict[str, Any]

    @property
    def settled(self) -> dict[str, Any]:
        """All that decides what comes out."""
        labels = {split: sha256_of_labels(sets[0].y) for split, sets in self.opened.items()}
        settings = {name: value for name, value in self.settings.items() if name not in ("threads", "show")}
        return {"sweep": settings, "task": self.task.name, "features": self.prints, "labels": labels}

    def attempt(self, views: tuple[View, ...], heads: Iterable[str]) -> Attempt:
        """Some heads on views of which each is in one of the singles."""
        return Attempt(views, tuple(self._print_of[view] for view in views), tuple(heads))

    @cached_property
    def _print_of(self) -> dict[View, str]:
        """The fingerprint of each view's training rows."""
        of_specs = [zip(spec, self.prints[name_views(spec)]["train"], strict=True) for spec in self.singles]
        return dict(chain.from_iterable(of_specs))


@tracking()
def sweep(
    config: SweepConfig,
    cache: CacheConfig,
    runs: RunsConfig,
    own: Own = MappingProxyType({}),
    noted: Mapping[str, Any] = MappingProxyType({}),
    engine: EngineConfig = EngineConfig(),
) -> list[Sweep]:
    """Try every head of `config` on every view of it, for every task; enter the best of each task as a run.

    Validation is looked at once, for the selected head. Where the command was stopped and is given again, it goes on
    after the specs of views that were done, on whatever engine.

    Args:
        noted: what else the config of the runs says, such as how their rows were drawn.

    Raises:
        PipelineError: a setting is wrong, the features are not there or are damaged, or a head cannot be trained.
    """
    families = families_of(config.heads, config.seed)
    features = FeatureCache.of(cache)
    tasks = find_tasks(config.tasks, config.task_files)
    with limited_threads(config.threads), _trying(engine, cache, features, config.threads) as try_all:
        plans = [_plan(task, config, cache, features, own, noted) for task in tasks]
        with state_folders(runs, [plan.settled for plan in plans]) as folders:
            return [
                _found_before(folder, runs, plan.task)
                or _sweep(plan, config, families, features, folder, runs, own, try_all)
                for plan, folder in zip(plans, folders, strict=True)
            ]


@contextmanager
def _trying(engine: EngineConfig, cache: CacheConfig, features: FeatureCache, threads: int) -> Iterator[Try]:
    """Within, what makes attempts is at hand."""
    if engine.engine == "ray":
        from pipeline.heads.on_ray import on_ray

        with on_ray(engine, cache, threads) as try_all:
            yield try_all
    else:
        yield partial(try_here, features=features)


def _plan(
    task: TaskSpec,
    config: SweepConfig,
    cache: CacheConfig,
    features: FeatureCache,
    own: Own,
    noted: Mapping[str, Any],
) -> _Plan:
    of_task = own.get(task.name, {})
    specs: list[tuple[View, ...]] = []
    for text in config.views:
        if text != "all":
            for kind in config.heads:
                check_views(kind, parse_views(text))
        specs += (
            [(view,) for view in cached_views(features, task, config, of_task)]
            if text == "all"
            else [parse_views(text)]
        )
    opened = open_features(features, task, specs[0], config, of_task)
    layers = int(opened["train"][0].manifest.identity.architecture["num_hidden_layers"])
    specs = list(dict.fromkeys(tuple(sorted({view.resolved(layers) for view in spec})) for spec in specs))
    width = opened["train"][0].hidden_size
    check_width(config.heads, width * max(map(len, specs)))
    prints = {}
    for spec in specs:
        of_spec = open_features(features, task, spec, config, of_task)
        for split, sets in of_spec.items():
            check_same_rows([*opened.get(split, []), *sets])
        prints[name_views(spec)] = _prints(of_spec)
    train = facts_of(opened["train"][0])
    y = labelled(task, train.y)
    groups = groups_by(config.group_by, train.texts, train.sources, y, share=config.held_out)
    if opened["validation"][0].y is None:
        raise HeadError("the validation rows have no labels", where=task.name, expected="a labelled split")
    settings = json.loads(json.dumps(asdict(config), default=str))  # paths become text
    settings |= {**noted, **record_of(cache), "metric": task.metric}
    settings["data"] = config.data if task.name in own else source_name(config.data)
    return _Plan(task, specs, opened, layers, prints, groups, settings)


def _prints(opened: Opened) -> dict[str, list[str]]:
    return {split: [each.fingerprint for each in sets] for split, sets in opened.items()}


def _found_before(folder: Path, runs: RunsConfig, task: TaskSpec) -> Sweep | None:
    run = run_there(folder, runs)
    if run is None:
        return None
    trials = read_trials(runs.runs_dir / run.run / TRIALS)
    return Sweep(run, leaderboard(trials, task.metric), trials)


def _sweep(
    plan: _Plan,
    config: SweepConfig,
    families: Mapping[str, Family],
    features: FeatureCache,
    folder: Path,
    runs: RunsConfig,
    own: Own,
    try_all: Try,
) -> Sweep:
    began = time.monotonic()
    task = plan.task
    rows, scored = _rows(plan, config, own)
    slow = {kind: family for kind, family in families.items() if isinstance(family, Stacked)}
    first = {kind: family for kind, family in families.items() if kind not in slow} or families
    with TrialsLine(f"{task.name}, sweep", _most_heads(plan, config, first, slow)) as line:
        tried = Tried(rows, folder, try_all, line)
        tried.add([plan.attempt(views, first) for views in plan.singles])
        tried.add([plan.attempt(views, first) for views in _side_by_side(plan, config, tried.trials)])
        if slow and first is not families:
            best_first = dict.fromkeys(each.views for each in leaderboard(tried.trials, task.metric))
            tried.add([plan.attempt(parse_views(name), slow) for name in list(best_first)[: config.finalists]])
        trials = tried.trials
        standings = leaderboard(trials, task.metric)
        line.now("training the selected head on all rows")
        best = standings[0]
        selected = rows.on(plan.attempt(parse_views(best.views), [best.head]), features)
        head = families[best.head].fit(selected, Candidate(best.head, best.strength))
    seconds = time.monotonic() - began
    run = _enter(plan, config, features, own, standings, trials, head, scored, seconds, folder, runs)
    track(run, runs)
    return Sweep(run, standings, trials)


def _rows(plan: _Plan, config: SweepConfig, own: Own) -> tuple[TrainRows, str]:
    """The training rows, held out in ways; and the digest of what is scored."""
    task, train = plan.task, facts_of(plan.opened["train"][0])
    y = train.y
    assert y is not None
    many = f"{counted(config.seeds, 'way')} of holding out about {config.held_out:.0%}"
    say(f"{task.name}: {len(y):,} training rows, {many}")
    ways = hold_outs(train.texts, y, share=config.held_out, seed=config.seed, count=config.seeds, groups=plan.groups)
    masks = tuple(np.isin(np.arange(len(y)), fit, assume_unique=True) for fit, _ in ways)
    counts = whole_texts(train.texts) if config.score_on == "whole" else np.ones(len(y), dtype=bool)
    scored = digest_of_held_out(train.texts, [held[counts[held]] for _, held in ways])
    return TrainRows(task, config, own.get(task.name, {}), y, masks, counts), scored


def _most_heads(plan: _Plan, config: SweepConfig, first: Mapping[str, Family], slow: Mapping[str, Family]) -> int:
    """How many heads there are to fit, at most."""

    def count(families: Mapping[str, Family]) -> int:
        return sum(len(family.candidates(kind, config.strengths)) for kind, family in families.items())

    specs = len(plan.singles) + max(config.side_by_side - 1, 0)
    finals = min(config.finalists, specs) if any(kind not in first for kind in slow) else 0
    return (specs * count(first) + finals * count(slow)) * config.seeds


def _side_by_side(plan: _Plan, config: SweepConfig, trials: pa.Table) -> Iterator[tuple[View, ...]]:
    """The best of the single views together: two of them, three, and so on."""
    if config.side_by_side < 2:
        return
    best_first = dict.fromkeys(each.views for each in leaderboard(trials, plan.task.metric))
    width = plan.opened["train"][0].hidden_size
    singles = [parse_views(name)[0] for name in best_first if "+" not in name]
    chosen: list[View] = []
    for view in islice(far_apart(singles, max(2, round(APART * plan.depth))), config.side_by_side):
        chosen.append(view)
        try:
            check_width(config.heads, width * len(chosen))
        except HeadError as error:
            many = len(chosen) - 1
            say(f"note: no more than {many} view{'s' if many > 1 else ''} side by side: {error}")
            return
        together = tuple(sorted(chosen))
        if len(chosen) > 1 and together not in plan.singles:
            yield together


def far_apart(views: Iterable[View], apart: int) -> Iterator[View]:
    """Views in their order, less those whose neighbour, which says nearly the same, came before.

    Args:
        apart: how many layers lie, at least, between two of one pooling.
    """
    chosen: list[View] = []
    for view in views:
        if all(each.pooling != view.pooling or abs(each.layer - view.layer) >= apart for each in chosen):
            chosen.append(view)
            yield view


def _enter(
    plan: _Plan,
    config: SweepConfig,
    features: FeatureCache,
    own: Own,
    standings: Sequence[Standing],
    trials: pa.Table,
    head: Any,
    held_out_texts: str,
    seconds: float,
    folder: Path,
    runs: RunsConfig,
) -> Run:
    """Score the selected head on validation, for the first and only time."""
    best, task = standings[0], plan.task
    opened = open_features(features, task, parse_views(best.views), config, own.get(task.name, {}))
    temperature = getattr(head, "temperature_", None)
    selection = {
        "tried": len(standings),
        "trials": trials.num_rows,
        "views": len({each.views for each in standings}),
        "by": f"mean {task.metric} of {'whole texts' if config.score_on == 'whole' else 'rows'} held out, "
        f"over {counted(config.seeds, 'way')} of holding out {'sentences' if plan.groups is None else 'sources'}",
        "held_out": best.held_out.interval.to_dict(),
        "temperature": temperature,
    }
    if best.setting is not None:
        selection[best.setting] = best.strength
    trained = TrainedHead(best.head, head, best.scores, selection, temperature, seconds, config.seed, held_out_texts)

    def also(run_folder: Path, run: Run) -> None:
        write_trials(run_folder / TRIALS, trials)
        note_done(folder, run)

    splits = {split: side_by_side(sets) for split, sets in opened.items() if split != "train"}
    train = facts_of(*opened["train"])
    return enter_run(task, trained, train, splits, plan.settings | {"features": best.views}, runs, also)
