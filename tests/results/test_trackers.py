"""What MLflow is told of runs that are made without training anything, read back with its own client."""

import fcntl
import threading
import warnings
from datetime import datetime

import pytest

from pipeline.config import RunsConfig
from pipeline.results import trackers
from pipeline.results.trackers import track, tracking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of its own database


def client_of(runs_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, at import
        from mlflow import MlflowClient
    return MlflowClient(tracking_uri=trackers.tracking_uri(runs_dir))


def told_of(runs_dir):
    client = client_of(runs_dir)
    (experiment,) = client.search_experiments(filter_string=f"name = '{trackers.EXPERIMENT}'")
    return client, client.search_runs([experiment.experiment_id])


def track_behind_another_command(run, runs):
    """Tell a run while another command is at it, which makes the database."""
    with (runs.runs_dir / trackers.LOCK).open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        telling = threading.Thread(target=track, args=(run, runs))
        telling.start()
        telling.join(0.3)
        assert telling.is_alive()
        assert not (runs.runs_dir / "mlflow.db").exists()
    telling.join()


def test_the_score_is_that_of_the_weights_kept_at_its_time_in_a_folder_of_any_name(enter, tmp_path):
    evaluations = [{"step": at, "held_out": {"cola": {"accuracy": value}}} for at, value in ((0, 0.5), (9, 0.7))]
    run = enter("run", held_out=0.5, seconds=60.0, selection={"evaluations": evaluations})
    runs_dir = tmp_path.rename(tmp_path.with_name("a?b#c%20d é"))
    track_behind_another_command(run, RunsConfig(runs_dir, "mlflow"))
    assert (runs_dir / "mlflow.db").is_file()
    client, (told,) = told_of(runs_dir)
    assert told.data.metrics["cola/held_out/accuracy"] == run.scores["cola"]["held_out"]["accuracy"]
    history = client.get_metric_history(told.info.run_id, "cola/curve/held_out/accuracy")
    assert [(each.step, each.value) for each in history] == [(0, 0.5), (9, 0.7)]
    assert told.info.end_time == pytest.approx(1000 * datetime.fromisoformat(run.created).timestamp(), abs=1)
    assert told.info.end_time - told.info.start_time == 60_000
    assert list((runs_dir / "mlflow-artifacts").rglob("run.json"))
    assert [each.path for each in client.list_artifacts(told.info.run_id)] == ["run.json"]


def test_a_server_that_does_not_answer_is_asked_once_a_command(enter, tmp_path, monkeypatch, capsys):
    asked, ask = [], trackers._to_mlflow
    monkeypatch.setattr(trackers, "_to_mlflow", lambda folder, run: (asked.append(run.run), ask(folder, run)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with tracking():
        for name in ("one", "two"):
            track(enter(name), RunsConfig(tmp_path, "mlflow"))
        assert capsys.readouterr().err == ""
    assert asked == ["one"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: not logged, but stored: one, two; mlflow failed: MlflowException: ")
    assert trackers.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0", "what people set stays"
    assert int(trackers.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 10
