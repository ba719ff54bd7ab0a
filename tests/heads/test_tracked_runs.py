"""`--log mlflow` and `--log tensorboard`: runs read back with those tools' own readers."""

import importlib.util
import warnings
from dataclasses import replace

import pytest

from pipeline.config import RunsConfig
from pipeline.errors import MissingPackage
from pipeline.heads.train import train_heads
from pipeline.results import trackers
from pipeline.results.curves import curves_of
from pipeline.results.ledger import read_run, run_folders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of its own database


@pytest.fixture(scope="module")
def told(cache, config, tmp_path_factory):
    """Two heads told to MLflow, with the folder that they are in."""
    where = RunsConfig(tmp_path_factory.mktemp("runs"), "mlflow")
    return train_heads(replace(config, heads=("logreg", "mlp")), cache, where), where.runs_dir


@pytest.fixture(scope="module")
def client(told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, at import
        from mlflow import MlflowClient
    return MlflowClient(tracking_uri=f"sqlite:///{told[1] / 'mlflow.db'}")


def found_by(client, text):
    (experiment,) = client.search_experiments(filter_string="name = 'feature-cache-pipeline'")
    return client.search_runs([experiment.experiment_id], filter_string=text)


def test_runs_are_found_again_with_mlflows_own_client(told, client):
    runs, runs_dir = told
    best = max(run.scores["cola"]["validation"]["mcc"] for run in runs)
    (found,) = found_by(client, f"metrics.`cola/validation/mcc` >= {best} and params.backbone = 'smollm2-135m'")
    run = next(run for run in runs if run.run == found.info.run_name)
    assert found.data.metrics["cola/validation/mcc"] == best
    assert found.data.params["features"] == run.config["features"]
    assert found.data.tags["head"] == run.head
    assert found.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"run.json", "predictions.parquet"}
    assert len(run_folders(runs_dir)) == len(runs), "what MLflow keeps there is no run of ours"


def test_mlflow_has_the_learning_curve_of_a_head_that_has_one(told, client):
    logreg, mlp = told[0]
    (curve,) = curves_of(mlp)
    (found,) = found_by(client, f"tags.`mlflow.runName` = '{mlp.run}'")
    history = client.get_metric_history(found.info.run_id, "cola/curve/held_out/loss")
    assert [(each.step, each.value) for each in history] == list(curve.points)
    assert len(curve.points) == mlp.selection["tried"]
    assert min(curve.points, key=lambda point: point[1])[0] == mlp.selection["epochs"]
    assert curves_of(logreg) == []


def test_tensorboards_own_reader_finds_scores_and_curves(cache, config, tmp_path):
    (run,) = train_heads(replace(config, heads=("linear",)), cache, RunsConfig(tmp_path, "tensorboard"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own, at import
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / run.run / "tensorboard"))
    events.Reload()
    (score,) = events.Scalars("cola/validation/mcc")
    assert score.value == pytest.approx(run.scores["cola"]["validation"]["mcc"])
    assert [event.step for event in events.Scalars("cola/curve/held_out/loss")] == list(
        range(1, run.selection["tried"] + 1)
    )


def test_a_tracker_that_fails_loses_no_run_and_keeps_no_score_from_being_said(
    cache, config, tmp_path, monkeypatch, capsys
):
    def refuse(folder, run):
        raise ConnectionError("nobody listens\nand more")

    monkeypatch.setattr(trackers, "_to_mlflow", refuse)
    runs = train_heads(replace(config, heads=("logreg", "ridge")), cache, RunsConfig(tmp_path, "mlflow"))
    assert [read_run(tmp_path / run.run) for run in runs] == runs
    few, *said, last = capsys.readouterr().err.splitlines()
    assert few.startswith("cola: note: only 30 rows are held out")
    assert [line.split(":")[1].split()[0] for line in said] == ["logreg", "ridge"]
    names = ", ".join(run.run for run in runs)
    assert last == f"warning: not logged, but stored: {names}; mlflow failed: ConnectionError: nobody listens"


def test_a_package_that_is_missing_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "alembic" else find_spec(name))
    with pytest.raises(MissingPackage, match=r"'alembic'.*\n.*feature-cache-pipeline\[log\]"):
        RunsConfig(tmp_path, "mlflow")
    RunsConfig(tmp_path, "tensorboard")
