"""What a report is of: the runs of a folder, corpus by corpus, with what sweeps tried and what features say."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.progress import say
from pipeline.results.ledger import Run, find_run, read_runs
from pipeline.results.report.corpora import Corpus, corpora_of
from pipeline.results.report.predicted import Predicted, read_predicted
from pipeline.results.trials import TRIALS, read_trials

Features = Mapping[str, Mapping[str, Any]]
"""By fingerprint: `name`, `task`, `split`, `identity`, `passport`, `recorded`, `rows` of a feature set at hand."""


@dataclass(frozen=True)
class Gathered:
    """What a report is made of.

    Args:
        corpora: the most important first.
        runs: all that are of one of them, the oldest first.
        trials: of each sweep among them, by run.
        features: what is known of the feature sets that the runs name.
    """

    corpora: tuple[Corpus, ...]
    runs: tuple[Run, ...]
    trials: Mapping[str, pa.Table]
    features: Features


def gather(
    runs_dir: Path,
    *,
    chosen: Sequence[str] = (),
    tasks: Sequence[str] = (),
    data: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]],
    features: Features,
) -> Gathered:
    """Read all runs of a folder.

    Args:
        chosen: names of runs, or parts of them, that are shown in detail in place of the best of each kind.
        tasks, data: of these tasks and on these sources of data alone, as in `corpora_of`.
        labels: the classes' names by task, as far as known.
        features: what is known of feature sets.

    Raises:
        RunError: there are no runs, or none of these tasks and data; one cannot be read, or a name is of none.
    """
    runs = read_runs(runs_dir)
    if not runs:
        raise RunError(
            "there are no runs to report",
            where=runs_dir,
            expected="folders with a run.json",
            remedy="train something first: make demo, or pipeline heads",
        )
    named = [find_run(runs_dir, name).name for name in chosen]
    predictions = {run.run: _predictions(runs_dir, run) for run in runs}
    trials = {}
    for run in runs:
        if (runs_dir / run.run / TRIALS).is_file():
            with contextlib.suppress(RunError):
                trials[run.run] = read_trials(runs_dir / run.run / TRIALS)
    corpora = corpora_of(runs, predictions, named=named, labels=labels, tasks=tasks, data=data)
    left = {entry.name for corpus in corpora for entry in corpus.entries}
    if not left or not left.issuperset(named):
        there = corpora_of(runs, predictions, named=(), labels=labels)
        raise RunError(
            "no run is of these tasks and data" if not left else "a named run is of other tasks or data",
            where=runs_dir,
            expected=", ".join(sorted({f"{each.task} on {each.source}" for each in there})),
            found=", ".join([*tasks, *data]) if not left else ", ".join(sorted(set(named) - left)),
            remedy="name others with --tasks and --data, or leave them out",
        )
    kept = tuple(run for run in runs if run.run in left)
    return Gathered(corpora, kept, {name: table for name, table in trials.items() if name in left}, features)


def _predictions(runs_dir: Path, run: Run) -> Mapping[str, Predicted]:
    try:
        return read_predicted(runs_dir / run.run, run)
    except RunError as error:
        say(f"note: {error}\n  the report has this run's scores alone")
        return {}
