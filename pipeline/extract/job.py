"""What stage one is asked for: which feature sets, under which identities, and which of them are there already."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.backbone.catalogue import BackboneSource
from pipeline.backbone.facts import BackboneFacts
from pipeline.backbone.tokens import TokenRows, resolve_max_length
from pipeline.cache import FeatureSet
from pipeline.cache.cut import Cut
from pipeline.cache.identity import Identity
from pipeline.cache.manifest import Manifest, Order
from pipeline.cache.relabel import is_stale, reindex
from pipeline.cache.verify import verify_feature_set
from pipeline.cache.writer import FeatureSetWriter
from pipeline.config import Dtype, PassConfig, TokensConfig
from pipeline.errors import DamagedFeatureSet, DataError
from pipeline.extract.cut import choose_order, default_shard_rows, ordered_rows
from pipeline.progress import say
from pipeline.tasks.examples import Examples
from pipeline.tasks.spec import TaskSpec
from pipeline.tasks.stream import StreamedCorpus
from pipeline.views import POOLINGS, View, check_pooling, parse_layer, resolve_layer

UNSETTLED = 0
"""Tokens a batch, as long as the backbone that is to be probed is not loaded."""


@dataclass(frozen=True)
class Job:
    """One split of one task, to be seen once: all its views come out of the same pass.

    Args:
        corpus: the split.
        writers: one for each view, in the order of `views`.
        views: with non-negative layers.
    """

    corpus: Examples | StreamedCorpus
    writers: tuple[FeatureSetWriter, ...]
    views: tuple[View, ...]

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.corpus.task.name}/{self.corpus.split}"

    def unsealed(self) -> dict[int, list[int]]:
        """By shard, the places in `writers` that lack it; whole shards are left out."""
        todo = {number: self.lacking(number) for number in range(self.writers[0].manifest.shards)}
        return {number: places for number, places in todo.items() if places}

    def lacking(self, number: int) -> list[int]:
        """The places in `writers` that lack a shard."""
        return [place for place, writer in enumerate(self.writers) if writer.sealed(number) is None]

    def as_begun(self) -> "Job":
        """The job as others have cut it since."""
        return replace(self, writers=tuple(writer.as_begun() for writer in self.writers))

    def missing(self, passes: PassConfig) -> "Job | None":
        """What of the job is left to compute, if anything. Damage is said and set aside.

        Labels that changed since are brought up to date on the way, and a set of which only the manifest is missing
        gets it: neither needs the model.
        """
        columns = label_columns(self.corpus) if isinstance(self.corpus, Examples) else None
        left = []
        for writer, view in zip(self.writers, self.views, strict=True):
            _set_damage_aside(writer, passes)
            if columns is not None:
                _update_labels(writer, columns, passes.lock_timeout)
            elif not writer.is_whole and all(writer.sealed(n) for n in range(writer.manifest.shards)):
                writer.finish(timeout=passes.lock_timeout)  # labels of a stream are known by its digest
            if not writer.is_whole:
                left.append((writer, view))
        return Job(self.corpus, *zip(*left, strict=True)) if left else None

    def left(self) -> "Job | None":
        """The views that lack a shard, as they stand, if there are any: nothing is looked into or mended."""
        lacking = [
            (writer, view)
            for writer, view in zip(self.writers, self.views, strict=True)
            if any(writer.sealed(number) is None for number in range(writer.manifest.shards))
        ]
        return Job(self.corpus, *zip(*lacking, strict=True)) if lacking else None

    def cut(self, tokens: TokenRows | None, order: Order | None) -> list["Job"]:
        """Settle how the split is cut, one job for each cut: one that was begun is kept.

        Args:
            tokens: of the split's rows; None where these are not in memory, and stand as in the split.
            order: how its rows are ordered; None for what computes the fewest tokens.
        """
        jobs: dict[Cut, list[tuple[FeatureSetWriter, View]]] = {}
        for writer, view in zip(self.writers, self.views, strict=True):
            cut = writer.cut
            if not writer.is_cut:
                order = order or ("split" if tokens is None else choose_order(tokens, cut.shard_rows))
                cut = Cut(cut.shard_rows, order, UNSETTLED)
            jobs.setdefault(cut, []).append((writer, view))
        return [
            Job(self.corpus, tuple(writer.cut_as(cut, ordered) for writer, _ in pairs), tuple(v for _, v in pairs))
            for cut, pairs in jobs.items()
            for ordered in [None if tokens is None or cut.order == "split" else ordered_rows(tokens)]
        ]

    def with_token_budget(self, find: Callable[[], int]) -> "Job":
        """The job with its cut settled to the end.

        Args:
            find: gives the tokens a batch; asked only where nobody has begun.
        """
        cut = self.writers[0].cut
        if cut.token_budget != UNSETTLED:
            return self
        settled = replace(cut, token_budget=find())
        return replace(self, writers=tuple(writer.cut_as(settled, writer.ordered) for writer in self.writers))

    def keep_cut(self, *, any_budget: bool, timeout: float) -> "Job":
        """The job with its cut noted for every view; where another process was first, with the token budget it took.

        Args:
            any_budget: whether another one's may be taken.
            timeout: seconds to wait for another process.
        """
        first = self.writers[0].keep_cut(any_budget=any_budget, timeout=timeout)
        others = [writer.cut_as(first.cut, writer.ordered) for writer in self.writers[1:]]
        return replace(self, writers=(first, *(writer.keep_cut(timeout=timeout) for writer in others)))


def label_columns(examples: Examples) -> dict[str, pa.Array]:
    """The columns of the index that no feature depends on, and that may change under it: `idx`, `label`, `source`."""
    rows = len(examples)
    return {
        "idx": pa.array(examples.idx, pa.int64()),
        "label": pa.nulls(rows, pa.int64()) if examples.labels is None else pa.array(examples.labels, pa.int64()),
        "source": pa.nulls(rows, pa.string()) if examples.sources is None else pa.array(examples.sources, pa.string()),
    }


def _set_damage_aside(writer: FeatureSetWriter, passes: PassConfig) -> None:
    """Take out of use what is damaged in a set that claims to be whole; with `verify`, in any set.

    A set whose files have their sizes and whose seals and manifest agree is taken as it is; where something does not
    agree, every shard is hashed.
    """
    if writer.upload is not None:
        return  # what stands at the store was looked at when the writer was opened
    suspicious = passes.verify and writer.folder.is_dir()
    if writer.is_whole and not suspicious:
        try:
            FeatureSet(writer.folder)
        except DamagedFeatureSet:
            suspicious = True
    if suspicious:
        _verify(writer, passes.lock_timeout)


def _verify(writer: FeatureSetWriter, timeout: float) -> None:
    report = verify_feature_set(writer.folder, deep=True)
    if report.damages:
        say(f"{report}\n  what is damaged of {writer.folder.name} is computed again")
        report.set_aside(timeout=timeout)


def _update_labels(writer: FeatureSetWriter, columns: dict[str, pa.Array], timeout: float) -> None:
    """A label is no part of an identity: where one was corrected, the features stay and the index is written anew.

    Raises:
        DataError: another source gives the same sentences other labels.
    """
    there = Manifest.read(writer.folder) if writer.is_whole else None
    changed = 0
    for number in range(writer.manifest.shards):
        try:
            if there is not None and there.source != writer.manifest.source and is_stale(writer, number, columns):
                raise DataError(
                    "two sources give the same sentences other labels, numbers or source codes",
                    where=writer.folder,
                    expected=f"what {there.source} gave",
                    found=f"something else, from {writer.manifest.source}",
                    remedy="keep the two apart: use another --cache-dir for one of them",
                )
            changed += reindex(writer, number, columns, timeout=timeout)
        except DamagedFeatureSet:
            _verify(writer, timeout)
    if changed:
        say(f"{writer.folder.name}: labels changed since; the index of {changed} shards was written anew")
    now = writer.manifest
    stale = there is not None and (there.source, there.labels) != (now.source, now.labels)
    if (stale or not writer.is_whole) and all(writer.sealed(number) for number in range(writer.manifest.shards)):
        writer.finish(timeout=timeout)


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


def make_job(
    corpus: Examples | StreamedCorpus,
    views: tuple[View, ...],
    *,
    source: BackboneSource,
    facts: BackboneFacts,
    tokens: TokensConfig,
    passes: PassConfig,
    open_writer: Callable[..., FeatureSetWriter],
    data_source: str,
    storage_dtype: Dtype,
    recorded: dict[str, object],
) -> Job:
    """Give each view of a split its identity and its writer.

    Args:
        open_writer: makes a writer, as `FeatureSetWriter.open` does in a cache's folder.
        storage_dtype: the resolved one, never `auto`.

    Raises:
        ConfigError: the backbone was not made for texts of `max_length` tokens.
    """
    max_length = resolve_max_length(tokens.max_length, facts.max_positions)
    prompt = tokens.prompt if tokens.prompt is not None else corpus.task.prompt
    writers = []
    for view in views:
        identity = Identity(
            **facts.of_identity,
            prompt=prompt,
            special_tokens=tokens.special_tokens,
            max_length=max_length,
            truncation=tokens.truncation,
            layer=int(view.layer),
            layer_norm="final" if view.layer == facts.num_hidden_layers else "none",
            pooling=view.pooling,
            storage_dtype=storage_dtype,
            texts=corpus.digest,
        )
        writers.append(
            open_writer(
                identity=identity,
                task=corpus.task.name,
                split=corpus.split,
                labels=corpus.task.labels,
                labelled=corpus.labelled,
                source=data_source,
                backbone=source.name,
                rows=len(corpus),
                shard_rows=passes.shard_rows or default_shard_rows(len(corpus)),
                recorded=recorded,
            )
        )
    return Job(corpus, tuple(writers), views)
