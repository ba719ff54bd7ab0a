"""Two runs on the same rows, and two that are not."""

import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from pipeline import cli
from pipeline.errors import ConfigError, RunError
from pipeline.results.compare import compare_runs, comparison_table
from pipeline.results.entering import new_run, predictions_table, write_predictions, write_record
from pipeline.results.intervals import bootstrap_interval
from pipeline.results.paired import mcnemar_exact, paired_bootstrap

RNG = np.random.default_rng(0)
Y = (RNG.random(200) < 0.7).astype(np.int64)
A = np.where(RNG.random(200) < 0.75, Y, 1 - Y)
B = np.where(RNG.random(200) < 0.6, Y, A)
IDS = np.arange(200) * 2


@pytest.fixture
def enter_predictions(tmp_path, make_run):
    """Enter a run of some tasks with its predictions for validation; give its folder."""

    def enter(name: str, *tasks: str, predictions=A, y=Y, ids=IDS, probabilities=None, texts=None, **changes):
        tasks = tasks or ("cola",)
        statistics = {} if texts is None else {task: {"validation": {"texts": texts}} for task in tasks}
        changes = {"config": {"metrics": {"cola": "mcc"}}} | changes
        run = make_run(name, tasks=tasks, scores={}, statistics=statistics, **changes)
        tables = [
            predictions_table(
                task=task,
                split=split,
                sample_ids=ids,
                texts=[f"sentence {n}" for n in ids],
                y=labels,
                predictions=predictions,
                probabilities=probabilities,
            )
            for task in run.tasks
            for split, labels in (("validation", y), ("test", None))
        ]
        with new_run(tmp_path, name) as folder:
            write_predictions(folder, tables)
            write_record(folder, run)
        return tmp_path / name

    return enter


def test_a_comparison_is_made_of_the_runs_validation_rows(enter_predictions):
    [found] = compare_runs(enter_predictions("a"), enter_predictions("b", predictions=B))
    assert (found.task, found.split, found.rows, found.metric, found.runs) == (
        "cola",
        "validation",
        200,
        "mcc",
        ("a", "b"),
    )
    assert found.scores == (bootstrap_interval("mcc", Y, A), bootstrap_interval("mcc", Y, B))
    assert found.paired == paired_bootstrap("mcc", Y, A, B)
    assert found.paired.difference.estimate == pytest.approx(found.scores[1].estimate - found.scores[0].estimate)
    assert found.mcnemar == mcnemar_exact(Y, A, B)
    assert found.paired.difference.low > 0
    assert found.mcnemar.c > found.mcnemar.b


def test_a_run_compared_with_itself_is_no_better(enter_predictions):
    folder = enter_predictions("a")
    [found] = compare_runs(folder, folder)
    assert (found.paired.difference.estimate, found.paired.p, found.mcnemar.p) == (0.0, 1.0, 1.0)


def test_every_common_task_is_compared_by_the_metric_that_the_run_has_for_it(enter_predictions):
    a = enter_predictions("a", "cola", "sst2", "tone", config={"metric": "f1", "metrics": {"sst2": "accuracy"}})
    b = enter_predictions("b", "tone", "sst2", predictions=B, config={})
    found = compare_runs(a, b)
    assert [(each.task, each.metric) for each in found] == [("sst2", "accuracy"), ("tone", "f1")]
    assert [each.metric for each in compare_runs(b, a)] == ["accuracy", "accuracy"]  # such a run says none
    assert [each.metric for each in compare_runs(a, b, metric="balanced_accuracy")] == ["balanced_accuracy"] * 2


def test_probabilities_are_compared_where_both_runs_have_them(enter_predictions):
    probabilities = np.where(A[:, None] == [0, 1], 0.75, 0.25)
    a = enter_predictions("a", probabilities=probabilities)
    b = enter_predictions("b", predictions=B, probabilities=np.where(B[:, None] == [0, 1], 0.75, 0.25))
    [found] = compare_runs(a, b, metric="log_loss")
    assert found.paired.difference.high < 0
    with pytest.raises(RunError, match="no probabilities") as caught:
        compare_runs(a, enter_predictions("c", head="LinearSVC"), metric="log_loss")
    assert (caught.value.where, caught.value.found) == ("c", "LinearSVC")


def test_runs_of_other_rows_are_refused(enter_predictions):
    a = enter_predictions("a")
    other_ids, other_labels = IDS.copy(), Y.copy()
    other_ids[7] += 1
    other_labels[[3, 9]] = 1 - other_labels[[3, 9]]
    for name, changes, words in (
        ("b", {"ids": other_ids}, ("1 rows, the first of them row 7", "idx 14 with", "idx 15 with")),
        ("c", {"y": other_labels}, ("2 rows, the first of them row 3", f"label {Y[3]} in a", f"label {1 - Y[3]} in c")),
        ("d", {"ids": IDS[:-1], "y": Y[:-1], "predictions": A[:-1]}, ("200 rows in a", "199 rows in d")),
    ):
        with pytest.raises(RunError, match="did not predict the same rows") as caught:
            compare_runs(a, enter_predictions(name, **changes))
        for word in words:
            assert word in str(caught.value)


def test_runs_of_other_sentences_are_refused_though_numbers_and_labels_are_the_same(enter_predictions, capsys):
    a, same = enter_predictions("a", texts="sha256:aa"), enter_predictions("b", texts="sha256:aa")
    old, other = enter_predictions("c"), enter_predictions("d", texts="sha256:dd")
    assert compare_runs(a, same)[0].rows == 200
    assert capsys.readouterr().err == ""
    assert compare_runs(a, old)[0].rows == 200
    assert "note: c does not say which sentences it predicted" in capsys.readouterr().err
    with pytest.raises(RunError, match="did not predict the same rows") as caught:
        compare_runs(a, other)
    assert caught.value.where == "cola, validation: their sentences"
    assert caught.value.found == "sha256:aa in a; sha256:dd in d"


def test_runs_that_cannot_be_compared_are_refused(enter_predictions):
    a = enter_predictions("a")
    with pytest.raises(RunError, match="no task in common") as caught:
        compare_runs(a, enter_predictions("b", "sst2"))
    assert caught.value.found == "cola and sst2"
    with pytest.raises(RunError, match="no labelled rows"):
        compare_runs(a, enter_predictions("c", y=None))
    with pytest.raises(RunError, match="no labelled rows"):
        compare_runs(a, a, split="held_out")
    with pytest.raises(ConfigError, match="no such metric"):
        compare_runs(a, a, metric="bleu")


def test_the_table_holds_what_was_found(enter_predictions):
    found = compare_runs(enter_predictions("a"), enter_predictions("b", predictions=B))
    console = Console(width=120, file=io.StringIO())
    console.print(comparison_table(found))
    printed = console.file.getvalue()
    [each] = found
    for words in ("A: a", "B: b", "cola, validation, 200 rows", f"mcc {each.scores[0]}", f"mcc {each.scores[1]}"):
        assert words in printed
    assert f"+{each.paired.difference.estimate:.3f} [+{each.paired.difference.low:.3f}," in printed
    cells = [
        line.split("│")[1:3] for line in printed.splitlines() if "only" in line and "right" in line and "│" in line
    ]
    assert [[cell.strip() for cell in line] for line in cells] == [
        ["only A right", str(each.mcnemar.b)],
        ["only B right", str(each.mcnemar.c)],
    ]


def test_the_command_compares_runs_by_how_their_names_begin(enter_predictions, tmp_path, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", "runs", "compare", *words, "--runs-dir", str(tmp_path)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    folders = enter_predictions("2026-a-first"), enter_predictions("2026-b-second", predictions=B)
    code, out, _ = command("2026-a", "2026-b", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps([each.to_dict() for each in compare_runs(*folders)]))
    [record] = json.loads(out)
    assert set(record) == {"task", "split", "rows", "metric", "runs", "scores", "paired", "mcnemar"}
    code, out, _ = command("2026-a", "2026-b", "--metric", "accuracy")
    assert code == 0
    assert "accuracy 0.7" in out
    for words, message in (
        (("2026", "2026-b"), "several runs are called so"),
        (("2026-a", "2026-b", "--metric", "bleu"), "no such metric"),
        (("2026-a", "2026-b", "--metric", "ece"), "no probabilities"),
    ):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert message in err
