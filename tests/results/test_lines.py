"""The ledger as one flat file: what is in it, that it keeps up with the runs, and that other programs open it."""

import json
import multiprocessing
import shutil

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunError
from pipeline.results import lines
from pipeline.results.entering import new_run, write_record
from pipeline.results.lines import LEDGER, SCHEMA, ledger_table, lines_of, read_ledger, update_ledger

BOTH = {task: {"validation": {"mcc": mcc}, "held_out": {"mcc": 0.1}} for task, mcc in (("cola", 0.25), ("sst2", 0.75))}


def test_a_line_is_one_task_of_a_run(make_run):
    config = {"metrics": {"cola": "mcc", "sst2": "accuracy"}, "metric": "mcc", "features": "L20-mean"}
    cost = {"backbone_seconds": 60.0, "seconds": 70.0, "reading_seconds": 0.5, "passes": ["sha256:aa"]}
    costs = {"sst2": cost}
    both = make_run("b", tasks=("cola", "sst2"), scores=BOTH, config=config, adapter={"kind": "lora"}, costs=costs)
    table = ledger_table(lines_of([make_run("a"), both]))
    assert table.schema.equals(SCHEMA)
    first, cola, sst2 = table.to_pylist()
    assert (first["run"], first["task"], first["metric"], first["score"]) == ("a", "cola", "accuracy", 0.8)
    assert (first["low"], first["high"], first["majority_accuracy"]) == (0.78, 0.82, 0.691)
    assert (first["features"], first["seed"], first["seconds"], first["tried"]) == (["3fa9", "77aa"], 3, 1.25, 7)
    assert json.loads(first["config"])["backbone"] == first["backbone"] == "smollm2-135m"
    assert (cola["task"], cola["metric"], cola["score"], cola["held_out"]) == ("cola", "mcc", 0.25, 0.1)
    assert (sst2["task"], sst2["metric"], sst2["score"], sst2["mcc"]) == ("sst2", "accuracy", None, 0.75)
    assert (first["adapter"], sst2["adapter"]) == (None, "lora")
    assert (cola["backbone_seconds"], cola["break_even"]) == (None, None)
    assert (sst2["backbone_seconds"], sst2["stage_one_seconds"], sst2["break_even"]) == (60.0, 70.0, 2)


def test_live_runs_are_told_apart_by_their_settings(make_run):
    training = {"learning_rate": 1e-3, "epochs": 3.0, "max_rows": 0}
    lora = make_run(
        "a",
        adapter={"kind": "lora", "rank": 8, "alpha": 16},
        config={"training": training, "views": {"cola": "L20-mean"}},
    )
    prompt = make_run(
        "b",
        adapter={"kind": "prompt", "virtual_tokens": {"cola": 12}, "shared_virtual_tokens": 0},
        config={"training": training | {"max_rows": 500, "epochs": 0.5}},
    )
    first, second, cached = ledger_table(lines_of([lora, prompt, make_run("c")])).to_pylist()
    assert first["adapter_settings"] == "r=8 alpha=16 lr=0.001 epochs=3 seed=3"
    assert second["adapter_settings"] == "tokens=12 lr=0.001 epochs=0.5 rows=500 seed=3"
    assert (first["views"], second["views"], cached["adapter_settings"]) == ("L20-mean", None, None)


def test_the_file_keeps_up_with_the_runs(tmp_path, enter, monkeypatch):
    enter("20260101-000000-a")
    enter("20260102-000000-b")
    assert pq.read_table(tmp_path / LEDGER)["run"].to_pylist() == ["20260101-000000-a", "20260102-000000-b"]
    shutil.rmtree(tmp_path / "20260101-000000-a")
    assert read_ledger(tmp_path)["run"].to_pylist() == ["20260102-000000-b"]
    assert pq.read_table(tmp_path / LEDGER).num_rows == 1
    read = []
    monkeypatch.setattr(lines, "read_run", lambda folder, real=lines.read_run: read.append(folder.name) or real(folder))
    enter("20260103-000000-c")
    assert read == ["20260103-000000-c"]  # what the file holds is not read again


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1"), lambda path: path.unlink()])
def test_a_file_that_is_damaged_or_gone_is_made_again(tmp_path, enter, damage):
    enter("a")
    before = pq.read_table(tmp_path / LEDGER)
    damage(tmp_path / LEDGER)
    assert read_ledger(tmp_path).equals(before)
    assert pq.read_table(tmp_path / LEDGER).equals(before)


def test_a_file_of_another_version_is_made_again(tmp_path, enter):
    enter("a")
    table = pq.read_table(tmp_path / LEDGER)
    pq.write_table(table.drop_columns(["score"]), tmp_path / LEDGER)
    assert read_ledger(tmp_path).equals(table)


def test_a_broken_record_keeps_no_other_run_from_being_stored(tmp_path, enter, make_run, capsys):
    enter("a")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    run = make_run("b")
    with new_run(tmp_path, run.run) as folder:
        write_record(folder, run)
    assert (tmp_path / "b" / "run.json").is_file()
    assert "is not up to date" in capsys.readouterr().err
    with pytest.raises(RunError, match="record cannot be read"):
        update_ledger(tmp_path)


def _enter_many(folder, first, make):
    for number in range(first, first + 8):
        with new_run(folder, f"run-{number:02d}") as partial:
            write_record(partial, make(f"run-{number:02d}"))


def test_runs_of_several_processes_are_all_in_the_file(tmp_path, make_run):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_enter_many, args=(tmp_path, first, make_run)) for first in (0, 8, 16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert pq.read_table(tmp_path / LEDGER)["run"].to_pylist() == [f"run-{number:02d}" for number in range(24)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [LEDGER, *(f"run-{number:02d}" for number in range(24))]


def test_duckdb_and_pandas_open_it(tmp_path, enter):
    for number, name in enumerate("abc"):
        enter(name, seed=number)
    found = duckdb.sql(
        f"select head, count(*), max(score), config->>'$.backbone' from '{tmp_path / LEDGER}' group by all"
    ).fetchall()
    assert found == [("logreg", 3, 0.8, "smollm2-135m")]
    frame = pd.read_parquet(tmp_path / LEDGER)
    assert frame.set_index("run").loc["c", "seed"] == 2
    assert str(frame["created"].dtype).startswith("datetime64")
