"""What a run predicted for the validation rows of one task, and which rows these are."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.results.ledger import Run, read_predictions

SPLIT = "validation"


@dataclass(frozen=True)
class Predicted:
    """Labelled rows of one task with what a run predicted for them.

    Args:
        key: the same for two runs that predicted the same sentences with the same labels in the same order.
        y, predictions: `[n]` classes.
        probabilities: `[n, c]`, or None where the run has none.
        texts: `[n]` the sentences, or None where the run does not hold them.
        sources: `[n]` codes of where the rows are from, or None where nobody says.
    """

    key: str
    y: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    texts: list[str] | None
    sources: list[str | None] | None

    @property
    def confidence(self) -> np.ndarray | None:
        """`[n]` the probability of the class that is predicted."""
        if self.probabilities is None:
            return None
        return np.asarray(np.take_along_axis(self.probabilities, self.predictions[:, None], axis=1)[:, 0])

    @property
    def classes(self) -> int:
        """How many classes the rows and predictions show."""
        wide = 0 if self.probabilities is None else self.probabilities.shape[1]
        return max(2, wide, 1 + int(max(self.y.max(), self.predictions.max())))


def read_predicted(folder: Path, run: Run) -> Mapping[str, Predicted]:
    """What a run predicted of validation, by task; tasks without labelled rows are left out.

    Raises:
        RunError: the run's predictions cannot be read.
    """
    table = read_predictions(folder)
    found = {}
    for task in run.tasks:
        rows = table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["split"], SPLIT)))
        if rows.num_rows and not rows["label"].null_count:
            digest = run.statistics.get(task, {}).get(SPLIT, {}).get("texts", "")
            found[task] = _predicted(rows.combine_chunks(), digest)
    return found


def _predicted(rows: pa.Table, digest: str) -> Predicted:
    y, predictions, sample_ids = (rows[name].to_numpy().astype(np.int64) for name in ("label", "prediction", "idx"))
    listed, texts, sources = rows["probabilities"], rows["text"], rows["source"]
    probabilities = None
    if not listed.null_count:
        flat = listed.combine_chunks().flatten().to_numpy().astype(np.float64)
        probabilities = flat.reshape(len(y), -1) if np.isfinite(flat).all() else None
    key = hashlib.sha256(b"".join([digest.encode(), sample_ids.tobytes(), y.tobytes()])).hexdigest()[:16]
    return Predicted(
        key=key,
        y=y,
        predictions=predictions,
        probabilities=probabilities,
        texts=None if texts.null_count else texts.to_pylist(),
        sources=None if sources.null_count == len(y) else sources.to_pylist(),
    )
