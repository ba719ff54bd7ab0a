"""What stage one is asked for: which feature sets, under which identities, and which of them are there already."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.facts import BackboneFacts
from pipeline.cache import FeatureSet
from pipeline.cache.identity import Identity
from pipeline.cache.manifest import MANIFEST, Manifest, shard_paths
from pipeline.cache.writer import FeatureSetWriter
from pipeline.config import CacheConfig, Dtype, PassConfig, TokensConfig
from pipeline.digests import sha256_of_texts
from pipeline.errors import ConfigError, DamagedFeatureSet, DataError
from pipeline.progress import say
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import TaskSpec
from pipeline.views import POOLINGS, View, check_pooling, parse_layer, resolve_layer

DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class Job:
    """One split of one task, to be seen once: all its views come out of the same pass.

    Args:
        examples: the split.
        writers: one for each view, in the order of `views`.
        views: with non-negative layers.
    """

    examples: Examples
    writers: tuple[FeatureSetWriter, ...]
    views: tuple[View, ...]

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.examples.task.name}/{self.examples.split}"

    def missing(self) -> list["Job"]:
        """What of the job is left to compute, one job for each cut into shards. Damage is said.

        Labels that changed since are brought up to date on the way, and a set of which only the manifest is missing
        gets it: neither needs the model.
        """
        columns = label_columns(self.examples)
        left: dict[int, list[tuple[FeatureSetWriter, View]]] = {}
        for writer, view in zip(self.writers, self.views, strict=True):
            _update_labels(writer, columns)
            if not _is_whole(writer):
                left.setdefault(writer.manifest.shard_rows, []).append((writer, view))
        return [Job(self.examples, *zip(*pairs, strict=True)) for pairs in left.values()]


def label_columns(examples: Examples) -> dict[str, pa.Array]:
    """The columns of the index that no feature depends on, and that may change under it: `idx`, `label`, `source`."""
    rows = len(examples)
    return {
        "idx": pa.array(examples.idx, pa.int64()),
        "label": pa.nulls(rows, pa.int64()) if examples.labels is None else pa.array(examples.labels, pa.int64()),
        "source": pa.nulls(rows, pa.string()) if examples.sources is None else pa.array(examples.sources, pa.string()),
    }


def _update_labels(writer: FeatureSetWriter, columns: dict[str, pa.Array]) -> None:
    """A label is no part of an identity: where one was corrected, the features stay and the index is written anew.

    Raises:
        DataError: another source gives the same sentences other labels.
    """
    there = Manifest.read(writer.folder) if writer.is_whole and _is_readable(writer.folder) else None
    changed = 0
    for number in range(writer.manifest.shards):
        rows = writer.rows_of(number)
        new = {name: values[rows.start : rows.stop] for name, values in columns.items()}
        try:
            if there is not None and there.source != writer.manifest.source and writer.is_stale(number, new):
                raise DataError(
                    "two sources give the same sentences other labels, numbers or source codes",
                    where=writer.folder,
                    expected=f"what {there.source} gave",
                    found=f"something else, from {writer.manifest.source}",
                    remedy="keep the two apart: use another --cache-dir for one of them",
                )
            changed += writer.reindex(number, new)
        except DamagedFeatureSet as error:
            say(f"{error}\n  this shard of {writer.folder.name} is computed again")
            shard_paths(writer.folder, number)[2].unlink(missing_ok=True)
    if changed:
        say(f"{writer.folder.name}: labels changed since; the index of {changed} shards was written anew")
    stale = there is not None and there.source != writer.manifest.source
    if (stale or not writer.is_whole) and all(writer.sealed(number) for number in range(writer.manifest.shards)):
        writer.finish()


def _is_readable(folder: Path) -> bool:
    try:
        Manifest.read(folder)
    except DamagedFeatureSet:
        return False
    return True


def _is_whole(writer: FeatureSetWriter) -> bool:
    if not writer.is_whole:
        return False
    try:
        FeatureSet(writer.folder)
    except DamagedFeatureSet as error:
        say(f"{error}\n  the damaged shards of {writer.folder.name} are computed again")
        (writer.folder / MANIFEST).unlink(missing_ok=True)
        return False
    return True


def choose_views(
    task: TaskSpec, layers: tuple[str, ...], poolings: tuple[str, ...], num_hidden_layers: int
) -> tuple[View, ...]:
    """The views that were asked for: every layer with every pooling, or the task's own where neither is named.

    Args:
        layers: as people write them; `all` is every layer.
        poolings: their names.

    Raises:
        ConfigError: a layer or pooling does not exist.
    """
    if not layers and not poolings:
        wanted = list(task.views)
    else:
        own_layers = [str(view.layer) for view in task.views]
        numbers = [
            number
            for layer in layers or own_layers
            for number in (
                range(num_hidden_layers + 1)
                if layer == "all"
                else [resolve_layer(parse_layer(layer), num_hidden_layers)]
            )
        ]
        names = [check_pooling(name) for name in poolings] or [
            p for p in POOLINGS if p in {v.pooling for v in task.views}
        ]
        wanted = [View(number, name) for number in numbers for name in names]
    resolved = [view.resolved(num_hidden_layers) for view in wanted]
    return tuple(dict.fromkeys(resolved))


def _resolve_max_length(max_length: int | None, max_positions: int | None) -> int:
    most = max_positions or max_length or DEFAULT_MAX_LENGTH
    if max_length is None:
        return min(DEFAULT_MAX_LENGTH, most)
    if max_length > most:
        raise ConfigError(
            "the limit is beyond what the backbone was made for",
            where="max_length",
            expected=f"at most {most}",
            found=max_length,
        )
    return max_length


def make_job(
    examples: Examples,
    views: tuple[View, ...],
    *,
    source: BackboneSource,
    facts: BackboneFacts,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
    data_source: str,
    storage_dtype: Dtype,
    recorded: dict[str, object],
) -> Job:
    """Give each view of a split its identity and its writer.

    Args:
        storage_dtype: the resolved one, never `auto`.

    Raises:
        ConfigError: the backbone was not made for texts of `max_length` tokens.
    """
    max_length = _resolve_max_length(tokens.max_length, facts.max_positions)
    prompt = tokens.prompt if tokens.prompt is not None else examples.task.prompt
    texts = f"sha256:{sha256_of_texts(examples.texts)}"
    writers = []
    for view in views:
        identity = Identity(
            weights=facts.weights,
            architecture=facts.architecture,
            adapter=facts.adapter,
            quantization=facts.quantization,
            tokenizer=facts.tokenizer,
            prompt=prompt,
            special_tokens=tokens.special_tokens,
            max_length=max_length,
            truncation=tokens.truncation,
            layer=int(view.layer),
            layer_norm="final" if view.layer == facts.num_hidden_layers else "none",
            pooling=view.pooling,
            storage_dtype=storage_dtype,
            texts=texts,
        )
        writers.append(
            FeatureSetWriter.open(
                cache.cache_dir,
                identity=identity,
                task=examples.task.name,
                split=examples.split,
                labels=examples.task.labels,
                labelled=examples.labels is not None,
                source=data_source,
                backbone=source.name,
                rows=len(examples),
                shard_rows=passes.shard_rows,
                recorded=recorded,
            )
        )
    return Job(examples, tuple(writers), views)
