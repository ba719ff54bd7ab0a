"""A run told to another tool that its people look at: MLflow, or TensorBoard."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Tracker
from pipeline.progress import say
from pipeline.results.curves import Curve, curves_of
from pipeline.results.ledger import PREDICTIONS, RECORD, Run, read_run

EXPERIMENT = "feature-cache-pipeline"
TENSORBOARD = "tensorboard"
"""The folder of its files, in a run's folder, and beside the state of a training under way."""
LONGEST_VALUE = 6000
"""Characters of a parameter, which MLflow takes at most."""
AT_ONCE = {"params": 100, "metrics": 1000}
"""Of a batch, which MLflow takes at most."""


def track(folder: Path, log: Tracker) -> None:
    """Tell a run that is in the ledger to a tracker; trouble with that is said, for the run itself is stored.

    Args:
        folder: the run's.
        log: whom.
    """
    if log == "none":
        return
    try:
        run = read_run(folder)
        if log == "mlflow":
            _to_mlflow(folder, run)
        else:
            _to_tensorboard(folder, run)
    except Exception as error:  # whatever another tool raises
        say(f"warning: {folder.name} is stored, but {log} did not take it: {type(error).__name__}: {error}")


def tracking_uri(runs_dir: Path) -> str:
    """Where MLflow keeps its runs: as MLFLOW_TRACKING_URI says, or in a file beside ours.

    MLflow 3 has no other local store than a database (https://mlflow.org/docs/latest/self-hosting/architecture/).
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_dir.resolve() / 'mlflow.db'}"


def final_scores(run: Run, curves: list[Curve]) -> dict[str, float]:
    """The run's scores by task, split and metric, in one name each; those that a curve has already are left out."""
    drawn = {curve.tag for curve in curves}
    scores = {
        f"{task}/{split}/{metric}": value
        for task, splits in run.scores.items()
        for split, of_split in splits.items()
        for metric, value in of_split.items()
    }
    return {tag: value for tag, value in scores.items() if tag not in drawn}


def _to_mlflow(folder: Path, run: Run) -> None:
    with _quiet():
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        client = MlflowClient(tracking_uri=tracking_uri(folder.parent))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else _new_experiment(client, folder.parent)
        created = _milliseconds(run)
        tags = {"path": run.path, "head": run.head, "tasks": ", ".join(run.tasks), "folder": str(folder.resolve())}
        told = client.create_run(experiment_id, start_time=created, tags=tags, run_name=run.run).info.run_id
        params = [Param(name, text[:LONGEST_VALUE]) for name, value in _settings(run).items() if (text := str(value))]
        curves = curves_of(run)
        metrics = [Metric(tag, value, created, 0) for tag, value in final_scores(run, curves).items()]
        metrics += [Metric(each.tag, value, created, int(at)) for each in curves for at, value in each.points]
        metrics.append(Metric("seconds", run.seconds, created, 0))
        for place in range(0, len(params), AT_ONCE["params"]):
            client.log_batch(told, params=params[place : place + AT_ONCE["params"]])
        for place in range(0, len(metrics), AT_ONCE["metrics"]):
            client.log_batch(told, metrics=metrics[place : place + AT_ONCE["metrics"]])
        for name in (RECORD, PREDICTIONS):
            if (folder / name).is_file():
                client.log_artifact(told, str(folder / name))
        client.set_terminated(told, end_time=created + round(1000 * run.seconds))


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
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_tensorboard(folder: Path, run: Run) -> None:
    from torch.utils.tensorboard import SummaryWriter

    there = folder / TENSORBOARD
    curves = curves_of(run)
    writer = SummaryWriter(str(there))
    try:
        for curve in curves if run.path == "cached" else ():  # the live path writes its own as it trains
            for at, value in curve.points:
                writer.add_scalar(curve.tag, value, int(at))
        for tag, value in final_scores(run, curves).items():
            writer.add_scalar(tag, value, 0)
    finally:
        writer.close()
