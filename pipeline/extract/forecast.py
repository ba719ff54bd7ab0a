"""What is left of a split comes to: counted where it is small, estimated from a sample where it is large. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pipeline.cache.writer import SHARD_OVERHEAD_BYTES
from pipeline.extract.cut import MOST_SHARD_ROWS
from pipeline.extract.estimate import NOTHING, Estimate, draw_clusters, estimate_ratio
from pipeline.extract.job import Job
from pipeline.extract.part import Part, Size
from pipeline.extract.preflight import most_index_bytes, vector_bytes
from pipeline.extract.shard_pass import count_computed, plan_shard
from pipeline.views import View

PartOf = Callable[[np.ndarray], Part]
"""Gives some rows of a split, `[k]` int64, ascending; of a stream, neighbours."""


@dataclass(frozen=True)
class Sampling:
    """How much of a split is looked at.

    Args:
        counted_rows: up to so many rows are all tokenised and planned.
        blocks, block_rows: of more, so many blocks of so many neighbouring rows are tokenised,
        planned_rows: and whole shards of about so many rows in all, four at least, are planned: what rows share
            depends on how many stand in a shard. Of a shard larger than any default, a stretch stands for it.
        seed: of the places.
    """

    counted_rows: int = 2**17
    blocks: int = 64
    block_rows: int = 128
    planned_rows: int = 2**17
    seed: int = 0


LEAST_PLANNED = 4
"""Shards: with fewer, nothing can be said of how far off they are."""


@dataclass(frozen=True)
class ViewForecast:
    """What is left of a feature set.

    Args:
        view: which.
        raw_bytes: of its hidden states, as they stand in the shards.
        beside_bytes: of indices with their texts before compression, and of what a file takes beside its numbers; at
            most.
    """

    view: View
    raw_bytes: Estimate
    beside_bytes: Estimate


@dataclass(frozen=True)
class PassForecast:
    """What is left of views that are computed together.

    Args:
        rows, shards: to compute.
        looked_at: rows that were tokenised for this.
        tokens: of these rows, prompts included.
        own_tokens: from each row's sentence on.
        computed_tokens: that go through the backbone: what rows share once, and padding.
        blocks: of the backbone, up to the highest layer.
        views: a forecast for each.
    """

    rows: int
    shards: int
    looked_at: int
    tokens: Estimate
    own_tokens: Estimate
    computed_tokens: Estimate
    blocks: int
    views: tuple[ViewForecast, ...]

    @property
    def raw_bytes(self) -> Estimate:
        """Of all views."""
        return reduce(Estimate.along, (view.raw_bytes for view in self.views), NOTHING)

    @property
    def beside_bytes(self) -> Estimate:
        """Of all views."""
        return reduce(Estimate.along, (view.beside_bytes for view in self.views), NOTHING)


def forecast(
    job: Job,
    part_of: PartOf,
    todo: Mapping[int, Collection[int]],
    *,
    share: bool,
    sampling: Sampling = Sampling(),
) -> PassForecast:
    """Forecast one pass.

    Args:
        job: with its cut settled.
        part_of: gives its rows.
        todo: by shard, the places of the views that lack it; not empty.
        share: whether the backbone can share what rows begin with.
    """
    few = sum(len(job.writers[0].manifest.places_of(number)) for number in todo) <= sampling.counted_rows
    looked = (_count if few else _sample)(job, part_of, list(todo), share, sampling)
    views = []
    for place, (writer, view) in enumerate(zip(job.writers, job.views, strict=True)):
        lacking = [number for number, places in todo.items() if place in places]
        if not lacking:
            continue
        rows = sum(len(writer.manifest.places_of(number)) for number in lacking)
        vectors = looked.own_of(lacking) if view.pooling == "tokens" else Estimate(rows)
        text_bytes = looked.text_of(lacking)
        numbers_bytes = most_index_bytes(rows, Size(0, 0)) + len(lacking) * SHARD_OVERHEAD_BYTES
        raw_bytes = vectors.times(vector_bytes(writer.manifest.identity))
        views.append(ViewForecast(view, raw_bytes, text_bytes + Estimate(numbers_bytes)))
    return PassForecast(
        rows=sum(len(job.writers[0].manifest.places_of(number)) for number in todo),
        shards=len(todo),
        looked_at=looked.rows,
        tokens=looked.tokens,
        own_tokens=looked.own_of(list(todo)),
        computed_tokens=looked.computed_tokens,
        blocks=max(1, *(int(view.layer) for view in job.views)),
        views=tuple(views),
    )


@dataclass(frozen=True)
class _Looked:
    """What was seen of the rows that are to be computed.

    Args:
        rows: how many were looked at.
        tokens, computed_tokens: of all shards.
        own_of, text_of: tokens from the sentences on, and bytes of the sentences, of some shards.
    """

    rows: int
    tokens: Estimate
    computed_tokens: Estimate
    own_of: Callable[[Sequence[int]], Estimate]
    text_of: Callable[[Sequence[int]], Estimate]


def _count(job: Job, part_of: PartOf, shards: Sequence[int], share: bool, sampling: Sampling) -> _Looked:
    """Every shard, planned as it will be."""
    writer = job.writers[0]
    seen = {number: _see(part_of(writer.rows_of(number)), writer.manifest.token_budget, share) for number in shards}

    def of(name: str, numbers: Sequence[int]) -> Estimate:
        return Estimate(sum(getattr(seen[number], name) for number in numbers))

    return _Looked(
        rows=sum(each.rows for each in seen.values()),
        tokens=of("tokens", shards),
        computed_tokens=of("computed", shards),
        own_of=lambda numbers: of("own", numbers),
        text_of=lambda numbers: of("text_bytes", numbers),
    )


def _sample(job: Job, part_of: PartOf, shards: Sequence[int], share: bool, sampling: Sampling) -> _Looked:
    """Blocks for how long rows are; stretches as long as shards for how much of them is computed."""
    writer = job.writers[0]
    lengths = {number: len(writer.manifest.places_of(number)) for number in shards}
    blocks = _Stretches(lengths, sampling.block_rows)
    long = _Stretches(lengths, min(writer.manifest.shard_rows, MOST_SHARD_ROWS))
    planned = max(LEAST_PLANNED, sampling.planned_rows // long.rows)

    def look(stretches: _Stretches, count: int, budget: int | None) -> list[_Seen]:
        drawn = draw_clusters(len(stretches), min(count, len(stretches)), sampling.seed)
        places = [stretches[int(each)] for each in drawn]
        return [_see(part_of(writer.rows_of(number)[within]), budget, share) for number, within in places]

    short_ones = look(blocks, sampling.blocks, None)
    long_ones = look(long, planned, writer.manifest.token_budget)
    counts = [each.rows for each in short_ones]

    def of_a_row(values: Sequence[int]) -> Estimate:
        return estimate_ratio(values, counts, len(blocks))

    own, text_bytes = of_a_row([s.own for s in short_ones]), of_a_row([s.text_bytes for s in short_ones])
    computed = estimate_ratio([s.computed for s in long_ones], [s.own for s in long_ones], len(long))
    rows = sum(lengths.values())
    return _Looked(
        rows=sum(each.rows for each in (*short_ones, *long_ones)),
        tokens=of_a_row([each.tokens for each in short_ones]).times(rows),
        computed_tokens=own.times(rows).times_estimate(computed),
        own_of=lambda numbers: own.times(sum(lengths[number] for number in numbers)),
        text_of=lambda numbers: text_bytes.times(sum(lengths[number] for number in numbers)),
    )


class _Stretches:
    """Shards cut into stretches of neighbouring rows.

    Args:
        lengths: rows, by shard.
        rows: of a stretch; the last one of a shard has the rest.
    """

    def __init__(self, lengths: Mapping[int, int], rows: int) -> None:
        self.rows, self._shards = rows, list(lengths)
        self._ends = np.cumsum([-(-length // rows) for length in lengths.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, stretch: int) -> tuple[int, slice]:
        """The shard of a stretch, and where it stands among the shard's rows."""
        place = int(np.searchsorted(self._ends, stretch, side="right"))
        first = (stretch - (int(self._ends[place - 1]) if place else 0)) * self.rows
        return self._shards[place], slice(first, first + self.rows)


@dataclass(frozen=True)
class _Seen:
    rows: int
    tokens: int
    own: int
    text_bytes: int
    computed: int


def _see(part: Part, token_budget: int | None, share: bool) -> _Seen:
    """Some rows; with a token budget, planned as a shard."""
    computed = 0
    if token_budget is not None:
        computed = count_computed(*plan_shard(part.tokens, np.arange(len(part)), token_budget, share=share))
    return _Seen(
        rows=len(part),
        tokens=int(part.tokens.lengths.sum()),
        own=int(part.tokens.own_lengths.sum()),
        text_bytes=sum(len(text.encode()) for text in part.examples.texts),
        computed=computed,
    )


@dataclass(frozen=True)
class SplitForecast:
    """What is left of a split.

    Args:
        task, split: which.
        rows, views, shards: of the split; shards that views are cut into in several ways count in each.
        whole_views, whole_shards: those that nothing is left of.
        passes: one for each way in which views are cut.
    """

    task: str
    split: str
    rows: int
    views: int
    whole_views: int
    shards: int
    whole_shards: int
    passes: tuple[PassForecast, ...]
