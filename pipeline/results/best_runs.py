"""The best run of a task, by what it scored on training rows that were held out; validation has no say."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import RunError
from pipeline.results.baselines_table import CONTROL, MAJORITY, RANDOM, ZERO_SHOT
from pipeline.results.ledger import read_run
from pipeline.results.lines import read_ledger

NO_CANDIDATES = (CONTROL, MAJORITY, RANDOM, ZERO_SHOT)
"""What was trained to be held against others."""


def best_run(runs_dir: Path, task: str, *, data: Sequence[str]) -> tuple[str, str]:
    """Choose a task's run by its held-out score; of equals the newest. What was trained on a draw of the training rows
    to compare backbones is no candidate.

    Args:
        data: the sources whose runs may be chosen; any where it is empty.

    Returns:
        its name, and why it was chosen, for people.

    Raises:
        RunError: no run has such a score.
    """
    lines = [
        line
        for line in read_ledger(runs_dir).to_pylist()
        if line["task"] == task
        and line["held_out"] is not None
        and line["head"] not in NO_CANDIDATES
        and (not data or line["data"] in data)
        and not read_run(runs_dir / line["run"]).drawn(task, "train")[0]
    ]
    if not lines:
        raise RunError(
            f"{task}: no run can be chosen",
            where=runs_dir,
            expected="a run with a score on held-out training rows"
            + (f", on {' or '.join(data)} data" if data else ""),
            remedy=f"train one (pipeline heads --tasks {task}), or leave the task out with --tasks",
        )
    best = max(lines, key=lambda line: (line["held_out"], line["created"]))
    why = f"{best['metric']} {best['held_out']:.3f} on held-out training rows, the best of {len(lines)}"
    kinds = len({line["held_out_rows"] for line in lines})
    if kinds > 1:
        why += f" (they held out {kinds} different sets of rows: a rough comparison; a run that is named is taken)"
    return str(best["run"]), why
