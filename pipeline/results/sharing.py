"""What sharing a trunk gained or cost: joint trainings over several seeds beside separate ones, on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from pipeline.errors import RunError
from pipeline.fitting_table import FittingTable
from pipeline.results.counts import metric_of_counts, tables_of
from pipeline.results.intervals import Interval, OverSeeds, check_rows, interval_of, seeds_interval
from pipeline.results.ledger import Run, read_predictions
from pipeline.results.resampling import RESAMPLES, resample

SPLIT = "validation"


@dataclass(frozen=True)
class Sharing:
    """One task's score with a shared trunk beside its score without.

    Args:
        task: which.
        metric: what is compared.
        freeze: the task whose head was frozen, or `none`.
        rows: of validation.
        seeds: of the joint trainings.
        runs, separate_runs: their names, in the order of the seeds.
        joint, separate: the mean score over the seeds.
        difference: the joint score less the separate one, as `difference_over_seeds` has it.
    """

    task: str
    metric: str
    freeze: str
    rows: int
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    separate_runs: tuple[str, ...]
    joint: OverSeeds
    separate: OverSeeds
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def difference_over_seeds(
    metric: str, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The score of `b` less that of `a`, averaged over seeds, with its bootstrap interval over rows.

    A resample draws rows with the predictions of all trainings for them, scores each training on it, and takes the mean
    over the seeds of the differences. So the interval says how the mean difference of these very trainings varies with
    the rows that are scored; the seeds are averaged, not resampled. Rows that all trainings predict alike and that have
    one label are drawn together, so that it takes about as long for many rows as for few. Where all predictions are the
    same, the difference and both ends are 0.

    Args:
        metric: one of `COUNTED`.
        y: `[n]` true classes.
        a, b: `[s, n]` predicted classes of the same rows, one training a seed.
        resamples: how many.
        seed: of the resamples.

    Raises:
        ConfigError: there is no such metric of predicted classes.
        RunError: rows and predictions differ in number.
    """
    check_rows(y, *a, *b)
    if a.shape != b.shape:
        raise RunError("there are not as many trainings", expected=f"{len(a)} a kind", found=len(b))
    if a.tolist() > b.tolist():  # as of one training each: exchanged, the two differ by the sign alone
        return -difference_over_seeds(metric, y, b, a, resamples=resamples, seed=seed)
    classes = max(2, 1 + int(max(y.max(), a.max(), b.max())))
    found, cells = np.unique(np.concatenate([y[None], a, b]).T, axis=0, return_counts=True)
    places = found[:, :1] * classes + found[:, 1:]  # [k, 2 s]: a cell's place in each training's table

    def statistic(counts: np.ndarray) -> np.ndarray:
        scores = [metric_of_counts(metric, tables_of(counts, of_one, classes)) for of_one in places.T]
        return np.asarray(np.mean(scores[len(a) :], axis=0) - np.mean(scores[: len(a)], axis=0))

    return interval_of(resample(statistic, cells, resamples=resamples, seed=seed, width=classes * classes))


def compare_sharing(
    runs_dir: Path,
    joint: Mapping[str, Sequence[Run]],
    separate: Mapping[str, Sequence[Run]],
    metrics: Mapping[str, str],
) -> list[Sharing]:
    """Hold joint trainings against separate ones, for every task and whatever was frozen.

    Args:
        joint: by what was frozen, one run a seed.
        separate: by task, one run for each of these seeds.
        metrics: by task.

    Raises:
        RunError: predictions cannot be read, or are not of the same rows.
    """
    found = []
    for task, alone in separate.items():
        y, a = _predictions(runs_dir, alone, task)
        for freeze, runs in joint.items():
            other, b = _predictions(runs_dir, runs, task)
            if not np.array_equal(y, other):
                raise RunError("the runs did not predict the same rows", where=task, found=f"{len(y)}, {len(other)}")
            found.append(
                Sharing(
                    task=task,
                    metric=metrics[task],
                    freeze=freeze,
                    rows=len(y),
                    seeds=tuple(run.seed for run in runs),
                    runs=tuple(run.run for run in runs),
                    separate_runs=tuple(run.run for run in alone),
                    joint=_over_seeds(runs, task, metrics[task]),
                    separate=_over_seeds(alone, task, metrics[task]),
                    difference=difference_over_seeds(metrics[task], y, a, b),
                )
            )
    return found


def _over_seeds(runs: Sequence[Run], task: str, metric: str) -> OverSeeds:
    distinct = {run.run: run.scores[task][SPLIT][metric] for run in runs}  # one run may stand for all seeds
    return seeds_interval(list(distinct.values()))


def _predictions(runs_dir: Path, runs: Sequence[Run], task: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[n]` and predicted classes `[s, n]` of validation."""
    labels, predictions = [], []
    for run in runs:
        table = read_predictions(runs_dir / run.run)
        table = table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["split"], SPLIT)))
        labels.append(table["label"].to_numpy())
        predictions.append(table["prediction"].to_numpy())
        if not np.array_equal(labels[0], labels[-1]):
            raise RunError("the runs did not predict the same rows", where=f"{task}, {SPLIT}", found=run.run)
    return labels[0], np.stack(predictions)


def sharing_table(found: Sequence[Sharing]) -> Table:
    """Each task's score, separate and joint, for people: one line for each kind of training."""
    number = len(found[0].seeds)
    metrics = ", ".join(
        f"{task} {metric}" for task, metric in dict.fromkeys((each.task, each.metric) for each in found)
    )
    table = FittingTable(
        caption=f"Score: validation ({metrics}), {'one seed' if number == 1 else f'the mean of {number} seeds'}"
        + ("" if number == 1 else " with its 95 % interval over seeds (Student's t)")
        + ". Against separate: what sharing gained (+) or cost (-), with its 95 % interval over validation rows "
        "(paired bootstrap" + (")" if number == 1 else ", the seeds' differences averaged)"),
    )
    for name in ("task", "heads"):
        table.add_column(name, no_wrap=True)
    for name in ("score" if number == 1 else "score [95 % over seeds]", "against separate [95 % over rows]"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for task in dict.fromkeys(each.task for each in found):
        of_task = [each for each in found if each.task == task]
        table.add_row(escape(task), "separate", escape(f"{of_task[0].separate.interval:.3f}"), "-")
        for each in of_task:
            heads = "joint" if each.freeze == "none" else f"joint, {each.freeze} frozen"
            shown = (f"{each.joint.interval:.3f}", f"{each.difference:+.3f}")
            table.add_row(*map(escape, (task, heads, *shown)))
        table.add_section()
    return table
