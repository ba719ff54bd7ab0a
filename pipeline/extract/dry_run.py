"""Stage one planned and not done: what is left is found as it stands, and nothing is written, locked or mended.

Of files of a streamed corpus, what was hashed is noted in the user's own cache folder, as ever: a plan of large files
is not to read them twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbone.known import KnownBackbone
from pipeline.backbone.lookup import has_weights, looked_up
from pipeline.backbone.tokens import TokenRows, load_tokenizer
from pipeline.cache.identity import Identity
from pipeline.cache.seen import SeenSet
from pipeline.cache.upload import Upload
from pipeline.config import BackboneConfig, CacheConfig, DataConfig, ExtractConfig, PassConfig, TokensConfig
from pipeline.engine_config import PlanConfig, ShareConfig
from pipeline.errors import ConfigError
from pipeline.extract.forecast import PartOf, PassForecast, Sampling, SplitForecast, forecast
from pipeline.extract.job import Job, choose_views, make_job
from pipeline.extract.part import Part, tokenize_as
from pipeline.extract.plan import Disk, Plan, room_needed
from pipeline.extract.preflight import free_bytes
from pipeline.extract.prepared import prepare, say_notes
from pipeline.extract.probe import expected_budget
from pipeline.extract.run import asked_splits, said
from pipeline.extract.speed import Speed, measured_speed
from pipeline.progress import say
from pipeline.shard_choice import ShardChoice, parse_choice
from pipeline.tasks.examples import Examples


def plan_extract(
    config: ExtractConfig,
    data: DataConfig,
    backbone: BackboneConfig,
    tokens: TokensConfig,
    passes: PassConfig,
    cache: CacheConfig,
    share: ShareConfig,
    plan: PlanConfig,
    sampling: Sampling = Sampling(),
) -> Plan:
    """Say what `extract` would do with the same settings. A cluster is asked nothing.

    Args:
        sampling: how much of a large split is looked at.

    Raises:
        PipelineError: a setting or a sentence is at fault, or the backbone is not to be found.
    """
    if share.finish:
        raise ConfigError("--finish computes nothing that could be planned", where="dry_run", remedy="leave it out")
    upload = Upload.of(cache)
    cache_dir = cache.cache_dir if upload is None else upload.copy.folder
    look = partial(SeenSet.look, cache_dir, place=None if upload is None else upload.copy.place)
    splits, identities = [], dict[Path, Identity]()
    with looked_up(backbone) as known:
        planner = _Planner(known, passes, parse_choice(share.only_shards), sampling)
        for corpus in said(asked_splits(config, data)):
            job = make_job(
                corpus,
                choose_views(corpus.task, config.layers, config.poolings, known.facts.num_hidden_layers),
                source=known.source,
                facts=known.facts,
                tokens=tokens,
                passes=passes,
                open_writer=look,
                data_source=data.source,
                storage_dtype=known.dtype if passes.storage_dtype == "auto" else passes.storage_dtype,
                recorded={},
            )
            identities |= {writer.folder: writer.manifest.identity for writer in job.writers}
            splits.append(planner.split(job))
    speed = None if plan.tokens_per_second is None else Speed(plan.tokens_per_second)
    return Plan(
        splits=tuple(splits),
        speed=speed or measured_speed({cache.cache_dir, cache_dir}, known.device, identities),
        device=known.device,
        workers=share.workers or 1,
        disk=Disk(
            cache.cache_dir,
            room_needed(
                [each for split in splits for each in split.passes], None if upload is None else upload.copy.limit_bytes
            ),
            free_bytes(cache_dir),
        ),
        notes=tuple(dict.fromkeys([*planner.notes, *_notes(known, passes, share)])),
    )


def _notes(known: KnownBackbone, passes: PassConfig, share: ShareConfig) -> Iterator[str]:
    if not has_weights(known):
        yield "the backbone's weights are not here: which features of it are there already cannot be known"
    if passes.verify:
        yield "files are taken by their sizes: what --verify would find damaged comes on top"
    if share.engine == "ray":
        yield f"planned for the device {known.device}: name the cluster's with --device where it is another"
        if not share.workers:
            yield "the time is of one worker: --workers says how many there will be"


@dataclass
class _Planner:
    """Forecasts split after split.

    Args:
        known: the backbone.
        passes: how stage one goes through them.
        choice: the shards that are this process' share.
        sampling: how much of a large split is looked at.
        notes: what was assumed.
    """

    known: KnownBackbone
    passes: PassConfig
    choice: ShardChoice
    sampling: Sampling
    notes: list[str] = field(default_factory=list)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.known.source.folder)

    def split(self, job: Job) -> SplitForecast:
        """Forecast a split."""
        left = job.left()
        cuts = [] if left is None else [(part.with_token_budget(self._budget), of) for part, of in self._cut(left)]
        passes = list[PassForecast]()
        for part, part_of in cuts:
            todo = {number: places for number, places in part.unsealed().items() if number in self.choice}
            if todo:
                share = not self.known.facts.windowed
                passes.append(forecast(part, part_of, todo, share=share, sampling=self.sampling))
        numbers = [n for part in [each for each, _ in cuts] or [job] for n in range(part.writers[0].manifest.shards)]
        shards = sum(number in self.choice for number in numbers)
        return SplitForecast(
            task=job.corpus.task.name,
            split=job.corpus.split,
            rows=len(job.corpus),
            views=len(job.views),
            whole_views=len(job.views) - (0 if left is None else len(left.views)),
            shards=shards,
            whole_shards=shards - sum(each.shards for each in passes),
            passes=tuple(passes),
        )

    def _cut(self, left: Job) -> list[tuple[Job, PartOf]]:
        """The views of a job by how they are cut, with what gives their rows."""
        corpus = left.corpus
        if len(corpus) > self.sampling.counted_rows:
            say(f"{left.label}: estimated from a sample of its rows")
        if not isinstance(corpus, Examples) or len(corpus) <= self.sampling.counted_rows:
            prepared = prepare([left], self._tokenizer, self.passes)
            say_notes(prepared, self.passes)
            return [(each.job, each.parts.part) for each in prepared]
        cuts = left.cut(_words(corpus.texts), None if self.passes.order == "auto" else self.passes.order)
        if any(each.writers[0].cut.order == "tokens" for each in cuts):
            self.notes.append(f"{left.label}: rows ordered by their words, in place of their tokens")
        elif self.passes.order == "auto" and not all(writer.is_cut for writer in left.writers):
            self.notes.append(f"{left.label}: rows as in the split; their tokens may ask for another order")
        part_of = partial(_part, corpus, self._tokenizer, left.writers[0].manifest.identity)
        return [(each, part_of) for each in cuts]

    def _budget(self) -> int:
        if self.passes.token_budget:
            return self.passes.token_budget
        budget, is_remembered = expected_budget(self.known, self.passes.threads)
        if not is_remembered:
            self.notes.append(f"batches of {budget:,} tokens assumed, until a probe of the backbone says what suits it")
        return budget


def _part(corpus: Examples, tokenizer: Any, identity: Identity, rows: np.ndarray) -> Part:
    """Some rows of a split in memory, tokenised when they are asked for."""
    examples = corpus.take(rows)
    tokens = tokenize_as(identity, tokenizer, examples.texts, examples.origin, examples.lines or None)
    return Part(rows, examples, tokens)


def _words(texts: Sequence[str]) -> TokenRows:
    """Sentences with numbered words in the place of tokens, which say as well which rows begin alike."""
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(word, len(numbers)) for word in text.split()] for text in texts]
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    flat: Iterable[int] = (number for row in ids for number in row)
    return TokenRows(
        ids=np.fromiter(flat, np.int32, int(lengths.sum())),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        start=np.zeros(len(ids), dtype=np.int64),
        stop=lengths,
        truncated_rows=np.zeros(len(ids), dtype=bool),
    )
