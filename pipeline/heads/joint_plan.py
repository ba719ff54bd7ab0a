"""What joint heads are trained on: equally wide features of two tasks, and if one is named the head that is frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache import FeatureCache
from pipeline.classifier import StoredClassifier
from pipeline.config import RunsConfig, backbone_slug
from pipeline.digests import sha256_of_labels
from pipeline.errors import ConfigError, HeadError
from pipeline.heads.features import Own, SplitFeatures, cached_views, open_features, side_by_side
from pipeline.heads.fit import TrainingRows
from pipeline.heads.store import JOINT, TENSORS_FILE
from pipeline.heads_config import JointConfig
from pipeline.holdout import hold_out
from pipeline.results.ledger import Run, find_run, read_run
from pipeline.tasks.spec import TaskSpec
from pipeline.views import View, name_views, parse_views


@dataclass(frozen=True)
class TaskFeatures:
    """The features of one task.

    Args:
        task: which.
        views: what its rows are made of, side by side.
        splits: its rows.
    """

    task: TaskSpec
    views: tuple[View, ...]
    splits: Mapping[str, SplitFeatures]

    @property
    def fingerprints(self) -> dict[str, list[str]]:
        """By split, of the feature sets."""
        return {split: list(rows.fingerprints) for split, rows in self.splits.items()}

    @property
    def labels(self) -> dict[str, str | None]:
        """Digests of the labels, by split: no fingerprint tells them."""
        return {split: sha256_of_labels(rows.y) for split, rows in self.splits.items()}

    def training_rows(self, held_out: float, seed: int) -> TrainingRows:
        """The training rows, about a share of them held out.

        Raises:
            HeadError: they are all of one class, or too few to hold some out.
        """
        train = self.splits["train"]
        assert train.y is not None
        fit, held = hold_out(train.texts, train.y, share=held_out, seed=seed)
        return TrainingRows(train.X, train.y, fit, held)


def load_tasks(
    config: JointConfig, cache: FeatureCache, tasks: Sequence[TaskSpec], own: Own
) -> dict[str, TaskFeatures]:
    """Load both tasks' features, equally wide.

    Raises:
        ConfigError: no view is named and the tasks share none, a view has more than one vector a row, or the tasks'
            views are not equally wide.
        FeatureSetNotFound: the cache does not hold a view; the error names the nearest.
        HeadError: training or validation rows have no labels.
    """
    views = _views(config, cache, tasks, own)
    opened = {task.name: open_features(cache, task, views[task.name], config, own.get(task.name, {})) for task in tasks}
    widths = {name: sum(each.hidden_size for each in splits["train"]) for name, splits in opened.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(
            "the tasks' views are not equally wide, and a trunk needs one width",
            where="views",
            expected="as many numbers a row for both tasks",
            found="; ".join(f"{name}: {name_views(views[name])}, {width} numbers" for name, width in widths.items())
            + "\n" + _there(config, cache, tasks, own),
            remedy="name one view for both, or as many side by side for each, with --views",
        )  # fmt: skip
    found = {}
    for task in tasks:
        splits = {split: side_by_side(sets) for split, sets in opened[task.name].items()}
        for split in ("train", "validation"):
            if splits[split].y is None:
                raise HeadError("the rows have no labels", where=f"{task.name}/{split}", expected="a labelled split")
        found[task.name] = TaskFeatures(task, views[task.name], splits)
    return found


def _views(
    config: JointConfig, cache: FeatureCache, tasks: Sequence[TaskSpec], own: Own
) -> dict[str, tuple[View, ...]]:
    if not config.views:
        shared = (_shared_view(config, cache, tasks, own),)
        return {task.name: shared for task in tasks}
    specs = [parse_views(text) for text in config.views] * (2 if len(config.views) == 1 else 1)
    if any(view.pooling == "tokens" for views in specs for view in views):
        raise ConfigError(
            "a head needs one vector a row", where="views", expected="last, mean or first", found="tokens"
        )
    return {task.name: views for task, views in zip(tasks, specs, strict=True)}


def _shared_view(config: JointConfig, cache: FeatureCache, tasks: Sequence[TaskSpec], own: Own) -> View:
    """The first view that both tasks list and the cache holds of both; what both tasks' heads look at goes first."""
    cached = [set(cached_views(cache, task, config, own.get(task.name, {}))) for task in tasks]
    manifests = (m for m in cache.manifests(tasks[0].name, "train") if m.backbone == backbone_slug(config.backbone))
    blocks = int(next(manifests).identity.architecture["num_hidden_layers"])
    for lists in ([task.head_view for task in tasks], [task.views for task in tasks]):
        first, second = ([view.resolved(blocks) for view in views] for views in lists)
        for view in first:
            if view in second and all(view in of_task for of_task in cached):
                return view
    raise ConfigError(
        "the tasks share no view that the cache holds",
        where="views",
        expected="; ".join(
            f"{task.name} lists {', '.join(str(view.resolved(blocks)) for view in task.views)}" for task in tasks
        ),
        found=_there(config, cache, tasks, own),
        remedy="name one with --views, or two of equal width",
    )


def _there(config: JointConfig, cache: FeatureCache, tasks: Sequence[TaskSpec], own: Own) -> str:
    """The views that the cache holds, by task."""
    cached = {task.name: cached_views(cache, task, config, own.get(task.name, {})) for task in tasks}
    return "; ".join(f"the cache holds of {task}: {', '.join(map(str, views))}" for task, views in cached.items())


def read_head_from(config: JointConfig, features: Mapping[str, TaskFeatures], runs: RunsConfig) -> Run | None:
    """The run in `head_from`, if one is named.

    Raises:
        RunError: there is no such run.
        ConfigError: it is no run of a separate head of the task that is frozen, or of other features, another
            width of the trunk or other classes.
        HeadError: its head cannot be read.
    """
    if config.head_from is None:
        return None
    folder = find_run(runs.runs_dir, config.head_from)
    run, task = read_run(folder), config.freeze
    where = f"head_from: {run.run}"
    if run.head != "separate" or run.path != "cached":  # a joint one's trunk has seen the other task's held-out rows
        raise ConfigError(
            "this run did not train a separate head on a trunk",
            where=where,
            expected="a run of pipeline joint that trained this task alone (separate)",
            found=f"path {run.path}, head {run.head}",
        )
    if task not in run.tasks:
        raise ConfigError("this run is of other tasks", where=where, expected=task, found=", ".join(run.tasks))
    head = StoredClassifier.load(path_of_head(folder, run, task))
    wanted = {
        "features": features[task].fingerprints,
        "hidden_size": config.hidden_size,
        "classes": sorted(set(_labels(features[task]))),
    }
    found = {"features": run.features.get(task), "hidden_size": head.network.hidden_size, "classes": head.classes}
    if differ := [name for name in wanted if wanted[name] != found[name]]:
        raise ConfigError(
            f"this run's head is of other {', '.join(differ)}",
            where=where,
            expected="; ".join(f"{name} {wanted[name]}" for name in differ),
            found="; ".join(f"{name} {found[name]}" for name in differ)
            + f" (views {run.config.get('views', {}).get(task)})",
            remedy="name a run with these, or leave --head-from out: the command trains one itself",
        )
    return run


def _labels(features: TaskFeatures) -> list[int]:
    y = features.splits["train"].y
    assert y is not None
    labels: list[int] = y.tolist()
    return labels


def path_of_head(folder: Path, run: Run, task: str) -> Path:
    """The file of a task's head in the folder of a joint or a separate run."""
    return folder / TENSORS_FILE if run.head == "separate" else folder / JOINT / f"{task}.safetensors"
