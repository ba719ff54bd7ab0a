"""GLUE's submission files: every index once, right counts, and nothing is written that was not read back."""

import json
import sys
import zipfile

import numpy as np
import pytest

from pipeline import cli
from pipeline.errors import ConfigError, RunError
from pipeline.results import submission
from pipeline.results.best_runs import best_run
from pipeline.results.entering import new_run, predictions_table, write_predictions, write_record
from pipeline.results.submission import GLUE, Predicted, check_submission, lines_of_file, write_submission

ROWS = {"cola": 1063, "sst2": 1821}


def classes(task, rows=None):
    return np.random.default_rng(len(task)).integers(0, 2, rows or ROWS[task])


@pytest.fixture
def entered(tmp_path, make_run):
    """Enter a run with predictions of some splits; by default of GLUE's whole test set, in no order of its indices."""

    def enter(name, task="cola", *, split="test", rows=None, held_out=0.5, **changes):
        found = classes(task, rows)
        idx = np.random.default_rng(1).permutation(len(found))
        table = predictions_table(
            task=task, split=split, sample_ids=idx, texts=["x"] * len(found), y=None, predictions=found[idx],
            probabilities=None,
        )  # fmt: skip
        scores = {task: {"held_out": {"mcc": held_out, "accuracy": held_out}}}
        held = {task: {"held_out": {"texts": "sha256:1"}}}
        run = make_run(name, tasks=(task,), scores=scores, baseline={}, statistics=held, **changes)
        with new_run(tmp_path / "runs", name) as folder:
            write_record(folder, run)
            write_predictions(folder, [table])
        return run

    return enter


@pytest.fixture
def submit(tmp_path, monkeypatch, capsys):
    """`pipeline submit` in a folder of its own: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", "submit", *map(str, words), "--runs-dir", "runs"])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        return code, *capsys.readouterr()

    return run


def test_the_zip_has_both_files_with_every_index_in_order(entered, submit, tmp_path):
    for task in ROWS:
        entered(f"20260101-{task}", task)
    code, out, err = submit("20260101-cola", "20260101-sst2", "--json")
    assert code == 0, err
    assert [(each["file"], each["rows"]) for each in json.loads(out)["tasks"]] == [
        ("CoLA.tsv", 1063),
        ("SST-2.tsv", 1821),
    ]
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["CoLA.tsv", "SST-2.tsv"]
        for task in ROWS:
            header, *lines = archive.read(GLUE[task].file).decode().removesuffix("\n").split("\n")
            assert header == "index\tprediction"
            assert lines == [f"{index}\t{number}" for index, number in enumerate(classes(task))]
    before = (tmp_path / "submission.zip").read_bytes()
    assert "there already" in submit()[2]
    assert submit("--runs", "20260101-cola", "20260101-sst2", "--force")[0] == 0
    assert (tmp_path / "submission.zip").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "submission.zip"]


def test_what_is_missing_is_said_with_the_commands_that_make_it_and_nothing_is_written(entered, submit, tmp_path):
    entered("20260101-cola", split="validation")
    entered("20260101-sst2", "sst2", rows=20)
    code, out, err = submit()
    assert (code, out) == (2, "")
    assert "cola: the run has no predictions of the test set" in err
    assert "pipeline predict 20260101-cola --file data/glue/CoLA/test.tsv --to cola.parquet" in err
    assert "pipeline extract --splits test" in err
    assert "expected: 1,821 rows" in submit("--tasks", "sst2")[2]
    assert "exactly one of the runs must be of it" in submit("20260101-sst2")[2]
    entered("20260102-sst2", "sst2")
    assert "found: 20260101-sst2, 20260102-sst2\n" in submit("20260101-sst2", "20260102-sst2", "--tasks", "sst2")[2]
    assert not (tmp_path / "submission.zip").exists()
    assert submit("20260101-sst2", "--tasks", "sst2", "--any-rows")[0] == 0


def test_what_is_to_be_done_is_of_the_runs_own_data_with_the_options_that_were_given(entered, submit, monkeypatch):
    monkeypatch.setenv("GLUE_DIR", "elsewhere")
    entered("20260101-cola", split="validation")
    assert "--file elsewhere/CoLA/test.tsv" in submit("--tasks", "cola")[2]
    entered("20260102-cola", split="validation", config={"data": "sample", "metric": "mcc"})
    err = submit("20260102-cola", "--tasks", "cola", "--any-rows")[2]
    assert "expected: rows of test" in err
    assert "--file data/sample/CoLA/test.tsv" in err
    assert "--predictions cola=cola.parquet --tasks cola --any-rows;" in err


def test_a_run_on_other_data_is_refused(entered, submit):
    entered("20260101-cola", rows=20, config={"data": "sample", "metric": "mcc"})
    assert "not GLUE's" in submit("20260101-cola", "--tasks", "cola")[2]
    assert "no run can be chosen" in submit("--tasks", "cola")[2]


def test_predictions_of_a_file_stand_in_for_a_runs_own(entered, submit, tmp_path):
    entered("20260101-sst2", "sst2")
    rows = [f"{index}\tA sentence .\t{number}" for index, number in enumerate(classes("cola"))]
    (tmp_path / "cola.tsv").write_text("\n".join(["index\tsentence\tprediction", *rows]) + "\n")
    assert submit("--predictions", "cola=cola.tsv")[0] == 0
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.read("CoLA.tsv").decode().split("\n")[5] == f"4\t{classes('cola')[4]}"
    (tmp_path / "cola.tsv").write_text("index\tprediction\n0\t1\none\t1\n")
    assert "cola.tsv, row 3" in submit("--predictions", "cola=cola.tsv", "--force")[2]
    err = submit("--predictions", "cola=not here.parquet", "--force")[2]
    assert "no such file of predictions" in err
    assert "--to 'not here.parquet' writes one" in err
    assert "names no task's predictions" in submit("--predictions", "mnli=cola.tsv")[2]


def test_a_file_of_another_task_is_refused(entered, submit, tmp_path):
    entered("20260101-sst2", "sst2")
    rows = "".join(f"{index},{number},{{}}\n" for index, number in enumerate(classes("cola")))
    for header, cells, refused in (
        ("label", "negative", True),
        ("label", "unacceptable", False),
        ("label", "-1", False),
        ("probability_negative,probability_positive", "0.5,0.5", True),
        ("probability_unacceptable,probability_acceptable", "0.5,0.5", False),
    ):
        (tmp_path / "cola.csv").write_text(f"index,prediction,{header}\n" + rows.format(*[cells] * ROWS["cola"]))
        code, _, err = submit("--predictions", "cola=cola.csv", "--force")
        assert (code, "another task" in err) == ((2, True) if refused else (0, False))


def test_all_that_is_wrong_is_said_at_once(entered, submit, tmp_path):
    entered("20260101-sst2", "sst2", rows=20)
    entered("20260102-mnli", "mnli", rows=20)
    for content, part in (
        ("index,prediction\n99999999999999999999999,1\n", "index: this is no whole number, or too large"),
        ("index,model_prediction\n0,1\n", "without --prefix"),
        ("index,prediction\n0,1\n", "expected: 1,063 rows"),
    ):
        (tmp_path / "cola.csv").write_text(content)
        err = submit("20260101-sst2", "20260102", "nobody", "--predictions", "cola=cola.csv")[2]
        assert all(each in err for each in (part, "found: 20260102-mnli", "no such run", "expected: 1,821 rows")), err
        assert not any(option in err for option in ("--text-column", "--label-column"))
    err = submit("nobody", "--any-rows")[2]
    assert ("no such run" in err, "must be of it" in err) == (True, False)
    assert not (tmp_path / "submission.zip").exists()


def test_the_best_run_is_that_of_the_highest_score_on_held_out_rows(entered, tmp_path):
    entered("20260101-low", held_out=0.3)
    best = entered("20260102-high", held_out=0.6)
    entered("20260103-control", held_out=0.9, head="control")
    entered("20260104-sample", held_out=0.8, config={"data": "sample", "metric": "mcc"})
    drawn = [{"task": "cola", "split": "train", "rows": 100, "of": 8551}]
    entered("20260105-backbones", held_out=0.9, config={"data": "glue", "metric": "mcc", "sample": drawn})
    name, why = best_run(tmp_path / "runs", "cola", data=("glue", "hub"))
    assert (name, "accuracy 0.600" in why, "best of 2" in why) == (best.run, True, True)


@pytest.mark.parametrize(
    ("idx", "numbers", "part"),
    [
        (np.arange(1063) % 1062, classes("cola"), "not each there once"),
        (np.arange(1, 1064), classes("cola"), "not each there once"),
        (np.arange(1063), np.where(np.arange(1063) == 7, 2, 1), "index 7"),
        (np.arange(1062), classes("cola")[:1062], "1,062"),
    ],
)
def test_predictions_that_glue_would_refuse_are_refused(idx, numbers, part):
    with pytest.raises(RunError, match=part):
        lines_of_file(Predicted("cola", "a run", idx, numbers))


def test_a_zip_that_is_not_what_it_should_be_is_found_before_it_gets_its_name(tmp_path, monkeypatch):
    good = Predicted("cola", "a run", np.arange(1063), classes("cola"))
    with pytest.raises(ConfigError, match=r"a \.zip file"):
        write_submission(tmp_path / "x.tar", [good])
    whole = lines_of_file(good)
    for damaged, part in (
        ([*whole[:5], "4\t3", *whole[6:]], "line 6"),
        (["id\tlabel", *whole[1:]], "index\tprediction"),
        ([*whole[:-1], ""], "1,062"),
    ):
        path = tmp_path / "damaged.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("CoLA.tsv", "\n".join(damaged) + ("" if damaged[-1] == "" else "\n"))
        with pytest.raises(RunError, match=part):
            check_submission(path, {"CoLA.tsv": 1063})
        with pytest.raises(RunError, match=r"SST-2\.tsv"):
            check_submission(path, {"SST-2.tsv": 1821})
    monkeypatch.setattr(submission, "HEADER", "index\tprediction ")
    monkeypatch.setattr(submission, "lines_of_file", lambda predicted, any_rows: whole)
    with pytest.raises(RunError, match="not as GLUE wants it"):
        write_submission(tmp_path / "x.zip", [good])
    assert [each.name for each in tmp_path.iterdir()] == ["damaged.zip"]
