"""Measure contenders one by one: features of the sample, the best head on rows held out, scores, costs, LogME."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache import Cost, FeatureCache, FeatureSet, cost_of
from pipeline.cache.identity import flatten
from pipeline.cache.inventory import size_bytes
from pipeline.cache.passes import PASSES, read_passes
from pipeline.choosing.comparison import Comparison, Measured, NotHad, Same
from pipeline.choosing.contender import Contender
from pipeline.choosing.sample import Sample, draw
from pipeline.choosing.stage_one import Request, make_features
from pipeline.choosing_config import BackbonesConfig
from pipeline.config import CacheConfig, DataConfig, RunsConfig
from pipeline.errors import CacheError, PipelineError, RunError
from pipeline.heads.candidates import families_of
from pipeline.heads.features import OwnRows, side_by_side
from pipeline.heads.sweep import sweep
from pipeline.heads_config import SweepConfig
from pipeline.holdout import groups_by, hold_outs
from pipeline.progress import say
from pipeline.results.intervals import Interval
from pipeline.results.ledger import Run
from pipeline.results.logme import logme
from pipeline.results.trackers import tracking
from pipeline.results.trainings import note_done, run_there, state_folders
from pipeline.tasks.examples import Examples
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import Split, TaskSpec, find_tasks
from pipeline.views import View, check_pooling, name_views, parse_views

SPLITS: tuple[Split, ...] = ("train", "validation")
TELLING_APART = ("weights", "tokenizer", "quantization.compute_dtype", "storage_dtype", "max_length")
"""Fields of an identity in which a cache may hold other features of the same rows, backbone and view."""


@tracking()
def compare_backbones(
    contenders: Sequence[Contender], what: BackbonesConfig, data: DataConfig, cache: CacheConfig, runs: RunsConfig
) -> Comparison:
    """Measure every contender on the same rows of every task, one after the other.

    What is in the cache is not computed again. A stopped command that is given again goes on after the last head that
    was selected. A contender that cannot be had leaves the others as they are.

    Raises:
        PipelineError: a setting is wrong, or the rows cannot be read.
    """
    tasks = find_tasks(what.tasks, what.task_files)
    families_of(what.heads, what.seed)  # there are such heads
    samples: list[Sample] = []
    splits: list[Examples] = []
    for task in tasks:
        for examples in read_task(task, data, SPLITS).values():
            rows = what.rows if examples.split == "train" else what.validation_rows
            splits.append(draw(examples, rows, what.seed))
            samples.append(Sample.of_draw(splits[-1], len(examples), what.seed))
            say(str(samples[-1]))
            if examples.split == "train":
                _check_hold_out(splits[-1], what)
    settings = {name: str(value) for name, value in asdict(what).items() if name not in ("threads", "models_dir")}
    stated = [asdict(sample) for sample in samples]
    settled = [
        {"backbones": settings, "samples": stated, "contender": str(contender), "task": task.name}
        for contender in contenders
        for task in tasks
    ]
    measured: list[Measured] = []
    not_had: list[NotHad] = []
    same: list[Same] = []
    seen: dict[str, Contender] = {}
    with state_folders(runs, settled) as folders:
        for place, contender in enumerate(contenders):
            say(f"{contender}: {place + 1} of {len(contenders)}")
            try:
                made = make_features(Request(contender, tuple(splits), data.source, what, cache))
                if twin := seen.get(made[0]["fingerprint"]):
                    say(f"{contender}: the same as {twin}: it is measured once")
                    same.append(Same(contender, twin))
                    continue
                measuring = _Measuring(contender, what, data, cache, runs, tuple(samples), splits)
                found = [
                    measuring.measure(task, [each for each in made if each["task"] == task.name], folder)
                    for task, folder in zip(tasks, folders[place * len(tasks) :], strict=False)
                ]
            except RunError:
                raise  # no contender's fault: nothing that is measured can be kept
            except PipelineError as error:
                say(f"{contender}: not had: {error}")
                not_had.append(NotHad(contender, str(error)))
            else:
                measured += found
                seen[made[0]["fingerprint"]] = contender
    return Comparison(tuple(tasks), tuple(samples), tuple(measured), tuple(not_had), tuple(same))


def _check_hold_out(train: Examples, what: BackbonesConfig) -> None:
    """Refuse a sample of which no rows can be held out, before anything is computed.

    Raises:
        HeadError: it is one.
    """
    y = np.asarray(train.labels)
    groups = groups_by(what.group_by, train.texts, train.sources, y, share=what.held_out)
    hold_outs(train.texts, y, share=what.held_out, seed=what.seed, count=1, groups=groups)


@dataclass(frozen=True)
class _Measuring:
    """A contender whose features are there, and what it is measured on.

    Args:
        splits: the drawn rows; `samples` says which.
    """

    contender: Contender
    what: BackbonesConfig
    data: DataConfig
    cache: CacheConfig
    runs: RunsConfig
    samples: Sequence[Sample]
    splits: Sequence[Examples]

    def measure(self, task: TaskSpec, made: Sequence[Mapping[str, Any]], folder: Path) -> Measured:
        """Select a head for a task, and put together what it gives and costs.

        Args:
            made: a record for each of the task's feature sets.
            folder: where it is noted that this was done.
        """
        features = FeatureCache(self.cache.cache_dir)
        sets = [features.open_folder(f"{task.name}/{each['split']}/{each['name']}") for each in made]
        train = {_view(each): each for each in sets if each.manifest.split == "train"}
        architecture = sets[0].manifest.identity.architecture
        run = run_there(folder, self.runs)
        if run is None or not set(run.features[task.name]["train"]) <= {each.fingerprint for each in train.values()}:
            run = self._select(task, train)
            note_done(folder, run)
        chosen = parse_views(run.config["features"])
        cost = _together([_cost(each for each in sets if each.manifest.split == split) for split in SPLITS])
        kept_bytes = sum(size_bytes(each.folder) for each in sets if _view(each) in chosen)
        return Measured(
            contender=self.contender,
            task=task.name,
            layer=int(chosen[0].layer),
            num_hidden_layers=int(architecture["num_hidden_layers"]),
            run=run,
            score=Interval(**run.statistics[task.name]["validation"]["intervals"][task.metric]),
            held_out=run.scores[task.name]["held_out"][task.metric],
            views=run.config["features"],
            logme=_logmes(train),
            cost=cost,
            bytes_per_thousand=1000 * kept_bytes / cost.rows,
            machines=tuple(sorted({machine for each in sets for machine in _machines(each)})),
        )

    def _select(self, task: TaskSpec, train: Mapping[View, FeatureSet]) -> Run:
        """The best head on held-out training rows, on either view or both, scored on validation once."""
        what = self.what
        identity = flatten(next(iter(train.values())).manifest.identity.to_dict())
        config = SweepConfig(
            tasks=(task.name,),
            task_files=what.task_files,
            backbone=self.contender.backbone,
            quantization=self.contender.quantization,
            data=self.data.data,
            prompt=what.prompt,
            where=tuple(f"{field}={identity[field]}" for field in TELLING_APART),
            views=tuple(map(str, train)),
            side_by_side=len(train),
            heads=what.heads,
            seeds=what.seeds,
            held_out=what.held_out,
            group_by=what.group_by,
            seed=what.seed,
            threads=what.threads,
        )
        samples = [each for each in self.samples if each.task == task.name]
        rows = {each.split: each for each in self.splits if each.task.name == task.name}
        own = {each.split: OwnRows(each.texts, rows[each.split].labels, rows[each.split].origin) for each in samples}
        noted = {"contender": str(self.contender), "sample": [asdict(each) for each in samples]}
        [done] = sweep(config, self.cache, self.runs, {task.name: own}, noted)
        return done.run


def _view(feature_set: FeatureSet) -> View:
    identity = feature_set.manifest.identity
    return View(identity.layer, check_pooling(identity.pooling))


def _logmes(train: Mapping[View, FeatureSet]) -> dict[str, float]:
    """LogME of each view, and of all side by side, as the cache has them."""
    specs = [*((view,) for view in sorted(train)), tuple(sorted(train))]
    found = {}
    for views in specs:
        rows = side_by_side([train[view] for view in views])
        assert rows.y is not None
        found[name_views(views)] = logme(rows.X, rows.y)
    return found


def _cost(sets: Iterable[FeatureSet]) -> Cost:
    """What one split's views cost.

    Raises:
        CacheError: their logs do not tell.
    """
    of_split = list(sets)
    cost = cost_of(of_split)
    if cost is None:
        raise CacheError(
            "nobody noted how long these features took",
            where=of_split[0].folder,
            expected=f"{PASSES}, with a line for each shard",
            remedy="pipeline cache rm removes them; the same command computes them again",
        )
    return cost


def _together(costs: Sequence[Cost]) -> Cost:
    """The cost of several splits."""

    def known(name: str) -> list[Any]:
        return [value for cost in costs if (value := getattr(cost, name)) is not None]

    processor = known("processor_seconds")
    return Cost(
        backbone_seconds=sum(known("backbone_seconds")),
        seconds=sum(known("seconds")),
        devices=tuple(sorted({device for cost in costs for device in cost.devices})),
        passes="",
        rows=sum(known("rows")),
        processor_seconds=sum(processor) if len(processor) == len(costs) else None,
        peak_memory_bytes=max(known("peak_memory_bytes"), default=None),
        weights_bytes=max(known("weights_bytes"), default=None),
    )


def _machines(feature_set: FeatureSet) -> set[str]:
    """Where a feature set was computed: seconds of different places do not compare."""
    records = read_passes(feature_set.folder)
    return {f"{each.get('host')}, {each.get('device')}, threads {each.get('threads')}" for each in records}
