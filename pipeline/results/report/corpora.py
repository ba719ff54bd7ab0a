"""The corpora that runs are of: a task, where its sentences are from, and the very rows of validation."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from pipeline.results.counts import METRIC_NAMES
from pipeline.results.ledger import Run
from pipeline.results.lines import deciding_metric
from pipeline.results.report.entries import Entry, choose, entry_of, legend_names
from pipeline.results.report.predicted import SPLIT, Predicted

DETAILED = 8
"""Runs of a corpus that are shown in detail, at most, unless others are named."""
TITLES = {"cola": "CoLA", "sst2": "SST-2"}
SAMPLE = "sample"
SOURCES = {"hub": "glue", "files": "own files", "": "data not named"}
"""What a source of data is called: GLUE is the same, wherever it was read."""


@dataclass(frozen=True)
class Corpus:
    """The runs of one task on one source of data that were scored on the same rows of validation.

    Args:
        task: in records.
        source: where its sentences are from: `glue`, `sample`, or a name of one's own files.
        rows: of validation; 0 where no predictions are at hand.
        of: how many there are of which these were drawn; as many where none was left out.
        metric: what decides the task.
        labels: its classes' names.
        entries: every run of it, the best on validation first.
        peers: those whose predictions of these rows are at hand, or all where there are none.
        chosen: those shown in detail, the best first.
        names: a short name for each chosen run, by run.
        id: of its elements on the page.
        title: for people.
        is_first: whether it is the one of its task that is shown unless another is asked for.
    """

    task: str
    source: str
    rows: int
    of: int
    metric: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    peers: tuple[Entry, ...]
    chosen: tuple[Entry, ...]
    names: Mapping[str, str]
    id: str = ""
    title: str = ""
    is_first: bool = True

    @property
    def task_title(self) -> str:
        """The task's name for people."""
        return TITLES.get(self.task, self.task)

    @property
    def data_title(self) -> str:
        """The source and the rows for people."""
        if not self.rows:
            return f"{self.source}, rows not at hand"
        drawn = f"{self.rows:,} of {self.of:,}" if self.of > self.rows else f"{self.rows:,}"
        return f"{self.source}, {drawn} rows"

    @property
    def metric_title(self) -> str:
        """The deciding metric's name for people."""
        return METRIC_NAMES.get(self.metric, self.metric)

    @property
    def trained(self) -> tuple[Entry, ...]:
        """Those of the peers that are no baselines; these only where there is nothing else."""
        return tuple(each for each in self.peers if each.kind != "baseline") or self.peers

    @property
    def best(self) -> Entry:
        """The best on validation of those that can be compared."""
        return max(self.trained, key=lambda each: each.estimate)

    @property
    def majority(self) -> float | None:
        """What always saying the commonest class of the training rows scores."""
        value = self.best.run.baseline.get(self.task, {}).get(SPLIT, {}).get(self.metric)
        return None if value is None else float(value)

    @property
    def place(self) -> tuple[int, str]:
        """Of its task among tasks: those that are built in come first."""
        titles = list(TITLES)
        return titles.index(self.task) if self.task in titles else len(titles), self.task

    @property
    def importance(self) -> tuple[int, bool, int, str, int, int]:
        """Real GLUE comes first, then files of one's own, the sample last; whole validation before a draw of it."""
        rank = 0 if self.source == "glue" else 2 if self.source == SAMPLE else 1
        return (rank, self.of > self.rows, *self.place, -self.rows, -len(self.entries))


def source_of(run: Run) -> str:
    """Where a run's sentences are from, for people."""
    data = str(run.config.get("data") or "")
    return SOURCES.get(data) or PurePath(data).name or data


def corpora_of(
    runs: Sequence[Run],
    predictions: Mapping[str, Mapping[str, Predicted]],
    *,
    named: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    tasks: Sequence[str] = (),
    data: Sequence[str] = (),
) -> tuple[Corpus, ...]:
    """The corpora of some runs, the most important first.

    Args:
        predictions: by run and task.
        named: runs that are shown in detail in place of the best of each kind; their corpora are shown first.
        labels: the classes' names by task, as far as known.
        tasks: of these tasks alone.
        data: on these sources of data alone, as records or the report call them.
    """
    metrics: dict[str, Counter[str]] = {}
    for run in runs:
        for task in run.tasks:
            metrics.setdefault(task, Counter())[deciding_metric(run, task)] += 1
    entries = [
        entry_of(run, task, metrics[task].most_common(1)[0][0], predictions[run.run].get(task))
        for run in runs
        for task in run.tasks
        if not tasks or task in tasks
        if not data or {str(run.config.get("data") or ""), source_of(run)} & set(data)
    ]
    found = [_corpus(group, named, labels) for group in _groups(entries)]
    found.sort(key=lambda each: each.importance)
    return _called(found, named)


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries by task, source and rows; those of which nobody knows the rows are with the most of their source."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    others = []
    for entry in entries:
        if entry.predicted is not None and entry.texts:
            groups.setdefault((entry.task, source_of(entry.run), entry.texts), []).append(entry)
        else:
            others.append(entry)
    for entry in others:
        source = (entry.task, source_of(entry.run))
        alike = [key for key in groups if key[:2] == source and (not entry.texts or key[2] in ("", entry.texts))]
        key = max(alike, key=lambda each: len(groups[each])) if alike else (*source, entry.texts)
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _corpus(entries: list[Entry], named: Sequence[str], labels: Mapping[str, Sequence[str]]) -> Corpus:
    entries.sort(key=lambda each: -each.estimate)
    first = entries[0]
    keys = Counter(each.predicted.key for each in entries if each.predicted is not None and each.kind != "baseline")
    keys = keys or Counter(each.predicted.key for each in entries if each.predicted is not None)
    most = keys.most_common(1)[0][0] if keys else None
    peers = [each for each in entries if each.predicted is not None and each.predicted.key == most] or entries
    shown = [each for each in entries if each.name in named and each.predicted is not None]
    shown = shown or choose(peers, DETAILED)
    seen = max((each.predicted.classes for each in entries if each.predicted is not None), default=2)
    known = tuple(labels.get(first.task, ()))
    rows = 0 if peers[0].predicted is None else len(peers[0].predicted.y)
    return Corpus(
        task=first.task,
        source=source_of(first.run),
        rows=rows,
        of=max([rows, *(each.drawn(SPLIT)[1] for each in peers)]),
        metric=first.metric,
        labels=known if len(known) >= seen else tuple(f"class {number}" for number in range(seen)),
        entries=tuple(entries),
        peers=tuple(peers),
        chosen=tuple(shown),
        names=legend_names(shown),
    )


def _called(corpora: Sequence[Corpus], named: Sequence[str]) -> tuple[Corpus, ...]:
    """Corpora with what they are called, no two alike, and which of each task is shown first."""
    firsts: dict[str, Corpus] = {}
    for each in sorted(corpora, key=lambda one: not any(entry.name in named for entry in one.entries)):
        firsts.setdefault(each.task, each)
    titles = Counter((each.task, each.data_title) for each in corpora)
    found: list[Corpus] = []
    for each in corpora:
        id = (
            each.task if each is firsts[each.task] else f"{each.task}-{re.sub(r'[^a-z0-9]+', '-', each.source.lower())}"
        )
        taken = {other.id for other in found} | {other.task for other in corpora if other.task != each.task}
        id = next(name for name in [id, *(f"{id}-{number}" for number in range(2, 10_000))] if name not in taken)
        rows = each.data_title
        if titles[each.task, rows] > 1:
            rows += f", texts {each.entries[0].texts.removeprefix('sha256:')[:6] or 'not said'}"
        title = f"{each.task_title} ({rows})"
        found.append(replace(each, id=id, title=title, is_first=each is firsts[each.task]))
    return tuple(found)
