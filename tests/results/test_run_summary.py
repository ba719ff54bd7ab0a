"""`pipeline runs show` for people: some fifteen lines, in words."""

import io

from rich.console import Console

from pipeline.results.run_summary import run_summary, shown_value

COST = {"passes": ["sha256:aa"], "backbone_seconds": 100.0, "seconds": 120.0, "reading_seconds": 0.5}


def _said(run, folder, saved=None):
    console = Console(width=100, file=io.StringIO())
    console.print(run_summary(run, folder, saved or {}))
    return console.file.getvalue()


def test_a_run_is_said_in_a_few_lines(enter, tmp_path):
    features = {"cola": {"train": ["sha256:3fa9c1e07b52" + "0" * 52], "validation": ["sha256:77aa" + "0" * 60]}}
    run = enter("20260101-a", costs={"cola": COST}, features=features, config={"metric": "mcc", "data": "[red]mine"})
    said = _said(run, tmp_path / run.run, {"cola": {"shared_by": 3, "break_even": 2}})
    assert len(said.splitlines()) <= 15
    flat = " ".join(said.split())
    for part in (
        "MCC 0.400 [0.341, 0.459]; always the commonest class: 0.000",
        "accuracy 0.800, F1 0.875",
        "MCC 0.500 on training rows not fitted on; the best of 7 tried there",
        "C 0.01",
        "train 3fa9c1e07b52, validation 77aa00000000",
        "data [red]mine",
        "took 120.0 s once, 100.0 s of that in the backbone, and reading them 0.50 s; 3 runs share them",
        "cheaper than live passes from experiment 2 on",
        "run.json",
        "--all",
    ):
        assert part in flat, said


def test_what_a_run_has_not_is_not_said(enter, tmp_path):
    scores = {"cola": {"validation": {}}}
    run = enter("20260101-b", scores=scores, held_out=None, statistics={}, selection={}, features={}, baseline={})
    said = _said(run, tmp_path / run.run)
    assert not any(word in said for word in ("held out", "chosen", "validation", "the cache", "None"))
    never = enter("20260101-c", costs={"cola": COST})
    assert "reading takes as long as computing" in " ".join(
        _said(never, tmp_path / never.run, {"cola": {"shared_by": 1, "break_even": None}}).split()
    )


def test_values_are_shown_as_people_write_them():
    shown = [shown_value(each) for each in ("a", 1 / 3, True, None, ["a", 2], [{"a": 1}], [], {})]
    assert shown == ["a", "0.333333", "true", "null", "a, 2", '[{"a": 1}]', "", "{}"]
