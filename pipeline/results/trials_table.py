"""A sweep for people: its leaderboard, and scores by layer and pooling."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from pipeline.fitting_table import FittingTable
from pipeline.results.ledger import Run
from pipeline.results.trials import Standing, placed


def leaderboard_table(run: Run, standings: Sequence[Standing], metric: str, show: int) -> Table:
    """The best that was tried, and the best of every other head; of the selected one alone the score on validation."""
    [task] = run.tasks
    selection, scores = run.selection, run.scores[task]["validation"]
    bounds = run.statistics[task]["validation"]["intervals"][metric]
    table = FittingTable(
        dispensable=("f1", "balanced accuracy", "accuracy", "validation"),
        title=f"{task}: {selection['tried']:,} tried, {selection['views']} sets of views, {selection['trials']:,} fits",
        caption=f"by {selection['by']}, [95 % interval] of each alone: the best of {selection['tried']:,} looks better "
        f"there than it is; selected and scored once on validation: {metric} "
        f"{scores[metric]:.3f} [{bounds['low']:.3f}, {bounds['high']:.3f}], as run {run.run}",
    )
    numbers = ("held-out", "accuracy", "balanced accuracy", "f1", "validation")
    for name in ("", "views", "head", *numbers):
        table.add_column(
            name, justify="right" if name in ("", *numbers) else "left", overflow="fold", no_wrap=name != "views"
        )
    for place, each in placed(standings, show):
        setting = "" if each.setting is None else f" {each.setting}={each.strength:.3g}"
        others = [f"{each.scores[name]:.3f}" for name in ("accuracy", "balanced_accuracy", "f1")]
        shown = f"{metric} {scores[metric]:.3f}" if place == 1 else ""
        table.add_row(
            str(place),
            each.views,
            f"{each.head}{setting}",
            f"{metric} {each.held_out.interval:.3f}",
            *others,
            shown,
            end_section=place == show,
        )
    return table


def layers_table(task: str, layers: Sequence[dict[str, Any]], metric: str) -> Table:
    """The best held-out score of each single view: a line a layer, a column a pooling."""
    poolings = list(dict.fromkeys(row["pooling"] for row in layers))
    table = Table(title=f"{task}: held-out {metric} by layer and pooling, * the best of each pooling")
    table.add_column("layer", justify="right")
    for pooling in poolings:
        table.add_column(pooling, justify="right")
    best = {pooling: max(row["mean"] for row in layers if row["pooling"] == pooling) for pooling in poolings}
    for layer in sorted({row["layer"] for row in layers}):
        cells = []
        for pooling in poolings:
            found = [row["mean"] for row in layers if (row["layer"], row["pooling"]) == (layer, pooling)]
            cells.append(f"{found[0]:.3f}{' *' if found[0] == best[pooling] else ''}" if found else "")
        table.add_row(str(layer), *cells)
    return table
