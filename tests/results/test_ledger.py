"""The ledger: a run is there whole or not at all, and is found by its name."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import HeadError, RunError
from pipeline.results import entering
from pipeline.results.entering import new_run, new_run_name, predictions_table, write_predictions, write_record
from pipeline.results.ledger import find_run, read_predictions, read_run, read_runs
from pipeline.results.lines import LEDGER, read_ledger, update_ledger


def test_a_run_appears_when_its_body_is_done(tmp_path, make_run):
    run = make_run()
    with new_run(tmp_path, run.run) as folder:
        write_record(folder, run)
        assert folder.parent == tmp_path
        assert not (tmp_path / run.run).exists()
        assert read_runs(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.run, LEDGER]
    assert [found.run for found in read_runs(tmp_path)] == [run.run]


@pytest.mark.parametrize("error", [HeadError("cannot be stored"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_body_that_raises_leaves_nothing(tmp_path, make_run, error):
    with pytest.raises(type(error)), new_run(tmp_path, "name") as folder:
        write_record(folder, make_run("name"))
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="cannot be stored") as caught, new_run(tmp_path, "name") as folder:
        (folder / "half").write_text("half")
        raise OSError(28, os.strerror(28))
    assert caught.value.found == os.strerror(28)
    assert caught.value.where == tmp_path / "name"
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_and_what_is_there_stays(tmp_path, enter):
    run = enter("20260101-000000-a")
    with pytest.raises(RunError), new_run(tmp_path, run.run) as folder:
        write_record(folder, run)
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.run, LEDGER]
    assert (tmp_path / run.run / "run.json").is_file()


def test_a_folder_that_a_killed_run_left_is_no_run(tmp_path, make_run, enter):
    run = enter("20260101-000000-whole")
    partial = tmp_path / ".20260102-000000-killed.partial"
    partial.mkdir()
    write_record(partial, make_run("20260102-000000-killed"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "report.html").write_text("")
    assert [found.run for found in read_runs(tmp_path)] == [run.run]


def test_what_is_read_is_what_was_written(tmp_path, enter):
    run = enter("20260101-000000-a", head="mlp", seed=9)
    read = read_run(tmp_path / run.run)
    assert json.loads(json.dumps(read.to_dict())) == json.loads(json.dumps(run.to_dict()))
    assert (read.head, read.seed, read.scores["cola"]["validation"]["mcc"]) == ("mlp", 9, 0.4)
    assert (read.created, read.versions) == (run.created, run.versions)


def test_a_record_is_json_that_people_can_read(tmp_path, enter):
    run = enter("20260101-000000-a")
    text = (tmp_path / run.run / "run.json").read_text("utf-8")
    record = json.loads(text)
    assert text == json.dumps(record, indent=2, sort_keys=True) + "\n"
    needed = {"run", "created", "path", "tasks", "head", "config", "seed", "features", "versions", "seconds", "scores"}
    assert needed <= set(record)


def test_runs_are_listed_the_oldest_first(tmp_path, enter):
    names = ["20260301-120000-c", "20251231-235959-a", "20260301-115959-b"]
    for name in names:
        enter(name)
    assert [run.run for run in read_runs(tmp_path)] == sorted(names)
    assert names != sorted(names)


def test_without_a_ledger_there_are_no_runs(tmp_path):
    assert read_runs(tmp_path / "nothing") == []


def test_names_sort_by_time_read_to_a_person_and_are_unique(monkeypatch):
    import datetime

    times = [datetime.datetime(2026, 3, day, 9, tzinfo=datetime.UTC) for day in (1, 2, 10)]
    names = []
    for time in times:
        monkeypatch.setattr(entering, "now", lambda time=time: time)
        names += [new_run_name("cola", "LinearSVC"), new_run_name("cola", "LinearSVC")]
    assert len(set(names)) == 6
    assert all(name.startswith("202603") and "-cola-linearsvc-" in name for name in names)
    assert [name[:15] for name in sorted(names)] == [name[:15] for name in names]
    assert "/" not in new_run_name("../etc", "a b/c")
    assert ".." not in new_run_name("../etc", "a b/c")


def test_names_of_runs_in_the_same_second_sort_by_time_too(monkeypatch):
    """Heads on cached features take less than a second, so that several runs fall into one."""
    import datetime

    names = []
    for microsecond, head in ((100_000, "zeta"), (400_000, "mlp"), (900_000, "alpha")):
        time = datetime.datetime(2026, 3, 1, 9, 0, 0, microsecond, tzinfo=datetime.UTC)
        monkeypatch.setattr(entering, "now", lambda time=time: time)
        names.append(new_run_name("cola", head))
    assert sorted(names) == names


def test_a_run_is_found_by_its_name_or_how_it_begins(tmp_path, enter):
    for name in ("20260101-000000-cola", "20260101-000000-cola-b", "20260202-000000-sst2"):
        enter(name)
    assert find_run(tmp_path, "20260202") == tmp_path / "20260202-000000-sst2"
    assert find_run(tmp_path, "20260101-000000-cola-b") == tmp_path / "20260101-000000-cola-b"
    assert (
        find_run(tmp_path, "20260101-000000-cola") == tmp_path / "20260101-000000-cola"
    )  # whole, though another begins so


def test_a_beginning_of_several_runs_is_refused(tmp_path, enter):
    for name in ("20260101-000000-cola", "20260101-000000-sst2", "20260202-000000-sst2"):
        enter(name)
    with pytest.raises(RunError, match="several") as caught:
        find_run(tmp_path, "20260101")
    assert caught.value.found == "20260101-000000-sst2, 20260101-000000-cola"
    with pytest.raises(RunError, match="several"):
        find_run(tmp_path, "sst2")
    assert find_run(tmp_path, "0000-cola") == tmp_path / "20260101-000000-cola"
    with pytest.raises(RunError, match="no such run") as caught:
        find_run(tmp_path, "mnli")
    assert caught.value.found == "mnli"
    assert "runs ls" in caught.value.remedy
    for day in range(4, 8):
        enter(f"2026010{day}-000000-cola")
    with pytest.raises(RunError, match="several") as caught:
        find_run(tmp_path, "2026")
    assert caught.value.found.startswith("20260202-000000-sst2, 20260107-000000-cola, ")  # the newest first
    assert caught.value.found.endswith("20260104-000000-cola and 2 older ones")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '"run"', "null", b"\xff\xfe", '{"run": "20260101-000000-a", "path": "cached"}']
)
def test_a_broken_record_is_said_with_its_path(tmp_path, enter, text):
    run = enter("20260101-000000-a")
    path = tmp_path / run.run / "run.json"
    whole = path.read_bytes()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (read_runs, lambda folder: read_run(folder / run.run), lambda folder: find_run(folder, run.run)):
        with pytest.raises(RunError, match="cannot be read") as caught:
            read(tmp_path)
        assert caught.value.where == path
    path.write_bytes(whole)
    assert read_run(tmp_path / run.run).run == run.run


def test_a_folder_without_a_record_is_no_run(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        read_run(tmp_path / "empty")


def _table(split: str, y: np.ndarray | None, probabilities: np.ndarray | None) -> pa.Table:
    ids, predictions = np.asarray([40, 20, 30]), np.asarray([1, 0, 1])
    texts = ["It was they.", "Was it them?", 'A lone " quote.']
    return predictions_table(
        task="cola", split=split, sample_ids=ids, texts=texts, y=y, predictions=predictions, probabilities=probabilities
    )


def test_predictions_keep_their_rows_splits_and_gaps(tmp_path):
    probabilities = np.asarray([[0.25, 0.75], [0.5, 0.5], [0.125, 0.875]], dtype=np.float32)
    tables = [_table("validation", np.asarray([1, 1, 0]), probabilities), _table("test", None, None)]
    write_predictions(tmp_path, tables)
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table["split"] == ["validation"] * 3 + ["test"] * 3
    assert table["row"] == [0, 1, 2, 0, 1, 2]
    assert table["idx"] == [40, 20, 30, 40, 20, 30]
    assert table["label"] == [1, 1, 0, None, None, None]
    assert table["prediction"] == [1, 0, 1, 1, 0, 1]
    assert table["probabilities"] == [*probabilities.tolist(), None, None, None]
    assert table["task"] == ["cola"] * 6
    assert table["text"] == ["It was they.", "Was it them?", 'A lone " quote.'] * 2


def test_a_record_from_before_there_were_statistics_is_read(tmp_path, enter):
    run = enter("20260101-000000-a")
    path = tmp_path / run.run / "run.json"
    record = json.loads(path.read_text("utf-8"))
    assert record.pop("statistics")["cola"]["validation"]["intervals"]["mcc"]["low"] == 0.341
    record.pop("adapter")
    path.write_text(json.dumps(record), "utf-8")
    read = read_run(tmp_path / run.run)
    assert (read.statistics, read.adapter, read.scores) == ({}, None, run.scores)


def test_predictions_say_where_their_rows_are_from(tmp_path):
    rows = {"task": "cola", "sample_ids": np.arange(3), "texts": "abc", "predictions": np.asarray([1, 0, 1])}
    rows |= {"probabilities": None}
    named = predictions_table(**rows, split="validation", y=np.asarray([1, 1, 0]), sources=["gj04", None, "swb04"])
    nameless = predictions_table(**rows, split="test", y=None)
    write_predictions(tmp_path, [named, nameless])
    assert read_predictions(tmp_path)["source"].to_pylist() == ["gj04", None, "swb04", None, None, None]


def test_predictions_from_before_rows_had_sources_or_sentences_are_read(tmp_path):
    table = _table("validation", np.asarray([1, 1, 0]), None)
    pq.write_table(table.drop_columns(["source", "text"]), tmp_path / "predictions.parquet")
    read = read_predictions(tmp_path)
    assert read.drop_columns(["text"]).equals(table.drop_columns(["text"]))
    assert read["text"].to_pylist() == [None, None, None]


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"not parquet"])
def test_predictions_that_cannot_be_read_are_said_with_their_path(tmp_path, content):
    path = tmp_path / "predictions.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="predictions cannot be read") as caught:
        read_predictions(tmp_path)
    assert caught.value.where == path


def test_a_table_that_is_no_table_of_predictions_is_refused(tmp_path):
    pq.write_table(pa.table({"row": [1]}), tmp_path / "predictions.parquet")
    with pytest.raises(RunError, match="predictions cannot be read"):
        read_predictions(tmp_path)


def test_a_copied_or_renamed_folder_is_a_run_of_its_own_name(tmp_path, enter):
    first = enter("20260101-000000-cola-logreg-aaaaaa")
    shutil.copytree(tmp_path / first.run, tmp_path / "best")
    (tmp_path / first.run).rename(tmp_path / "older")
    for _ in range(2):  # it comes to rest
        update_ledger(tmp_path)
        assert [line["run"] for line in read_ledger(tmp_path).to_pylist()] == ["best", "older"]
    assert find_run(tmp_path, "best") == tmp_path / "best"
    with pytest.raises(RunError, match="no such run"):
        find_run(tmp_path, "logreg")


def test_a_name_in_a_record_leads_to_no_other_place(tmp_path, enter):
    run = enter("20260101-000000-cola-logreg-aaaaaa")
    path = tmp_path / run.run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"run": "../evil"}), "utf-8")
    assert [each.run for each in read_runs(tmp_path)] == [run.run]
    with pytest.raises(RunError, match="no such run"):
        find_run(tmp_path, "../evil")
