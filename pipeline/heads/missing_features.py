"""Features that the cache does not hold: what to do about it, down to the command that writes them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import FeatureCache
from pipeline.cache.remote.trouble import shown_url
from pipeline.config import SOURCES, CacheConfig, FeaturesConfig, parse_settings, source_name
from pipeline.errors import DamagedFeatureSet, FeatureSetNotFound, did_you_mean
from pipeline.tasks.spec import TaskSpec
from pipeline.views import View

STAGE_ONE = {
    "max_length": "--max-length",
    "quantization.compute_dtype": "--compute-dtype",
    "storage_dtype": "--storage-dtype",
}
"""Fields of an identity, and the options of stage one that settle them."""


def extract_command(cache: FeatureCache, task: TaskSpec, views: Sequence[View], config: FeaturesConfig) -> str | None:
    """The command of stage one that writes what is asked for, or None where it has no option for a field of it."""
    wanted = parse_settings(config.where)
    if not wanted.keys() <= STAGE_ONE.keys():
        return None
    words = ["pipeline", "extract", "--tasks", task.name]
    for path in config.task_files:
        words += ["--task-files", str(path)]
    for name, default in (("data", None), ("backbone", FeaturesConfig.backbone), ("quantization", "nf4")):
        if (value := getattr(config, name)) != default:
            words += [f"--{name}", value]
    if config.prompt is not None:
        words += ["--prompt", config.prompt]
    if config.adapter is not None:
        words += ["--adapter", "FOLDER"]  # stage two knows its digest alone
    for field, value in wanted.items():
        words += [STAGE_ONE[field], str(value)]
    if cache.cache_dir != CacheConfig().cache_dir:
        words += ["--cache-dir", str(cache.cache_dir)]
    if cache.store is not None:
        words += ["--store", shown_url(cache.store)]
    layers, poolings = ([str(getattr(view, name)) for view in views] for name in ("layer", "pooling"))
    return shlex.join([*words, "--layers", *dict.fromkeys(layers), "--poolings", *dict.fromkeys(poolings)])


def with_remedy(
    error: FeatureSetNotFound, cache: FeatureCache, task: TaskSpec, views: Sequence[View], config: FeaturesConfig
) -> FeatureSetNotFound:
    """The error, with the command that writes what is missing; or with a word on `--data`, where it names nothing."""
    command, what, remedy = extract_command(cache, task, views, config), error.what, error.remedy
    source = source_name(config.data)
    if source == "files" and not Path(config.data).is_dir():
        if not _holds(cache, task, source):
            what = f"{config.data} is neither a source ({' | '.join(SOURCES)}) nor a folder here"
            remedy = did_you_mean(config.data, SOURCES) or "name a source, or the folder of your own files"
    elif command is not None:
        remedy = f"{remedy}. To write them: {command}"
    return FeatureSetNotFound(what, where=error.where, expected=error.expected, found=error.found, remedy=remedy)


def _holds(cache: FeatureCache, task: TaskSpec, source: str) -> bool:
    try:
        return any(manifest.source == source for manifest in cache.manifests(task.name, "train"))
    except DamagedFeatureSet:
        return True  # nobody knows of the damaged one
