"""The trials of a sweep: what was tried, how it did on rows held out, the leaderboard, and scores by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.results.counts import COUNTED
from pipeline.results.intervals import OverSeeds, seeds_interval
from pipeline.views import parse_views

TRIALS = "trials.parquet"
SCHEMA = pa.schema(
    [
        pa.field("views", pa.string(), nullable=False),
        pa.field("head", pa.string(), nullable=False),
        pa.field("setting", pa.string()),  # what its strength is called; null where it has none
        pa.field("strength", pa.float64()),
        pa.field("seed", pa.int64(), nullable=False),  # which way of holding out rows, from 0
        pa.field("rows_fit", pa.int64(), nullable=False),
        pa.field("rows_scored", pa.int64(), nullable=False),
        *(pa.field(metric, pa.float64(), nullable=False) for metric in COUNTED),  # on the rows scored
        pa.field("seconds", pa.float64(), nullable=False),  # an equal share of what those fitted with it took
    ]
)


@dataclass(frozen=True)
class Standing:
    """A candidate on the leaderboard.

    Args:
        views, head, setting, strength: what it is.
        held_out: its deciding metric over the ways of holding out.
        scores: the mean of every metric over them.
    """

    views: str
    head: str
    setting: str | None
    strength: float | None
    held_out: OverSeeds
    scores: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "views": self.views,
            "head": self.head,
            "setting": self.setting,
            "strength": self.strength,
            "held_out": self.held_out.interval.to_dict(),
            "scores": self.scores,
        }


def leaderboard(trials: pa.Table, metric: str) -> list[Standing]:
    """All candidates, the best first: by the mean of a metric on the rows held out.

    Of equals, the one with fewer views stands first, then the one that was tried first.
    """
    columns = {name: trials[name].to_pylist() for name in trials.column_names}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*(columns[n] for n in ("views", "head", "setting", "strength")), strict=True)):
        groups.setdefault(key, []).append(row)
    standings = [
        Standing(
            views=views,
            head=head,
            setting=setting,
            strength=strength,
            held_out=seeds_interval([columns[metric][row] for row in rows]),
            scores={name: float(np.mean([columns[name][row] for row in rows])) for name in COUNTED},
        )
        for (views, head, setting, strength), rows in groups.items()
    ]
    return sorted(standings, key=lambda each: (-each.held_out.interval.estimate, each.views.count("+")))


def placed(standings: Sequence[Standing], show: int) -> list[tuple[int, Standing]]:
    """The first of a leaderboard, and after them the best of every head that is not among them.

    Returns:
        each with its place, from 1, in order.
    """
    heads: dict[str, int] = {}
    for place, standing in enumerate(standings, start=1):
        heads.setdefault(standing.head, place)
    return [
        (place, standing)
        for place, standing in enumerate(standings, start=1)
        if place <= show or heads[standing.head] == place
    ]


def by_layer(trials: pa.Table, metric: str) -> list[dict[str, Any]]:
    """Score by layer and pooling: of every single view, its best candidate on the rows held out.

    Returns:
        in order, `layer`, `pooling`, `head`, `setting`, `strength`, and the metric's `mean`, `low` and `high`.
    """
    best: dict[str, Standing] = {}
    for standing in leaderboard(trials, metric):
        if "+" not in standing.views:
            best.setdefault(standing.views, standing)
    rows = []
    for name, standing in best.items():
        view, over = parse_views(name)[0], standing.held_out.interval
        record = {"layer": view.layer, "pooling": view.pooling, "head": standing.head, "setting": standing.setting}
        rows.append(record | {"strength": standing.strength, "mean": over.estimate, "low": over.low, "high": over.high})
    return sorted(rows, key=lambda row: (row["pooling"], row["layer"]))


def write_trials(path: Path, trials: pa.Table) -> None:
    """Write a sweep's trials."""
    pq.write_table(trials.cast(SCHEMA), path)


def read_trials(path: Path) -> pa.Table:
    """Read what `write_trials` wrote.

    Raises:
        RunError: the file is not there, or holds no trials.
    """
    try:
        return pq.read_table(path).cast(SCHEMA)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise RunError("the trials of a sweep cannot be read", where=path, found=error) from error
