"""Stage two: train heads on cached features and enter each as a run."""

import json
import time
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from pipeline.cache import FeatureCache
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig, parse_settings, source_name
from pipeline.errors import HeadError
from pipeline.heads.entry import TrainedHead, enter_run
from pipeline.heads.features import Own, SplitFeatures, load_features
from pipeline.heads.fit import TrainingRows, check_head, check_views, fit_head
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.rows import check_features, labelled
from pipeline.holdout import digest_of_held_out, enough_hold_outs
from pipeline.progress import say
from pipeline.results.ledger import Run
from pipeline.results.trackers import track, tracking
from pipeline.store_config import record_of
from pipeline.tasks.spec import TaskSpec, find_tasks
from pipeline.threads import limited_threads
from pipeline.views import name_views, parse_views

FEW_ROWS = 100
"""Held out, they say little; where a fifth of the training rows is no more, there are no more."""
A_FIFTH = 0.2


@tracking()
def train_heads(
    config: HeadsConfig, cache: CacheConfig, runs: RunsConfig, own: Own = MappingProxyType({})
) -> list[Run]:
    """Train every head of `config` on every view of it, for every task.

    Args:
        own: what the files of one's own hold, where `config.data` names them and they are at hand.

    Raises:
        PipelineError: a setting is wrong, the features are not there or are damaged, or a head cannot be trained.
    """
    with limited_threads(config.threads):
        return _train_heads(config, cache, runs, own)


def _train_heads(config: HeadsConfig, cache: CacheConfig, runs: RunsConfig, own: Own) -> list[Run]:
    tasks = find_tasks(config.tasks, config.task_files)
    params = parse_settings(config.params)
    for kind in config.heads:
        check_head(kind, params)
    views_of = {task.name: dict.fromkeys(map(parse_views, config.views)) or [task.head_view] for task in tasks}
    for views in (views for of_task in views_of.values() for views in of_task):
        for kind in config.heads:
            check_views(kind, views)
    features_cache = FeatureCache.of(cache)
    done = []
    for task in tasks:
        for views in views_of[task.name]:
            features = load_features(features_cache, task, views, config, own.get(task.name, {}))
            if features["validation"].y is None:
                raise HeadError("the validation rows have no labels", where=task.name, expected="a labelled split")
            if isinstance(features["train"].X, np.ndarray):  # tokens are looked at batch by batch
                check_features(FeatureStream.of_matrix(features["train"].X), f"{task.name}, {name_views(views)}")
            rows = _training_rows(task, features["train"], config, len(views))
            for kind in dict.fromkeys(config.heads):
                began = time.monotonic()
                fitted = fit_head(kind, rows, params=params, seed=config.seed)
                seconds = time.monotonic() - began
                settings = json.loads(json.dumps(asdict(config), default=str))  # paths become text
                settings |= {"features": name_views(views), **record_of(cache), "metric": task.metric}
                settings["data"] = config.data if task.name in own else source_name(config.data)
                trained = TrainedHead(
                    kind,
                    fitted.head,
                    fitted.held_out,
                    fitted.selection,
                    fitted.temperature,
                    seconds,
                    config.seed,
                    digest_of_held_out(features["train"].texts, [rows.held]),
                )
                splits = {split: each for split, each in features.items() if split != "train"}
                run = enter_run(task, trained, features["train"], splits, settings, runs)
                say(f"{task.name}: {kind} on {name_views(views)}: {run.describe_scores(task.name)}")
                if weights := fitted.selection.get("weights"):
                    shares = ", ".join(f"{view} {share:.2f}" for view, share in zip(views, weights, strict=True))
                    say(f"{task.name}: {kind} takes of each view: {shares}")
                track(run, runs)
                done.append(run)
    return done


def _training_rows(task: TaskSpec, train: SplitFeatures, config: HeadsConfig, views: int) -> TrainingRows:
    y = labelled(task, train.y)
    (fit, held), *others = enough_hold_outs(train.texts, y, share=config.held_out, seed=config.seed)
    if len(held) < FEW_ROWS and config.held_out < A_FIFTH:
        say(f"{task.name}: note: only {len(held)} rows are held out to select on; --held-out 0.2 takes more")
    return TrainingRows(train.X, y, fit, held, views, tuple(others))
