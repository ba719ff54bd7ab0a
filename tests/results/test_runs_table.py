"""The table for people: what is starred was chosen without looking at validation."""

import io
from dataclasses import replace

from rich.console import Console

from pipeline.results.lines import ledger_table, lines_of
from pipeline.results.table import distinct_ends, runs_table


def shown(runs, **metrics):
    """The table of runs whose tasks are decided by these metrics."""
    decided = [replace(run, config={**run.config, "metrics": metrics}) for run in runs]
    return runs_table(ledger_table(lines_of(decided)))


def _printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_in_a_narrow_terminal_the_scores_stay_and_names_are_shortened_to_what_finds_them(make_run):
    name = "20261123-101112-123456-cola-ridgeclassifier-cc6106"
    runs = [make_run(name), make_run(name.replace("cc6106", "aa1111"))]
    wide, narrow = (" ".join(_printed(shown(runs, cola="mcc"), width).split()) for width in (220, 80))
    assert all(header in wide for header in ("views", "weights", "seconds", "F1", "majority:", name))
    assert "left out" not in wide and "the end of its name" not in wide
    for kept in ("MCC 0.400 [0.34, 0.46]", "0.500", "glue", "*: the best by held-out", "cc6106", "aa1111"):
        assert kept in narrow
    assert "left out for want of width: seconds" in narrow and "majority:" not in narrow
    assert "ridgeclassifier" not in narrow


def test_where_width_is_wanting_what_is_the_same_of_all_goes_before_what_tells_them_apart(make_run):
    one, other = make_run("20261123-a-cola-logreg-cc6106"), make_run("20261123-b-cola-logreg-aa1111")
    other = replace(other, config={**other.config, "features": "L3-last+L4-last"})
    table = shown([one, other], cola="mcc")
    assert table.dispensable[-4:-1] == ("weights", "data", "views")
    assert shown([one, one], cola="mcc").dispensable[-4:-1] == ("views", "weights", "data")


def test_an_end_that_any_other_run_has_in_it_is_no_name():
    assert distinct_ends(["1-a-b", "2-a-b", "3-c", "4-c-5"]) == {
        "1-a-b": "1-a-b", "2-a-b": "2-a-b", "3-c": "3-c", "4-c-5": "5"
    }  # fmt: skip
    table = runs_table(ledger_table([]), ["a-b"])
    assert table.row_count == 0


def _cells(table) -> dict[str, list[str]]:
    return {str(column.header): list(column.cells) for column in table.columns}


def test_a_run_is_one_line_with_its_scores(make_run):
    cells = _cells(shown([make_run("a-run")], cola="mcc"))
    assert {name: column[0] for name, column in cells.items()} == {
        "task": "cola",
        "head": "logreg",
        "score": "MCC 0.400 [0.34, 0.46]",
        "held out": "0.500",
        "weights": "smollm2-135m, nf4",
        "data": "glue",
        "views": "L20-mean",
        "MCC": "0.400",
        "accuracy": "0.800",
        "F1": "0.875",
        "majority": "0.691",
        "seconds": "1.2",
        "run": "a-run",
    }


def test_the_run_with_the_best_held_out_score_is_starred(make_run):
    best_on_validation = {"cola": {"held_out": {"mcc": 0.3}, "validation": {"mcc": 0.9, "accuracy": 0.95, "f1": 0.96}}}
    runs = [
        make_run("1", held_out=0.4, head="linear"),
        make_run("2", held_out=0.6, head="mlp"),
        make_run("3", head="logreg", scores=best_on_validation),
    ]
    assert _cells(shown(runs, cola="mcc"))["head"] == ["linear", "mlp *", "logreg"]
    assert _cells(shown(runs[::-1], cola="mcc"))["head"] == ["logreg", "mlp *", "linear"]


def test_the_tasks_metric_decides_the_star(make_run):
    by_mcc = {"cola": {"held_out": {"mcc": 0.5, "accuracy": 0.7, "f1": 0.7}}}
    by_accuracy = {"cola": {"held_out": {"mcc": 0.3, "accuracy": 0.8, "f1": 0.8}}}
    runs = [make_run("1", head="one", scores=by_mcc), make_run("2", head="two", scores=by_accuracy)]
    assert _cells(shown(runs, cola="mcc"))["head"] == ["one *", "two"]
    assert _cells(shown(runs, cola="accuracy"))["head"] == ["one", "two *"]
    assert _cells(shown(runs))["head"] == ["one", "two *"]


def test_every_task_has_its_own_star(make_run):
    scores = {"held_out": {"accuracy": 0.1, "mcc": 0.1}, "validation": {}}
    runs = [
        make_run("1", held_out=0.9, head="a"),
        make_run("2", tasks=("sst2",), scores={"sst2": scores}, head="b"),
        make_run("3", held_out=0.8, head="c"),
        make_run("4", tasks=("sst2",), scores={"sst2": {**scores, "held_out": {"accuracy": 0.2}}}, head="d"),
    ]
    cells = _cells(shown(runs, cola="mcc", sst2="accuracy"))
    assert cells["task"] == ["cola", "sst2", "cola", "sst2"]
    assert cells["head"] == ["a *", "b", "c", "d *"]
    assert cells["majority"][1::2] == ["-", "-"]


def test_a_run_that_selected_on_nothing_is_not_starred(make_run):
    runs = [make_run("1", held_out=None, head="a"), make_run("2", held_out=None, head="b")]
    cells = _cells(shown(runs, cola="mcc"))
    assert cells["head"] == ["a", "b"]
    assert cells["held out"] == ["-", "-"]
    assert _cells(shown([*runs, make_run("3", head="c")], cola="mcc"))["head"] == ["a", "b", "c *"]


def test_a_run_of_two_tasks_has_a_line_for_each(make_run):
    both = {task: {"validation": {"mcc": mcc}} for task, mcc in (("cola", 0.25), ("sst2", 0.75))}
    cells = _cells(shown([make_run("1", tasks=("cola", "sst2"), scores=both)]))
    assert (cells["task"], cells["MCC"]) == (["cola", "sst2"], ["0.250", "0.750"])


def test_no_run_is_an_empty_table():
    assert shown([]).row_count == 0


def test_runs_on_other_data_are_starred_apart(make_run):
    config = make_run("0").config
    runs = [
        make_run("1", held_out=0.9, head="a"),
        make_run("2", held_out=0.8, head="b"),
        make_run("3", held_out=0.7, head="c", config={**config, "data": "sample"}),
        make_run("4", held_out=0.5, head="d", config={**config, "data": "sample"}),
    ]
    assert _cells(shown(runs, cola="mcc"))["head"] == ["a *", "b", "c *", "d"]


def test_the_interval_is_of_the_deciding_metric(make_run):
    runs = [make_run("1"), make_run("2", statistics={})]
    assert _cells(shown(runs, cola="mcc"))["score"] == ["MCC 0.400 [0.34, 0.46]", "MCC 0.400"]  # older runs have none
    assert _cells(shown(runs, cola="accuracy"))["score"] == ["accuracy 0.800 [0.78, 0.82]", "accuracy 0.800"]


def test_held_out_scores_are_compared_where_the_same_rows_were_held_out(make_run):
    def run(name, held_out, head, texts):
        statistics = {"cola": {"held_out": {"texts": texts}}}
        return make_run(name, held_out=held_out, head=head, statistics=statistics, config={"held_out": 0.1})

    runs = [
        run("1", 0.4, "a", "sha256:11"),
        run("2", 0.5, "b", "sha256:11"),
        run("3", 0.9, "c", "sha256:33"),
    ]
    assert _cells(shown(runs, cola="mcc"))["head"] == ["a", "b *", "c"]


def test_of_runs_that_do_not_say_which_rows_settings_decide(make_run):
    config = make_run("x").config
    by_source = {"held_out": 0.2, "seeds": 5, "group_by": "source"}
    runs = [
        make_run("1", held_out=0.4, head="a", config={**config, "held_out": 0.1}),
        make_run("2", held_out=0.5, head="b", config={**config, "held_out": 0.1}),
        make_run("3", held_out=0.6, head="c", config={**config, **by_source, "group_by": "sentence"}),
        make_run("4", held_out=0.7, head="d", config={**config, **by_source}),
        make_run("5", held_out=0.3, head="e", config={**config, **by_source}),
        make_run("6", held_out=0.9, head="f", config={**config, "held_out": 0.1}, seed=4),
        make_run("7", held_out=0.9, head="g", config={**config, "training": {"held_out": 0.5}}),
    ]
    assert _cells(shown(runs, cola="mcc"))["head"] == ["a", "b *", "c", "d *", "e", "f", "g"]
