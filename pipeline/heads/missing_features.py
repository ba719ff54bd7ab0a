"""Features that the cache does not hold: what to do about it, down to the command that writes them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import FeatureCache
from pipeline.cache.manifest import Manifest
from pipeline.cache.remote.trouble import shown_url
from pipeline.config import CATALOGUE, SOURCES, CacheConfig, FeaturesConfig, backbone_slug, parse_settings, source_name
from pipeline.errors import ConfigError, DamagedFeatureSet, FeatureSetNotFound, did_you_mean
from pipeline.tasks.spec import TaskSpec
from pipeline.views import View

STAGE_ONE = {
    "max_length": "--max-length",
    "quantization.compute_dtype": "--compute-dtype",
    "storage_dtype": "--storage-dtype",
}
"""Fields of an identity, and the options of stage one that settle them."""


def extract_command(
    cache: FeatureCache, task: TaskSpec, views: Sequence[View], config: FeaturesConfig, *, stream: bool = False
) -> str | None:
    """The command of stage one that writes what is asked for, or None where it has no option for a field of it.

    Args:
        stream: whether the rows are known by the files they are streamed from.
    """
    wanted = parse_settings(config.where)
    if not wanted.keys() <= STAGE_ONE.keys():
        return None
    words = ["pipeline", "extract", "--tasks", task.name]
    for path in config.task_files:
        words += ["--task-files", str(path)]
    for name, default in (("data", None), ("backbone", FeaturesConfig.backbone), ("quantization", "nf4")):
        if (value := getattr(config, name)) != default:
            words += [f"--{name}", value]
    words += ["--stream"] if stream else []
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
    error: FeatureSetNotFound,
    cache: FeatureCache,
    task: TaskSpec,
    views: Sequence[View],
    config: FeaturesConfig,
    *,
    stream: bool = False,
) -> FeatureSetNotFound:
    """The error, with the command that writes what is missing.

    Where no command could, because `--data` or `--backbone` names nothing or the backbone has no such layer, the error
    says so instead.

    Args:
        stream: as of `extract_command`.
    """
    command = extract_command(cache, task, views, config, stream=stream)
    what, remedy, expected, found = error.what, error.remedy, error.expected, error.found
    manifests = _manifests(cache)
    if manifests is not None and (
        wrong := _wrong_source(manifests, task, config) or _wrong_backbone(manifests, config)
    ):
        what, remedy = wrong
    elif layer := _wrong_layer(manifests or [], views, config):
        what, expected, found = f"{backbone_slug(config.backbone)}: {layer.what}", layer.expected, layer.found
        remedy = "name a layer that it has"
    elif command is not None and not _is_missing_folder(config):
        remedy = f"{remedy}. To write them: {command}"
    return FeatureSetNotFound(what, where=error.where, expected=expected, found=found, remedy=remedy)


def _manifests(cache: FeatureCache) -> list[Manifest] | None:
    """All of the cache, or None where one is damaged: nobody knows of what it is."""
    try:
        return cache.manifests()
    except DamagedFeatureSet:
        return None


def _is_missing_folder(config: FeaturesConfig) -> bool:
    return source_name(config.data) == "files" and not Path(config.data).is_dir()


def _wrong_source(manifests: Sequence[Manifest], task: TaskSpec, config: FeaturesConfig) -> tuple[str, str] | None:
    """What is wrong with `--data` and what to do, where it names nothing and the cache has no files' features."""
    of_task = [manifest for manifest in manifests if (manifest.task, manifest.split) == (task.name, "train")]
    if not _is_missing_folder(config) or any(manifest.source == "files" for manifest in of_task):
        return None
    return (
        f"{config.data} is neither a source ({' | '.join(SOURCES)}) nor a folder here",
        did_you_mean(config.data, SOURCES) or "name a source, or the folder of your own files",
    )


def _wrong_backbone(manifests: Sequence[Manifest], config: FeaturesConfig) -> tuple[str, str] | None:
    """What is wrong with `--backbone` and what to do, where neither stage one nor the cache knows such a name."""
    name, known = config.backbone, list(dict.fromkeys([*CATALOGUE, *(manifest.backbone for manifest in manifests)]))
    if backbone_slug(name) in known or "/" in name or Path(name).expanduser().is_dir():
        return None
    return (
        f"no backbone is called {name}",
        did_you_mean(name.lower(), known) or f"name one of {', '.join(known)}, a Hub id such as org/name, or a folder",
    )


def _wrong_layer(manifests: Sequence[Manifest], views: Sequence[View], config: FeaturesConfig) -> ConfigError | None:
    """What is wrong with a layer, where the cache has other features of the backbone, which tell its depth."""
    of_backbone = (each for each in manifests if each.backbone == backbone_slug(config.backbone))
    if (known := next(of_backbone, None)) is None:
        return None
    try:
        for view in views:
            view.resolved(int(known.identity.architecture["num_hidden_layers"]))
    except ConfigError as error:
        return error
    return None
