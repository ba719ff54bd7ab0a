"""Runs on disk: one folder each, with run.json, predictions.parquet and the head's weights."""

import datetime
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError

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
        costs: by task, what its cached features took, once, as `feature_costs` has it; of a live run nothing.
        inputs: by task, what is needed to predict new sentences: the `labels` by their numbers, and for each of its
            `views` the identity of its features less their texts; of a live run nothing, whose config has all of it.
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
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    created: str = field(default_factory=lambda: now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    versions: Mapping[str, str] = field(default_factory=lambda: {name: _version(name) for name in PACKAGES})

    def drawn(self, task: str, split: str) -> tuple[int, int]:
        """How many rows of a split were drawn to try something, and of how many; zeros where none was left out."""
        for each in self.config.get("sample") or ():
            if (each["task"], each["split"]) == (task, split) and each["rows"] < each["of"]:
                return int(each["rows"]), int(each["of"])
        return 0, 0

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


def now() -> datetime.datetime:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def read_predictions(folder: Path) -> pa.Table:
    """Read a run's predictions: the columns of `predictions_table`, all tasks and splits.

    Raises:
        RunError: the folder holds none, or they cannot be read.
    """
    path = folder / PREDICTIONS
    try:
        table = pq.read_table(path)
        for name in ("source", "text"):  # predictions had no such columns at first
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        return table.select(["task", "split", "row", "idx", "label", "prediction", "probabilities", "source", "text"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError("a run's predictions cannot be read", where=path, found=error) from error


def read_run(folder: Path) -> Run:
    """Read a run's record; a run is called as its folder is, so that a copy is a run of its own.

    Raises:
        RunError: the folder holds none, or it cannot be read.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        # runs had no such fields at first
        record = {"adapter": None, "statistics": {}, "costs": {}, "inputs": {}, **record, "run": folder.absolute().name}
        return Run(**{**{f.name: record[f.name] for f in fields(Run)}, "tasks": tuple(record["tasks"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("a run's record cannot be read", where=path, found=f"{type(error).__name__}: {error}") from error


def read_runs(runs_dir: Path) -> list[Run]:
    """All runs, the oldest first.

    Raises:
        RunError: a record cannot be read.
    """
    return [read_run(folder) for folder in run_folders(runs_dir)]


def run_folders(runs_dir: Path) -> list[Path]:
    """The folders of all runs, the oldest first."""
    folders = sorted(path.parent for path in runs_dir.glob(f"*/{RECORD}"))
    return [folder for folder in folders if not folder.name.startswith(".")]


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
    """The folder of the run called `name`, or whose name begins so, or else has it in it; its path is a name too.

    Raises:
        RunError: there is none, or there are several.
    """
    if "/" in name and Path(name).resolve().parent == runs_dir.resolve():
        name = Path(name).name
    names = [run.run for run in read_runs(runs_dir)]
    found = [each for each in names if each.startswith(name)] or [each for each in names if name in each]
    if name in found:
        found = [name]
    if len(found) != 1:
        more = f" and {len(found) - SHOWN} older ones" if len(found) > SHOWN else ""
        raise RunError(
            "no such run" if not found else "several runs are called so",
            where=runs_dir,
            found=f"{', '.join(reversed(found[-SHOWN:]))}{more}" if found else name or "an empty name",
            remedy="give more of the name" if found else "pipeline runs ls shows their names",
        )
    return runs_dir / found[0]
