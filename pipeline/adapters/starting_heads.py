"""The heads that live training begins with: a run's on cached features, or ones that predict the classes' shares."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.adapters.network import HeadedNetwork, TaskHead
from pipeline.adapters.rows import TaskRows
from pipeline.adapters.session import Session
from pipeline.cache import FeatureCache
from pipeline.cache.identity import difference_table, differences
from pipeline.classifier import KIND, Classifier, StoredClassifier, stored_kind
from pipeline.config import RunsConfig, TokensConfig, backbone_slug
from pipeline.errors import CacheError, ConfigError
from pipeline.live_config import LoraOptions
from pipeline.progress import say
from pipeline.results.ledger import Run, find_run, read_run
from pipeline.tasks.spec import TaskSpec
from pipeline.views import View, name_views, parse_views

HEADS = "heads"
"""The folder of a live run with one safetensors file a task."""
HIDDEN_SIZE = {"linear": 0, "mlp": 256}
STANDARDISE_ROWS = 1024
"""So many training rows tell the mean and the spread of what a head sees, where no run does."""


def views_of(lora: LoraOptions, task: TaskSpec) -> tuple[View, ...]:
    """The views, as they were written, that a task's head looks at side by side.

    By default they are the task's own; above cached states the last layer, so that adapters sit in the last blocks.

    Raises:
        ConfigError: one of them has more than one vector a row.
    """
    views = task.head_view
    if lora.views or lora.top_layers:
        views = parse_views(lora.views or "L-1-mean")
    if any(view.pooling == "tokens" for view in views):
        raise ConfigError(
            "a head needs one vector a row", where="views", expected="last, mean or first", found="tokens"
        )
    return views


def stored_heads(
    lora: LoraOptions,
    runs: RunsConfig,
    tasks: Sequence[TaskSpec],
    session: Session,
    tokens: TokensConfig,
    cache: FeatureCache,
) -> dict[str, StoredClassifier]:
    """The heads that training begins with, by task: those of the runs in `head_from`.

    What a run on cached features has seen is read from these features' manifests, where they still are.

    Raises:
        ConfigError: a run is of the live path, of other tasks, views or another backbone, or has no head of PyTorch's.
        HeadError: a head cannot be read.
    """
    found: dict[str, StoredClassifier] = {}
    wanted = {task.name: task for task in tasks}
    for name in lora.head_from:
        folder = find_run(runs.runs_dir, name)
        run = read_run(folder)
        where = f"head_from: {run.run}"
        if run.path == "live":
            raise ConfigError(
                "this run's head was trained on what its own adapters gave, and they do not come with it",
                where=where,
                expected="a run of pipeline heads",
                remedy="train one on cached features: pipeline extract, then pipeline heads --heads linear",
            )
        of_tasks = [task for task in run.tasks if task in wanted]
        if not of_tasks:
            raise ConfigError("this run is of other tasks", where=where, expected=" | ".join(wanted), found=run.tasks)
        for task in of_tasks:
            if task in found:
                raise ConfigError("two runs give one task its head", where="head_from", found=task)
            _check_sees_the_same(run, where, task, views_of(lora, wanted[task]), session)
            _check_saw_the_same(run, where, task, tokens, tokens.prompt or wanted[task].prompt, session, cache)
            path = folder / "head.safetensors"
            if not path.is_file() or stored_kind(path) != KIND:  # logreg and others store themselves so, too
                raise ConfigError(
                    "this run has no head of PyTorch's",
                    where=where,
                    expected="a run of a linear or an mlp head",
                    found=run.head,
                    remedy=f"train one: pipeline heads --tasks {task} --heads linear",
                )
            found[task] = StoredClassifier.load(path)
    return found


def _check_sees_the_same(run: Run, where: str, task: str, views: tuple[View, ...], session: Session) -> None:
    """Refuse a head that was trained on something else than it is to see now."""
    blocks = session.facts.num_hidden_layers
    of_run = run.config.get("features")
    if [view.resolved(blocks) for view in parse_views(str(of_run))] != [view.resolved(blocks) for view in views]:
        raise ConfigError(
            "this run's head looks at other views",
            where=where,
            expected=name_views(views),
            found=of_run,
            remedy=f"name these with --views {of_run}, or another run",
        )
    there = (backbone_slug(str(run.config.get("backbone"))), run.config.get("quantization"))
    here = (backbone_slug(session.config.backbone), session.config.quantization)
    if there != here:
        raise ConfigError(
            "this run's head was trained on another backbone or quantisation",
            where=where,
            expected=", ".join(here),
            found=", ".join(map(str, there)),
        )


def _check_saw_the_same(
    run: Run, where: str, task: str, tokens: TokensConfig, prompt: str, session: Session, cache: FeatureCache
) -> None:
    """Refuse a head whose features came from other weights, adapters, another prompt or other special tokens."""
    of_task = run.features.get(task, {})
    fingerprint = next((name for names in of_task.values() for name in names), "")
    try:
        identity = cache.open_folder(fingerprint).manifest.identity
    except (CacheError, ConfigError):
        say(f"{where}: its features are not in the cache: that they came from these weights is not checked")
        return
    wanted = {
        "weights": session.facts.weights,
        "adapter": None,
        "prompt": prompt,
        "special_tokens": tokens.special_tokens,
    }
    found = {name: getattr(identity, name) for name in wanted}
    if differ := differences(wanted, found):
        raise ConfigError(
            "this run's head was trained on what another backbone or prompt gave; it differs in\n"
            + difference_table(differ),
            where=where,
            remedy="train one on these: pipeline extract, then pipeline heads",
        )


def starting_head(
    network: HeadedNetwork, rows: TaskRows, views: tuple[View, ...], lora: LoraOptions, stored: StoredClassifier | None
) -> TaskHead:
    """A task's head at the beginning: a run's, or one that predicts the classes' shares."""
    device = network.engine.backbone.device
    if stored is not None:
        return TaskHead(views, stored.network.to(device), np.asarray(stored.classes))
    y = rows.y[rows.fit]
    classes = np.unique(y)
    some = np.sort(np.random.default_rng(0).permutation(rows.fit)[:STANDARDISE_ROWS])
    X = torch.from_numpy(network.pooled_rows(rows.train, some, views))
    classifier = Classifier(X.shape[1], len(classes), HIDDEN_SIZE[lora.head], 0.1 if lora.head == "mlp" else 0.0)
    classifier.standardise_by(X.mean(dim=0), X.std(dim=0))
    classifier.begin_at_shares(torch.from_numpy(np.searchsorted(classes, y)))
    return TaskHead(views, classifier.eval().to(device), classes)
