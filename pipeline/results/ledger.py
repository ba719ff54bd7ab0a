"""Runs on disk: one folder each, with run.json, predictions.parquet and the head's weights."""

import datetime
import importlib.metadata
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.partials import partial_path

RECORD = "run.json"
PREDICTIONS = "predictions.parquet"
TRAININGS = ".training"
"""Beside the runs: the states of trainings under way or stopped, a folder a command, with a lock in it."""
PACKAGES = (
    "feature-cache-pipeline", "numpy", "scikit-learn", "torch", "skops", "safetensors", "h5py", "pyarrow",
    "transformers", "peft", "accelerate", "bitsandbytes",
)  # fmt: skip

SHOWN = 5
"""Runs whose names an error lists."""

Scores = dict[str, dict[str, dict[str, float]]]
"""By task, by split, by metric."""


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        run: its name, which is its folder's.
        created: when, in UTC.
        path: `cached` or `live`.
        tasks: their names.
        head: the head's kind.
        config: every setting.
        seed: of everything random.
        features: fingerprints by task, split and view.
        versions: of the packages.
        seconds: of training.
        scores: by task, split and metric. `held_out` are training rows that were selected on.
        baseline: the scores of the majority class of the training rows, alike.
        selection: what was chosen on the held-out rows.
        adapter: of a live run, what was put on or before the backbone: its `kind` (`lora`, `prompt`), its settings.
        statistics: by task and split, how sure its scores are and of which rows: the digest of the `texts`, `intervals`
            by metric, and where the rows' sources are known `sources` and `domains`.
    """

    run: str
    path: str
    tasks: tuple[str, ...]
    head: str
    config: Mapping[str, Any]
    seed: int
    features: Mapping[str, Any]
    seconds: float
    scores: Scores
    baseline: Scores
    selection: Mapping[str, Any]
    adapter: Mapping[str, Any] | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: _now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    versions: Mapping[str, str] = field(default_factory=lambda: {name: _version(name) for name in PACKAGES})

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return asdict(self)

    def describe_scores(self, task: str, metric: str | None = None, split: str = "validation") -> str:
        """A task's scores on one line, for people; those of always saying the commonest class are called so.

        Args:
            metric: the only one to show, or None for all.
        """
        scores, commonest = self.scores[task].get(split, {}), self.baseline[task].get(split)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if metric in (None, name))
        # the commonest class has scores of predicted classes alone, no probabilities
        is_so = commonest is not None and commonest.items() <= scores.items()
        return shown + (", which is what always saying the commonest class scores" if is_so else "")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def new_run_name(*parts: str) -> str:
    """A name that sorts by time, reads to a person, and is unique."""
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return f"{_now():%Y%m%d-%H%M%S-%f}-{slug}-{uuid.uuid4().hex[:6]}"


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
    y: np.ndarray | None,
    predictions: np.ndarray,
    probabilities: np.ndarray | None,
    sources: Sequence[str | None] | None = None,
) -> pa.Table:
    """Per-row predictions: row i is example i of its split.

    Args:
        sample_ids: `[n]` the examples' own numbers.
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
        }
    )


def read_predictions(folder: Path) -> pa.Table:
    """Read a run's predictions: the columns of `predictions_table`, all tasks and splits.

    Raises:
        RunError: the folder holds none, or they cannot be read.
    """
    path = folder / PREDICTIONS
    try:
        table = pq.read_table(path)
        if "source" not in table.column_names:  # predictions had no such column at first
            table = table.append_column("source", pa.nulls(table.num_rows, pa.string()))
        return table.select(["task", "split", "row", "idx", "label", "prediction", "probabilities", "source"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError("a run's predictions cannot be read", where=path, found=error) from error


def read_run(folder: Path) -> Run:
    """Read a run's record.

    Raises:
        RunError: the folder holds none, or it cannot be read.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        record = {"adapter": None, "statistics": {}, **record}  # runs had no such fields at first
        return Run(**{**{f.name: record[f.name] for f in fields(Run)}, "tasks": tuple(record["tasks"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("a run's record cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error


def read_runs(runs_dir: Path) -> list[Run]:
    """All runs, the oldest first.

    Raises:
        RunError: a record cannot be read.
    """
    folders = sorted(path.parent for path in runs_dir.glob(f"*/{RECORD}"))
    return [read_run(folder) for folder in folders if not folder.name.startswith(".")]


def runs_by_feature_set(runs_dir: Path) -> dict[str, list[str]]:
    """The names of the runs that trained on each feature set, the oldest first, by fingerprint.

    Raises:
        RunError: a record cannot be read: then nobody knows what it refers to.
    """
    users: dict[str, list[str]] = {}
    for run in read_runs(runs_dir):
        try:
            fingerprints = {name for splits in run.features.values() for names in splits.values() for name in names}
        except (AttributeError, TypeError) as error:
            raise RunError(
                "a run's record does not say which features it used", where=runs_dir / run.run, found=repr(run.features)
            ) from error
        for fingerprint in fingerprints:
            users.setdefault(fingerprint, []).append(run.run)
    return users


def find_run(runs_dir: Path, name: str) -> Path:
    """The folder of the run called `name`, or whose name begins so; its path is a name too.

    Raises:
        RunError: there is none, or there are several.
    """
    if "/" in name and Path(name).resolve().parent == runs_dir.resolve():
        name = Path(name).name
    found = [run.run for run in read_runs(runs_dir) if run.run.startswith(name)]
    if name in found:
        found = [name]
    if len(found) != 1:
        more = f" and {len(found) - SHOWN} older ones" if len(found) > SHOWN else ""
        raise RunError(
            "no such run" if not found else "several runs begin so",
            where=runs_dir,
            found=f"{', '.join(reversed(found[-SHOWN:]))}{more}" if found else name or "an empty name",
            remedy="pipeline runs ls shows their names",
        )
    return runs_dir / found[0]
