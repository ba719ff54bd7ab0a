"""What a sweep tries: heads on specs of views. Any process that sees the cache can do it; what is done is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cache import FeatureCache
from pipeline.digests import sha256_of_record
from pipeline.errors import CacheError
from pipeline.heads.candidates import SpecRows, families_of
from pipeline.heads.features import OwnRows, open_features
from pipeline.heads.fused.fit import Told
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.rows import check_features
from pipeline.heads.trials import run_trials
from pipeline.heads_config import SweepConfig
from pipeline.partials import partial_path
from pipeline.progress import TrialsLine, say
from pipeline.results.trials import read_trials, write_trials
from pipeline.tasks.spec import Split, TaskSpec
from pipeline.views import View, name_views


@dataclass(frozen=True)
class Attempt:
    """A spec of views, and the heads that are tried on it together.

    Args:
        views: side by side.
        fingerprints: of their training rows, in the views' order.
        heads: their kinds.
    """

    views: tuple[View, ...]
    fingerprints: tuple[str, ...]
    heads: tuple[str, ...]

    def __str__(self) -> str:
        return name_views(self.views)

    @property
    def file_name(self) -> str:
        """What its trials are kept as."""
        key = [str(self), self.heads, self.fingerprints]
        return f"{sha256_of_record(key)[:16]}.parquet"


@dataclass(frozen=True)
class TrainRows:
    """A task's training rows, and which of them heads are fitted and scored on. Their features are in the cache alone.

    Args:
        config: of the sweep.
        own: what one's own files hold of the task, by split.
        y: `[n]` int64 class numbers.
        fits: `[n]` bool each, the rows to fit on; the others are held out. One for each way of holding out.
        counts: `[n]` bool, the rows that count where they are held out.
    """

    task: TaskSpec
    config: SweepConfig
    own: Mapping[Split, OwnRows]
    y: np.ndarray
    fits: tuple[np.ndarray, ...]
    counts: np.ndarray

    def on(self, attempt: Attempt, features: FeatureCache) -> SpecRows:
        """The rows with the features of an attempt, in the order that these are stored in.

        Raises:
            CacheError: the cache does not hold them, or holds others by now.
        """
        sets = open_features(features, self.task, attempt.views, self.config, self.own)["train"]
        found = tuple(each.fingerprint for each in sets)
        if found != attempt.fingerprints:
            raise CacheError(
                "the cache holds other features than when the sweep began",
                where=f"{features.shown}: {self.task.name}, {attempt}",
                expected=", ".join(attempt.fingerprints),
                found=", ".join(found),
                remedy="give the same command again",
            )
        stream = FeatureStream.of_feature_sets(sets).within_memory()
        fits = tuple(fit[stream.order] for fit in self.fits)
        return SpecRows(stream, self.y[stream.order], fits, self.counts[stream.order])

    def trials(self, attempt: Attempt, features: FeatureCache, told: Told) -> pa.Table:
        """Make an attempt: one row a candidate and way of holding out."""
        rows = self.on(attempt, features)
        check_features(rows.stream, f"{self.task.name}, {attempt}")
        families = families_of(attempt.heads, self.config.seed)
        return run_trials(str(attempt), rows, families, self.config.strengths, told)


Try = Callable[[TrainRows, Sequence[Attempt], TrialsLine], Iterator[tuple[Attempt, pa.Table]]]
"""Makes attempts, and gives each with its trials as soon as it is done, in any order."""


def try_here(
    rows: TrainRows, attempts: Sequence[Attempt], line: TrialsLine, *, features: FeatureCache
) -> Iterator[tuple[Attempt, pa.Table]]:
    """Make attempts in this process, one by one."""
    for attempt in attempts:
        if len(attempt.views) > 1:  # the wider the features, the longer
            line.changes_pace()
        yield attempt, rows.trials(attempt, features, partial(line.tell, str(attempt)))


class Tried:
    """What was tried of a task: kept as soon as it is done, and read where it was kept before.

    Args:
        rows: the task's.
        folder: of the sweep's state.
        try_all: what makes the attempts that nobody made before.
        line: is told of them.
    """

    def __init__(self, rows: TrainRows, folder: Path, try_all: Try, line: TrialsLine) -> None:
        self._rows, self._folder, self._try_all, self._line = rows, folder, try_all, line
        self._tables: list[pa.Table] = []
        self._before = 0

    @property
    def trials(self) -> pa.Table:
        """One row a candidate and way of holding out, in the order in which attempts were asked for."""
        return pa.concat_tables(self._tables)

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Make some attempts, of which none waits for another."""
        paths = {each: self._folder / each.file_name for each in attempts}
        found = {each: read_trials(path) for each, path in paths.items() if path.is_file()}
        for table in found.values():
            self._line.advance(table.num_rows, before=True)
        self._before += len(found)
        missing = [each for each in attempts if each not in found]
        if missing and self._before:
            many = f"{self._before} sets of views were done before"
            say(f"{self._rows.task.name}: goes on where it was stopped: {many}")
            self._before = 0
        self._line.changes_pace()
        for attempt, table in self._try_all(self._rows, missing, self._line):
            _keep(paths[attempt], table)
            self._line.advance(table.num_rows)
            found[attempt] = table
        self._tables += [found[each] for each in attempts]


def _keep(path: Path, trials: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = partial_path(path)
    write_trials(unfinished, trials)
    unfinished.replace(path)
