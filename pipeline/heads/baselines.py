"""What a head's score is worth: the same rows predicted by what knows less, each as a run in the ledger."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.cache import FeatureCache, FeatureSet
from pipeline.config import CacheConfig, RunsConfig, source_name
from pipeline.errors import HeadError, PipelineError
from pipeline.heads.blind import draw_labels, majority_head, random_features
from pipeline.heads.candidates import SpecRows
from pipeline.heads.entry import TrainedHead, enter_run
from pipeline.heads.features import Own, SplitFeatures, facts_of, open_features, side_by_side
from pipeline.heads.fit import STRENGTHS, check_views
from pipeline.heads.fused.fit import Told
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.rows import check_features, labelled
from pipeline.heads.selection import Selected, select_each
from pipeline.heads.text_head import select_text_head, text_column
from pipeline.heads_config import BaselinesConfig
from pipeline.holdout import digest_of_held_out, groups_by, hold_outs, whole_texts
from pipeline.progress import TrialsLine, counted, say
from pipeline.results.baselines_table import (
    CONTROL,
    MAJORITY,
    RANDOM,
    TFIDF,
    ZERO_SHOT,
    TaskBaselines,
    baseline_row,
    control_row,
    head_row,
    missing_row,
)
from pipeline.results.ledger import Run
from pipeline.results.trackers import track, tracking
from pipeline.store_config import record_of
from pipeline.tasks.spec import TaskSpec, find_tasks
from pipeline.threads import limited_threads
from pipeline.views import name_views, parse_views

KIND = "logreg"
"""The head that is held against baselines; random features and random labels get the same."""

ZeroShot = Callable[[TaskSpec, FeatureSet, FeatureSet], Run]
"""Asks the LLM itself about the rows of a task's second feature set, validation; the first is of its training rows.
What it says is entered as a run; where it cannot be asked, a PipelineError says why."""


@dataclass(frozen=True)
class Measured:
    """What the baselines of one task came to.

    Args:
        table: the head beside them.
        runs: of all of them, the head's first.
    """

    table: TaskBaselines
    runs: tuple[Run, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object: the table's fields, and the runs' records."""
        return {**self.table.to_dict(), "runs": [run.to_dict() for run in self.runs]}


@dataclass(frozen=True)
class _Plan:
    """A task's rows, and how some of them are held out.

    Args:
        opened: by split, the feature sets, one a view.
        train: what is known of the training rows, which features are not read of.
        y: their labels.
        validation: with features.
        fits: `[n]` bool each, the training rows to fit on, one for each way of holding out.
        counts: `[n]` bool, the texts that no other training text contains.
        drawn: labels of training rows and validation, one pair a draw.
        by: how strengths are chosen, for people.
        held_out_texts: the digest of the rows that they are chosen on.
        settings: for the runs' records.
    """

    task: TaskSpec
    views: str
    opened: Mapping[str, Sequence[FeatureSet]]
    train: SplitFeatures
    y: np.ndarray
    validation: SplitFeatures
    fits: tuple[np.ndarray, ...]
    counts: np.ndarray
    drawn: list[tuple[np.ndarray, np.ndarray]]
    by: str
    held_out_texts: str
    settings: Mapping[str, Any]

    def rows(self, stream: FeatureStream, y: np.ndarray) -> SpecRows:
        """The training rows in a stream's order, labelled `y` `[n]`."""
        order = stream.order
        return SpecRows(stream, y[order], tuple(fit[order] for fit in self.fits), self.counts[order])


@dataclass(frozen=True)
class _Entry:
    """A head to be entered as a run.

    Args:
        trained: it, whose kind is the baseline's name.
        train, validation: the rows as it sees them.
        settings: beyond the command's.
        note: for the table.
    """

    trained: TrainedHead
    train: SplitFeatures
    validation: SplitFeatures
    settings: Mapping[str, Any]
    note: str


@tracking()
def measure_baselines(
    config: BaselinesConfig,
    cache: CacheConfig,
    runs: RunsConfig,
    own: Own = MappingProxyType({}),
    zero_shot: ZeroShot | None = None,
) -> list[Measured]:
    """Train each task's head and its baselines, score each once on validation, and enter each as a run.

    Strengths are chosen on training rows held out, by the mean of the task's metric over several ways of holding out;
    as in a sweep sources are held out together where the data names enough of them, and the texts count that no other
    training text contains. All of a task's heads are fitted before the
    first of them is entered.

    Args:
        own: what one's own files hold, by task and split.
        zero_shot: None leaves it out.

    Raises:
        PipelineError: a setting is wrong, the features are not there or are damaged, or a head cannot be trained.
    """
    features = FeatureCache.of(cache)
    tasks = find_tasks(config.tasks, config.task_files)
    views = [parse_views(text) for text in config.views] or [task.head_view for task in tasks]
    views *= len(tasks) if len(views) == 1 else 1
    for of_task in views:
        check_views(KIND, of_task)
    with limited_threads(config.threads):
        plans = []
        for task, of_task in zip(tasks, views, strict=True):
            opened = open_features(features, task, of_task, config, own.get(task.name, {}))
            data = config.data if task.name in own else source_name(config.data)
            settings = {"features": name_views(of_task), **record_of(cache), "data": data}
            plans.append(_plan(task, opened, config, settings))
        return [_measure(plan, config, runs, zero_shot) for plan in plans]


def _plan(
    task: TaskSpec, opened: Mapping[str, Sequence[FeatureSet]], config: BaselinesConfig, settings: Mapping[str, Any]
) -> _Plan:
    train, validation = facts_of(*opened["train"]), side_by_side(opened["validation"])
    y = labelled(task, train.y)
    if validation.y is None:
        raise HeadError("the validation rows have no labels", where=task.name, expected="a labelled split")
    groups = groups_by(config.group_by, train.texts, train.sources, y, share=config.held_out)
    ways = hold_outs(train.texts, y, share=config.held_out, seed=config.seed, count=config.seeds, groups=groups)
    counts = whole_texts(train.texts)
    fits = tuple(np.isin(np.arange(len(y)), fit, assume_unique=True) for fit, _ in ways)
    return _Plan(
        task=task,
        views=settings["features"],
        opened=opened,
        train=train,
        y=y,
        validation=validation,
        fits=fits,
        counts=counts,
        drawn=[draw_labels(y, len(validation.y), fits, config.seed, draw) for draw in range(config.draws)],
        by=f"mean {task.metric} of whole texts held out, over {counted(config.seeds, 'way')} of holding out "
        + ("sentences" if groups is None else "sources"),
        held_out_texts=digest_of_held_out(train.texts, [held[counts[held]] for _, held in ways]),
        settings=json.loads(json.dumps(asdict(config), default=str)) | {"metric": task.metric, **settings},
    )


def _measure(plan: _Plan, config: BaselinesConfig, runs: RunsConfig, zero_shot: ZeroShot | None) -> Measured:
    metric, folder = plan.task.metric, runs.runs_dir
    head, *others = _fit(plan, config)
    own = _enter(plan, head, runs)
    lines, done, controls = [head_row(own, metric, head.note)], [own], []
    for entry in others:
        run = _enter(plan, entry, runs)
        done.append(run)
        if entry.trained.kind == CONTROL:
            controls.append(run)
        else:
            lines.append(baseline_row(folder, entry.trained.kind, run, own, metric, entry.note))
    lines.append(control_row(folder, controls, own, metric))
    try:
        if zero_shot is None:
            raise PipelineError("it was not asked for")
        done.append(zero_shot(plan.task, plan.opened["train"][0], plan.opened["validation"][0]))
        lines.append(baseline_row(folder, ZERO_SHOT, done[-1], own, metric, " | ".join(plan.task.label_words)))
    except PipelineError as error:
        lines.append(missing_row(ZERO_SHOT, "; ".join(line.strip() for line in str(error).splitlines())))
    return Measured(
        TaskBaselines(plan.task.name, metric, len(plan.validation.X), plan.views, tuple(lines)), tuple(done)
    )


def _fit(plan: _Plan, config: BaselinesConfig) -> list[_Entry]:
    """The task's head, and all baselines that train on what is cached."""
    task, train, validation = plan.task, plan.train, plan.validation
    metric, width = task.metric, validation.X.shape[1]
    strengths = config.strengths or STRENGTHS[KIND]
    heads = len(strengths) * (config.seeds + 1)  # of one set of labels
    many = f"{counted(config.seeds, 'way')} of holding out about {config.held_out:.0%}"
    say(f"{task.name}: {len(plan.y):,} training rows, {many}")
    with TrialsLine(f"{task.name}, baselines", heads * (len(plan.drawn) + 2)) as line:
        stream = FeatureStream.of_feature_sets(plan.opened["train"]).within_memory()
        check_features(stream, f"{task.name}, {plan.views}")
        rows = [plan.rows(stream, y) for y in (plan.y, *(y for y, _ in plan.drawn))]
        head, *controls = select_each(rows, KIND, strengths, metric, _counted(line, plan.views))
        del stream, rows  # random features take as much memory again
        X, X_validation = random_features(train.texts, validation.texts, width, config.seed)
        rows = [plan.rows(FeatureStream.of_matrix(X), plan.y)]
        [random] = select_each(rows, KIND, strengths, metric, _counted(line, RANDOM))
        del X, rows
        line.now("TF-IDF of the texts")
        words = select_text_head(train.texts, plan.y, plan.fits, plan.counts, metric)
    constant = majority_head(plan.y, width)
    commonest = task.labels[int(constant.predict(validation.X[:1])[0])]
    majority = TrainedHead(MAJORITY, constant, {}, {"class": commonest}, None, 0.0, config.seed)
    # what these baselines train on took no pass through the backbone, and new sentences need none either
    blind = replace(train, cost=None, identities=())
    with_words = replace(validation, X=text_column(validation.texts), cost=None)
    return [
        _Entry(_trained(KIND, head, plan), train, validation, {}, f"{KIND}, C={head.C:.3g}"),
        _Entry(majority, blind, replace(validation, cost=None), {"features": ""}, f"always {commonest}"),
        _Entry(
            _trained(TFIDF, words, plan),
            blind,
            with_words,
            {"features": "text"},
            f"words and pairs, C={words.C:.3g}",
        ),
        _Entry(
            _trained(RANDOM, random, plan),
            blind,
            replace(validation, X=X_validation, cost=None),
            {"features": f"random-{width}"},
            f"{KIND}, C={random.C:.3g}",
        ),
        *(
            _Entry(
                # its scores on rows held out are against labels of its own: they would stand among those of heads
                replace(_trained(CONTROL, control, plan), held_out={}, held_out_texts=None),
                replace(train, y=y),
                replace(validation, y=y_validation),
                {"draw": draw},
                "",
            )
            for draw, (control, (y, y_validation)) in enumerate(zip(controls, plan.drawn, strict=True))
        ),
    ]


def _counted(line: TrialsLine, views: str) -> Told:
    """Tells a line of heads that are fitted, and counts them."""
    counted = 0

    def told(kind: str, reads: int, done: int) -> None:
        nonlocal counted
        more, counted = done - counted, done
        line.advance(more)
        line.tell(views, kind, reads, done)

    return told


def _trained(kind: str, selected: Selected, plan: _Plan) -> TrainedHead:
    temperature = selected.head.temperature_
    selection = {
        "tried": selected.tried,
        "by": plan.by,
        "held_out": selected.interval.to_dict(),
        "temperature": temperature,
        "C": selected.C,
    }
    return TrainedHead(
        kind,
        selected.head,
        selected.held_out,
        selection,
        temperature,
        selected.seconds,
        int(plan.settings["seed"]),
        plan.held_out_texts,
    )


def _enter(plan: _Plan, entry: _Entry, runs: RunsConfig) -> Run:
    splits = {"validation": entry.validation}
    run = enter_run(plan.task, entry.trained, entry.train, splits, {**plan.settings, **entry.settings}, runs)
    track(run, runs)
    return run
