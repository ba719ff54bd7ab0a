"""A run told to another tool that its people look at: MLflow, or TensorBoard."""

import contextlib
import fcntl
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import RunsConfig
from pipeline.progress import say
from pipeline.results.curves import curves_of
from pipeline.results.ledger import PREDICTIONS, RECORD, Run

EXPERIMENT = "feature-cache-pipeline"
TENSORBOARD = "tensorboard"
"""The folder of its files, in a run's folder, and beside the state of a training under way."""
LONGEST_VALUE = 6000
"""Characters of a parameter, which MLflow takes at most."""
AT_ONCE = {"params": 100, "metrics": 1000}
"""Of a batch, which MLflow takes at most."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""With a server, where people have not set these; MLflow's own would wait minutes for one that does not answer."""
LOCK = ".mlflow.lock"
"""Beside the database, held by whoever tells it a run: MLflow cannot make one database in two processes at once."""


@dataclass
class _Untold:
    """What a command could not tell, and why."""

    runs: list[str] = field(default_factory=list)
    cause: str = ""


_untold: _Untold | None = None


@contextmanager
def tracking() -> Iterator[None]:
    """A command's: within, a tracker that fails is not asked again; at the end it is said which runs it lacks."""
    global _untold
    if _untold is not None:  # a command of another command
        yield
        return
    untold = _untold = _Untold()
    try:
        yield
    finally:
        _untold = None
        if untold.runs:
            say(f"warning: not logged, but stored: {', '.join(untold.runs)}; {untold.cause}")


def track(run: Run, runs: RunsConfig) -> None:
    """Tell a run to a tracker; trouble with that is said, for the run itself is stored.

    Args:
        run: is in the ledger, and its scores have been said: a tracker can keep people waiting.
        runs: where it is stored, and whom to tell.
    """
    if runs.log == "none":
        return
    with tracking():
        assert _untold is not None, "it has just been made, if it was not there"
        if not _untold.cause:
            try:
                (_to_mlflow if runs.log == "mlflow" else _to_tensorboard)(runs.runs_dir / run.run, run)
            except Exception as error:  # whatever another tool raises
                first = next(iter(str(error).splitlines()), "")
                _untold.cause = f"{runs.log} failed: {type(error).__name__}: {first}"
        if _untold.cause:
            _untold.runs.append(run.run)


def tracking_uri(runs_dir: Path) -> str:
    """Where MLflow keeps its runs: as MLFLOW_TRACKING_URI says, or in a file beside ours.

    MLflow 3 has no other local store than a database (https://mlflow.org/docs/latest/self-hosting/architecture/).
    """
    from sqlalchemy.engine import URL

    own = URL.create("sqlite", database=str(runs_dir.resolve() / "mlflow.db"))  # a folder's name may hold a ?
    return os.environ.get("MLFLOW_TRACKING_URI") or own.render_as_string()


def final_scores(run: Run) -> dict[str, float]:
    """The run's scores, of the weights that were kept, as `<task>/<split>/<metric>`; curves have other names."""
    return {
        f"{task}/{split}/{metric}": value
        for task, splits in run.scores.items()
        for split, of_split in splits.items()
        for metric, value in of_split.items()
    }


def _to_mlflow(folder: Path, run: Run) -> None:
    with _quiet(), _alone(folder.parent):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client = MlflowClient(tracking_uri=tracking_uri(folder.parent))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else _new_experiment(client, folder.parent)
        ended = _milliseconds(run)  # a run's record is made when its training is over
        began = ended - round(1000 * run.seconds)
        tags = {"path": run.path, "head": run.head, "tasks": ", ".join(run.tasks), "folder": str(folder.resolve())}
        told = client.create_run(experiment_id, start_time=began, tags=tags, run_name=run.run).info.run_id
        params = [Param(name, text[:LONGEST_VALUE]) for name, value in _settings(run).items() if (text := str(value))]
        metrics = [Metric(tag, value, ended, 0) for tag, value in final_scores(run).items()]
        metrics += [Metric(each.tag, value, ended, int(at)) for each in curves_of(run) for at, value in each.points]
        metrics.append(Metric("seconds", run.seconds, ended, 0))
        for place in range(0, len(params), AT_ONCE["params"]):
            client.log_batch(told, params=params[place : place + AT_ONCE["params"]])
        for place in range(0, len(metrics), AT_ONCE["metrics"]):
            client.log_batch(told, metrics=metrics[place : place + AT_ONCE["metrics"]])
        for name in (RECORD, PREDICTIONS):
            if (folder / name).is_file():
                client.log_artifact(told, str(folder / name))
        client.set_terminated(told, end_time=ended)


def _new_experiment(client: Any, runs_dir: Path) -> str:
    place = None if os.environ.get("MLFLOW_TRACKING_URI") else (runs_dir.resolve() / "mlflow-artifacts").as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=place))


def _milliseconds(run: Run) -> int:
    from datetime import datetime

    return round(1000 * datetime.fromisoformat(run.created).timestamp())


def _settings(run: Run) -> dict[str, Any]:
    """A run's settings by dotted names, as MLflow allows them."""
    flat: dict[str, Any] = {"seed": run.seed}

    def add(record: Mapping[str, Any], prefix: str) -> None:
        for name, value in record.items():
            if isinstance(value, Mapping):
                add(value, f"{prefix}{name}.")
            else:
                flat[f"{prefix}{name}"] = value

    add(run.config, "")
    add(run.adapter or {}, "adapter.")
    return flat


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow without its greetings and its own warnings, and without telling its makers of it."""
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
        os.environ.setdefault(name, value)
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _alone(runs_dir: Path) -> Iterator[None]:
    """Within, no other process of ours tells a run to the database beside these runs; a server sees to that itself."""
    with contextlib.ExitStack() as stack:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            lock = stack.enter_context((runs_dir / LOCK).open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _to_tensorboard(folder: Path, run: Run) -> None:
    from torch.utils.tensorboard import SummaryWriter

    there = folder / TENSORBOARD
    writer = SummaryWriter(str(there))
    try:
        for curve in curves_of(run) if run.path == "cached" else ():  # the live path writes its own as it trains
            for at, value in curve.points:
                writer.add_scalar(curve.tag, value, int(at))
        for tag, value in final_scores(run).items():
            writer.add_scalar(tag, value, 0)
    finally:
        writer.close()
