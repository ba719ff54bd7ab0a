"""Two tasks' heads on a trunk that both share, one of them frozen or none, held against heads trained separately."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache as remembered
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.cache import FeatureCache
from pipeline.classifier import StoredClassifier
from pipeline.config import CacheConfig, RunsConfig, source_name
from pipeline.heads.entry import feature_costs, inputs_of
from pipeline.heads.features import Own
from pipeline.heads.fit import TrainingRows
from pipeline.heads.joint_plan import TaskFeatures, load_tasks, path_of_head, read_head_from
from pipeline.heads.shared_trunk import Start, TrainedTrunk, train_trunk
from pipeline.heads.store import JOINT, TENSORS_FILE, load_head
from pipeline.heads_config import JointConfig
from pipeline.holdout import digest_of_held_out
from pipeline.progress import say
from pipeline.results.entering import new_run, new_run_name, write_predictions, write_record
from pipeline.results.ledger import Run
from pipeline.results.scored import ScoredSplits
from pipeline.results.sharing import Sharing, compare_sharing
from pipeline.results.trackers import track, tracking
from pipeline.results.trainings import note_done, run_there, state_folders
from pipeline.store_config import record_of
from pipeline.tasks.spec import find_tasks
from pipeline.threads import limited_threads
from pipeline.views import name_views

NEVER_FELL = (
    "the loss on held-out rows never fell, so the weights kept are those that training began with: more rows, another "
    "--learning-rate or more --weight-decay may help"
)


@dataclass(frozen=True)
class Joint:
    """What a command came to.

    Args:
        runs: of every training, separate and joint, in the order in which they were trained.
        comparisons: for each task and whatever was frozen, the joint heads beside the separate ones.
    """

    runs: list[Run]
    comparisons: list[Sharing]


@dataclass(frozen=True)
class _Plan:
    """One training.

    Args:
        tasks: whose heads are on the trunk: one task's is a separate training.
        freeze: of a joint training, whose head is frozen, or `none`; None of a separate one.
        seed: of everything random.
        settled: all that decides what comes out.
    """

    tasks: tuple[str, ...]
    freeze: str | None
    seed: int
    settled: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For people."""
        how = {None: "separate", "none": "joint"}.get(self.freeze, f"joint, {self.freeze}'s head frozen")
        return f"{'+'.join(self.tasks)}, {how}, seed {self.seed}"


@tracking()
def train_joint(config: JointConfig, cache: CacheConfig, runs: RunsConfig, own: Own = MappingProxyType({})) -> Joint:
    """Train joint heads, and for each seed the separate ones that they are held against.

    A separate training is of the same trunk and head on one task alone, with the same seed, settings, held-out rows and
    batches. A joint training with a frozen head begins as the separate training of that task ended: its head, which
    stays as it is to the bit, its standardisation, and the trunk, which goes on training with the other task's new
    head. Where `head_from` names a run, that run stands in the place of the frozen task's separate trainings, and the
    rows that were held out of it are held out again. With no head frozen the trunk begins anew, from the seed.

    Validation is predicted once, at the end of each training, with the heads as they are stored. Where the command was
    stopped and is given again, trainings that were done are not redone.

    Raises:
        PipelineError: a setting is wrong, the features are not there or are damaged, or training diverges.
    """
    tasks = find_tasks(config.tasks, config.task_files)
    features = load_tasks(config, FeatureCache.of(cache), tasks, own)
    head_from = read_head_from(config, features, runs)
    with limited_threads(config.threads):
        command = _Command(config, cache, runs, features, head_from, all(task.name in own for task in tasks))
        plans = command.plans()
        with state_folders(runs, [plan.settled for plan in plans]) as folders:
            done = [command.train(plan, folder) for plan, folder in zip(plans, folders, strict=True)]
        joint = {freeze: [run for run in done if run.selection["freeze"] == freeze] for freeze in config.freezes}
        separate = {name: [command.separate(name, seed) for seed in command.seeds] for name in features}
        metrics = {task.name: task.metric for task in tasks}
        return Joint(done, compare_sharing(runs.runs_dir, joint, separate, metrics))


class _Command:
    """What all trainings of a command share."""

    def __init__(
        self,
        config: JointConfig,
        cache: CacheConfig,
        runs: RunsConfig,
        features: Mapping[str, TaskFeatures],
        head_from: Run | None,
        has_own: bool,
    ) -> None:
        self.config, self.runs, self.features, self.head_from = config, runs, features, head_from
        self.seeds = range(config.seed, config.seed + config.seeds)
        settings = json.loads(json.dumps(asdict(config), default=str))  # paths become text
        self.settings = settings | {
            **record_of(cache),
            "data": config.data if has_own else source_name(config.data),
            "head_from": None if head_from is None else head_from.run,
        }
        # of both tasks, for all trainings: those that are compared stop by one rule
        rows_fit = min(len(each.splits["train"].X) for each in features.values()) * (1 - config.held_out)
        self._looks_every = min(config.evaluation_steps, math.ceil(rows_fit / config.batch_size))
        self._separate: dict[tuple[str, int], Run] = {}
        self._held_out = remembered(lambda task, share, seed: features[task].training_rows(share, seed))

    def plans(self) -> list[_Plan]:
        """All trainings in their order: of each seed, the separate ones first."""
        alone = [name for name in self.features if self.head_from is None or name != self.config.freeze]
        kinds: list[tuple[tuple[str, ...], str | None]] = [((name,), None) for name in alone]
        kinds += [(tuple(self.features), freeze) for freeze in self.config.freezes]
        return [_Plan(*kind, seed, self._settled(*kind, seed)) for seed in self.seeds for kind in kinds]

    def _settled(self, tasks: tuple[str, ...], freeze: str | None, seed: int) -> dict[str, Any]:
        """All that decides what comes out of a training."""
        settings = {name: value for name, value in self.settings.items() if name not in ("threads", "seeds", "freeze")}
        prints = {name: self.features[name].fingerprints for name in tasks}
        labels = {name: self.features[name].labels for name in tasks}
        return {"joint": settings, "tasks": tasks, "freeze": freeze, "seed": seed, "features": prints, "labels": labels}

    def separate(self, task: str, seed: int) -> Run:
        """The run that a joint one is held against."""
        if self.head_from is not None and task == self.config.freeze:
            return self.head_from
        return self._separate[task, seed]

    def train(self, plan: _Plan, folder: Path) -> Run:
        """The run of a training, which is done now if it was not before."""
        run = run_there(folder, self.runs) or self._train(plan, folder)
        for warning in run.selection.get("warnings", ()):
            say(f"warning: {plan.label}: {warning}")
        if plan.freeze is None:
            self._separate[plan.tasks[0], plan.seed] = run
        return run

    def _train(self, plan: _Plan, folder: Path) -> Run:
        rows = {name: self._rows(name, plan) for name in plan.tasks}
        start = None
        if plan.freeze in plan.tasks:
            before = self.separate(plan.freeze, plan.seed)
            path = path_of_head(self.runs.runs_dir / before.run, before, plan.freeze)
            start = Start(plan.freeze, StoredClassifier.load(path))
        trained = train_trunk(
            rows, self.config, seed=plan.seed, label=plan.label, start=start, looks_every=self._looks_every
        )
        run = self._enter(plan, trained, folder)
        last, step = trained.evaluations[-1]["step"], trained.evaluations[trained.best]["step"]
        shown = [f"{task} {run.describe_scores(task, metric)}" for task, metric in self._metrics(plan).items()]
        say(f"{plan.label}: validation {'; '.join(shown)}; weights of step {step} of {last}")
        track(run, self.runs)
        return run

    def _rows(self, task: str, plan: _Plan) -> TrainingRows:
        """A task's rows; where another run's head is frozen, what was held out of that run is held out again."""
        share, seed = self.config.held_out, plan.seed
        if self.head_from is not None and task == plan.freeze:
            share, seed = self.head_from.config["held_out"], self.head_from.seed
        return self._held_out(task, share, seed)

    def _metrics(self, plan: _Plan) -> dict[str, str]:
        return {name: self.features[name].task.metric for name in plan.tasks}

    def _enter(self, plan: _Plan, trained: TrainedTrunk, state: Path) -> Run:
        """Store the heads, predict every split but train with them as they were stored, and enter the run."""
        is_joint = plan.freeze is not None
        frozen = [] if plan.freeze in (None, "none") else [f"{plan.freeze} frozen"]
        name = new_run_name(*plan.tasks, "joint" if is_joint else "separate", *frozen)
        with new_run(self.runs.runs_dir, name) as folder:
            if is_joint:
                (folder / JOINT).mkdir()
            for task, head in trained.heads.items():
                head.save(folder / JOINT / f"{task}.safetensors" if is_joint else folder / TENSORS_FILE)
            scored = {task: self._score(task, plan, folder) for task in plan.tasks}
            features = {task: self.features[task] for task in plan.tasks}
            run = Run(
                run=name,
                path="cached",
                tasks=plan.tasks,
                head="joint" if is_joint else "separate",
                config=self._config(plan),
                seed=plan.seed,
                features={task: each.fingerprints for task, each in features.items()},
                seconds=round(trained.seconds, 3),
                scores={task: {"held_out": trained.held_out[task], **scored[task].scores} for task in plan.tasks},
                baseline={task: scored[task].baseline for task in plan.tasks},
                statistics={task: scored[task].statistics for task in plan.tasks},
                selection=self._selection(plan, trained),
                costs=feature_costs({task: list(each.splits.values()) for task, each in features.items()}),
                inputs={task: inputs_of(each.task, each.splits["train"]) for task, each in features.items()},
            )
            write_predictions(folder, [table for task in plan.tasks for table in scored[task].tables])
            write_record(folder, run)
            note_done(state, run)
        return run

    def _score(self, task: str, plan: _Plan, folder: Path) -> ScoredSplits:
        features, head = self.features[task], load_head(folder, task)
        train = features.splits["train"]
        assert train.y is not None
        scored = ScoredSplits(task, len(features.task.labels), train.y, train.sources)
        scored.statistics["held_out"] = {"texts": digest_of_held_out(train.texts, [self._rows(task, plan).held])}
        for split, rows in features.splits.items():
            if split != "train":
                predictions = np.asarray(head.predict(rows.X), dtype=np.int64)
                probabilities = head.predict_proba(rows.X)
                scored.add(
                    split, rows.sample_ids, rows.texts, rows.y, predictions, probabilities, head.classes_, rows.sources
                )
        return scored

    def _config(self, plan: _Plan) -> dict[str, Any]:
        """The settings of this training alone: with these, a command trains it again."""
        views = {task: name_views(self.features[task].views) for task in plan.tasks}
        metrics = self._metrics(plan)
        return {
            **self.settings,
            "seed": plan.seed,
            "seeds": 1,
            "freeze": plan.freeze,
            "views": views,
            "features": ", ".join(dict.fromkeys(views.values())),
            "metrics": metrics,
            "metric": metrics[plan.tasks[0]],
            "labels": {task: list(self.features[task].task.labels) for task in plan.tasks},
        }

    def _selection(self, plan: _Plan, trained: TrainedTrunk) -> dict[str, Any]:
        before = self.separate(plan.freeze, plan.seed).run if trained.frozen is not None and plan.freeze else None
        return {
            "freeze": plan.freeze,
            "begins_as": before,
            "frozen_head": trained.frozen,
            "step": trained.evaluations[trained.best]["step"],
            "tried": len(trained.evaluations),
            "by": "the mean of the tasks' held-out losses" if len(plan.tasks) > 1 else "the held-out loss",
            "stopped_early": trained.stopped_early,
            "evaluations": list(trained.evaluations),
            "warnings": [] if trained.best else [NEVER_FELL],
        }
