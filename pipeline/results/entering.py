"""Entering a run: its folder appears in the ledger whole, or not at all, and the flat table gets its lines."""

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.partials import partial_path
from pipeline.progress import say
from pipeline.results.ledger import PREDICTIONS, RECORD, Run, now
from pipeline.results.lines import LEDGER, update_ledger


def new_run_name(*parts: str) -> str:
    """A name that sorts by time, reads to a person, and is unique."""
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return f"{now():%Y%m%d-%H%M%S-%f}-{slug}-{uuid.uuid4().hex[:6]}"


@contextmanager
def new_run(runs_dir: Path, name: str) -> Iterator[Path]:
    """Give a partial folder to write a run into; on leaving it appears in the ledger, whole, or not at all.

    Raises:
        RunError: the folder cannot be made.
    """
    import shutil

    partial = partial_path(runs_dir / name)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(runs_dir / name)
    except OSError as error:
        raise RunError("a run cannot be stored", where=runs_dir / name, found=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    try:
        update_ledger(runs_dir)
    except RunError as error:  # of another run's record: this one is stored
        say(f"warning: {runs_dir / LEDGER} is not up to date: {error}")


def write_record(folder: Path, run: Run) -> None:
    """Write a run's record into its folder."""
    (folder / RECORD).write_text(json.dumps(run.to_dict(), indent=2, sort_keys=True, default=str) + "\n", "utf-8")


def write_predictions(folder: Path, tables: Sequence[pa.Table]) -> None:
    """Write a run's predictions, one table a split, into its folder."""
    pq.write_table(pa.concat_tables(tables), folder / PREDICTIONS)


def predictions_table(
    *,
    task: str,
    split: str,
    sample_ids: np.ndarray,
    texts: Sequence[str],
    y: np.ndarray | None,
    predictions: np.ndarray,
    probabilities: np.ndarray | None,
    sources: Sequence[str | None] | None = None,
) -> pa.Table:
    """Per-row predictions: row i is example i of its split.

    Args:
        sample_ids: `[n]` the examples' own numbers.
        texts: `[n]` the sentences.
        y: `[n]` labels, or None for an unlabelled split.
        predictions: `[n]` predicted classes.
        probabilities: `[n, c]`, or None for a head that has none.
        sources: `[n]` codes of where the rows are from, or None where nobody says.
    """
    rows = len(predictions)
    lists = pa.nulls(rows, pa.list_(pa.float64()))
    if probabilities is not None:
        lists = pa.array(probabilities.astype(np.float64).tolist(), pa.list_(pa.float64()))
    return pa.table(
        {
            "task": pa.array([task] * rows, pa.string()),
            "split": pa.array([split] * rows, pa.string()),
            "row": pa.array(np.arange(rows), pa.int64()),
            "idx": pa.array(sample_ids, pa.int64()),
            "label": pa.nulls(rows, pa.int64()) if y is None else pa.array(y, pa.int64()),
            "prediction": pa.array(predictions, pa.int64()),
            "probabilities": lists,
            "source": pa.nulls(rows, pa.string()) if sources is None else pa.array(sources, pa.string()),
            "text": pa.array(texts, pa.string()),
        }
    )
