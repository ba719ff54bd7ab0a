"""A sweep on a real Ray cluster: number for number what one process comes to, whoever dies meanwhile."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
from cyclopts import UnknownOptionError

from pipeline import cli, stage_commands
from pipeline.config import RunsConfig
from pipeline.engine_config import EngineConfig
from pipeline.errors import MachineError, MissingPackage
from pipeline.heads import trying
from pipeline.heads.sweep import sweep
from pipeline.heads_config import SweepConfig
from pipeline.ray_cluster import Share, cluster
from pipeline.results.ledger import read_runs
from pipeline.results.trials import TRIALS
from pipeline.store_config import StoreConfig
from tests.ray_nodes import processes_called, ray_nodes

WORKER = "ray::SweepWorker"
CONFIG = SweepConfig(tasks=("cola",), heads=("logreg", "lda", "mlp"), strengths=(0.01, 1.0), seeds=2, threads=1)


@pytest.fixture(scope="module")
def address():
    with ray_nodes([1, 1, 1], gpus=1) as address:
        yield address


@pytest.fixture(scope="module")
def dull(corpora, write_cache, tmp_path_factory):
    """A cache in which a feature of one view does not vary."""
    splits = {}
    for split, corpus in corpora.items():
        X = corpus.X["L2-last"].copy()
        X[:, 3] = 1.5
        splits[split] = replace(corpus, X={**corpus.X, "L2-last": X})
    return write_cache(tmp_path_factory.mktemp("cache"), splits, shard_rows=128)


@pytest.fixture(scope="module")
def here(dull, tmp_path_factory):
    """What one process comes to: the sweep, and its run's folder."""
    runs = RunsConfig(tmp_path_factory.mktemp("runs"))
    [found] = sweep(CONFIG, dull, runs)
    return found, runs.runs_dir / found.run.run


def _assert_same(found, runs, here):
    """All but the seconds, and the bytes of all files that hold none."""
    expected, folder = here
    columns = [name for name in expected.trials.column_names if name != "seconds"]
    assert found.trials.select(columns).equals(expected.trials.select(columns))
    assert found.standings == expected.standings
    assert found.run.scores == expected.run.scores
    assert found.run.selection == expected.run.selection
    files = {path.name for path in folder.iterdir()} - {"run.json", TRIALS}
    assert "predictions.parquet" in files and len(files) > 1
    for name in files:
        assert (runs.runs_dir / found.run.run / name).read_bytes() == (folder / name).read_bytes(), name


def _kept(runs):
    return list(runs.runs_dir.glob(".*/*/*/*.parquet"))


def _when_kept(runs, act):
    """As soon as the trials of an attempt are kept: act, until that gives something, which goes into the list."""
    done = []

    def wait():
        while not (_kept(runs) and (found := act())):
            time.sleep(0.002)
        done.append(found)

    threading.Thread(target=wait, daemon=True).start()
    return done


def _kill_a_worker():
    for pid in processes_called(f"{WORKER}.attempt"):
        os.kill(pid, signal.SIGKILL)
        return pid
    return None


def test_workers_that_fetch_from_a_store_and_die_come_to_what_one_process_does(dull, here, address, tmp_path, capsys):
    runs = RunsConfig(tmp_path / "runs")
    killed = _when_kept(runs, _kill_a_worker)
    store = StoreConfig(tmp_path / "local", store=str(dull.cache_dir))
    [found] = sweep(CONFIG, store, runs, engine=EngineConfig("ray", 2, address))
    assert len(killed) == 1
    _assert_same(found, runs, here)
    said = capsys.readouterr().err
    assert "2 workers of 1 thread, on Ray" in said
    assert said.count("a worker died on L") == 1
    assert "note: cola, L2-last: 1 of 16 features does not vary and gets no weight: 3\n" in said
    assert not _kept(runs)
    assert [run.run for run in read_runs(runs.runs_dir)] == [found.run.run]


def test_a_sweep_that_was_stopped_on_ray_goes_on_without_it(dull, here, address, tmp_path, capsys, monkeypatch):
    runs, keep = RunsConfig(tmp_path / "runs"), trying._keep

    def keep_and_stop(path, trials):
        keep(path, trials)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trying, "_keep", keep_and_stop)
        sweep(CONFIG, dull, runs, engine=EngineConfig("ray", 1, address))
    until = time.monotonic() + 30
    while processes_called(WORKER):  # they do not outlive the command
        assert time.monotonic() < until
        time.sleep(0.05)
    kept = len(_kept(runs))
    assert read_runs(runs.runs_dir) == []
    capsys.readouterr()
    [found] = sweep(CONFIG, dull, runs)
    assert f"goes on where it was stopped: {kept} sets of views were done before" in capsys.readouterr().err
    _assert_same(found, runs, here)


def test_workers_of_a_sweep_leave_gpus_alone_and_know_how_many_share_a_machine(dull, address, tmp_path):
    with cluster(EngineConfig("ray", 2, address), 1, on_gpus=False) as share:
        assert share == Share(workers=2, cpus=1, gpus=0, together=2)
    with cluster(EngineConfig("ray", 0, address), 1, on_gpus=True) as share:
        assert share == Share(workers=1, cpus=1, gpus=1, together=1)
    with pytest.raises(MachineError, match="too few cores"):
        sweep(CONFIG, dull, RunsConfig(tmp_path), engine=EngineConfig("ray", 4, address))


def test_the_command_takes_the_engine_and_says_where_ray_is_missing(dull, tmp_path, monkeypatch):
    words = ["sweep", "--engine", "ray", "--workers", "2", "--address", "auto"]
    _, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments["engine"] == EngineConfig("ray", 2, "auto")
    with pytest.raises(UnknownOptionError, match="--only-shards"):
        cli.app.parse_args(["sweep", "--only-shards", "0::2"], exit_on_error=False, print_error=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match="'ray'"):
        stage_commands.sweep(
            what=CONFIG, cache=StoreConfig(dull.cache_dir), runs=RunsConfig(tmp_path), engine=EngineConfig("ray")
        )
