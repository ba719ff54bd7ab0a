"""A trained head becomes a run: scored on the splits that it did not train on, stored, and entered in the ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import RunsConfig
from pipeline.heads.features import SplitFeatures
from pipeline.heads.store import save_head
from pipeline.results.calibration import probabilities_of
from pipeline.results.entering import new_run, new_run_name, write_predictions, write_record
from pipeline.results.ledger import Run
from pipeline.results.metrics import score_probabilities
from pipeline.results.scored import ScoredSplits, over_labels
from pipeline.tasks.spec import TaskSpec


@dataclass(frozen=True)
class TrainedHead:
    """A head with what is known of its training.

    Args:
        kind: its name in the ledger.
        head: with scikit-learn's `predict`.
        held_out: its scores on training rows that it was not fitted on when these were taken.
        selection: what was chosen there.
        temperature: that its decision values were found to need there, or None where it has none.
        seconds: of training.
        seed: of everything random.
        held_out_texts: the digest of the rows that `held_out` is of, as `digest_of_held_out` makes it.
    """

    kind: str
    head: Any
    held_out: Mapping[str, float]
    selection: Mapping[str, Any]
    temperature: float | None
    seconds: float
    seed: int
    held_out_texts: str | None = None


def enter_run(
    task: TaskSpec,
    trained: TrainedHead,
    train: SplitFeatures,
    splits: Mapping[str, SplitFeatures],
    settings: Mapping[str, Any],
    runs: RunsConfig,
    also: Callable[[Path, Run], None] = lambda folder, run: None,
) -> Run:
    """Score a head, store it with its predictions, and enter the run.

    Args:
        train: the rows it was trained on; their `X` is not looked at.
        splits: the others.
        settings: every setting of the run.
        also: stores more in the run's folder, before the run appears in the ledger.
    """
    assert train.y is not None
    scored = ScoredSplits(task.name, len(task.labels), train.y, train.sources)
    if trained.held_out_texts is not None:
        scored.statistics["held_out"] = {"texts": trained.held_out_texts}
    head = trained.head
    for split, rows in splits.items():
        predictions = np.asarray(head.predict(rows.X), dtype=np.int64)
        probabilities = head.predict_proba(rows.X) if hasattr(head, "predict_proba") else None
        scored.add(split, rows.sample_ids, rows.texts, rows.y, predictions, probabilities, head.classes_, rows.sources)
        if rows.y is not None and trained.temperature is not None:
            decisions = head.decision_function(rows.X)
            scored.statistics[split]["calibration"] = calibration(
                rows.y, decisions, trained.temperature, head.classes_, len(task.labels)
            )
    run = Run(
        run=new_run_name(task.name, trained.kind),
        path="cached",
        tasks=(task.name,),
        head=trained.kind,
        config=settings,
        seed=trained.seed,
        features={task.name: {split: list(rows.fingerprints) for split, rows in {"train": train, **splits}.items()}},
        seconds=round(trained.seconds, 3),
        scores={task.name: {"held_out": dict(trained.held_out), **scored.scores}},
        baseline={task.name: scored.baseline},
        selection=trained.selection,
        statistics={task.name: scored.statistics},
        costs=feature_costs({task.name: [train, *splits.values()]}),
        inputs={task.name: inputs_of(task, train)},
    )
    with new_run(runs.runs_dir, run.run) as folder:
        save_head(head, folder)
        write_predictions(folder, scored.tables)
        write_record(folder, run)
        also(folder, run)
    return run


def inputs_of(task: TaskSpec, train: SplitFeatures) -> dict[str, Any]:
    """What a head needs to know of sentences to predict them, and what its classes are called, as a run has it."""
    return {"labels": list(task.labels), "views": [dict(identity) for identity in train.identities]}


def feature_costs(splits: Mapping[str, Sequence[SplitFeatures]]) -> dict[str, dict[str, Any]]:
    """What each task's features took, all splits together; a task of which that is not known is left out.

    Args:
        splits: by task, those that a run used.

    Returns:
        by task, `backbone_seconds` and `seconds` of stage one, once for all who use the features; `reading_seconds` of
        this run, None where it read them as it went; `devices`; and `passes`, one digest a split: runs with the same
        ones share what was computed.
    """
    found = {}
    for task, used in splits.items():
        costs = [each.cost for each in used if each.cost is not None]
        if len(costs) < len(used):
            continue
        reading = [each.reading_seconds for each in used]
        found[task] = {
            "backbone_seconds": round(sum(cost.backbone_seconds for cost in costs), 3),
            "seconds": round(sum(cost.seconds for cost in costs), 3),
            "reading_seconds": None if None in reading else round(sum(each or 0.0 for each in reading), 3),
            "devices": sorted({device for cost in costs for device in cost.devices}),
            "passes": [cost.passes for cost in costs],
        }
    return found


def calibration(
    y: np.ndarray, decisions: np.ndarray, temperature: float, classes: np.ndarray, labels: int
) -> dict[str, Any]:
    """Log-loss and expected calibration error before and after decision values are divided by a temperature."""
    found: dict[str, Any] = {"temperature": temperature}
    for name, divisor in (("before", 1.0), ("after", temperature)):
        scores = score_probabilities(y, over_labels(probabilities_of(decisions, divisor), classes, labels))
        found[name] = {metric: scores[metric] for metric in ("log_loss", "ece") if metric in scores}
    return found
