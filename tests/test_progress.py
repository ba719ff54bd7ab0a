"""The bar of a training: its loss and the last held-out score stay on it."""

import re

import pytest

from pipeline import progress
from pipeline.progress import TrialsLine
from tests.terminals import on_terminal

TRAINS = """
from pipeline.progress import StepsLine
with StepsLine("cola, lora", 3) as line:
    line.shows("cola held-out mcc 0.100")
    line.advance(0.5)
    line.shows("cola held-out mcc 0.412")
    line.advance(0.25)
    line.advance(0.25)
"""


def on_a_terminal(program, columns=120):
    """What a program writes to a terminal of some width, without its colours."""
    said, code = on_terminal(["-c", program], columns)
    assert code == 0
    return said


def test_loss_and_the_last_score_stay_on_the_bar():
    lines = re.split(r"[\r\n]+", on_a_terminal(TRAINS))
    [last] = [line for line in lines if "3/3" in line][-1:]
    assert "training loss 0.4756; cola held-out mcc 0.412" in last
    assert "cola, lora, step 1: cola held-out mcc 0.412" in lines
    assert any(line.startswith("cola, lora: done, step 3 of 3, training loss 0.4756") for line in lines)


def test_a_training_that_stops_early_says_so(capsys):
    for early in (True, False):
        with progress.StepsLine("x", 3) as line:
            line.advance(0.5)
            if early:
                line.stops_early(0)
    done = [line for line in capsys.readouterr().err.splitlines() if "done" in line]
    why = ", stopped early: no better on held-out rows since step 0"
    assert [line.partition(", training loss")[0] for line in done] == [
        f"x: done, step 1 of 3{why}",
        "x: done, step 1 of 3",
    ]


BARS = """
from pipeline.progress import ProgressLine, StepsLine, TrialsLine
with TrialsLine("cola, sweep", 13125) as line:
    line.tell("L16-mean+L20-mean+L24-mean+L30-last", "logreg", 12, 30)
    line.advance(1200)
with StepsLine("cola+sst2, joint, cola's head frozen, seed 0", 5000) as line:
    line.advance(0.5)
with ProgressLine("sst2/validation", 67349, 500000) as line:
    line.advance(60000, 400000)
    line.now("computing canaries again, alone")
"""


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_texts_are_cut_to_the_terminal_and_numbers_are_whole(columns):
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", on_a_terminal(BARS, columns))]
    of_sweep, of_training, of_rows = (
        [line for line in lines if words in line][-1]
        for words in ("1200/13125 heads, L", "   1/5000 steps, tr", "60000/67349 rows, ")
    )
    for line in (of_sweep, of_training, of_rows):
        assert len(line) <= columns
        passed = "" if columns < progress.NARROW else r" 0:00:0\d"
        assert re.search(rf"{passed} (-:--:--|\d:\d\d:\d\d)$", line)
        assert ("━" in line) == bool(passed)
    assert "training loss 0.5000" in of_training
    if columns == 200:
        assert "L16-mean+L20-mean+L24-mean+L30-last: logreg, 30 done after 12 reads" in of_sweep
        assert of_training.startswith("cola+sst2, joint, cola's head frozen, seed 0")
        assert of_rows.startswith("sst2/validation (computing canaries again, alone)")
    if columns == 80:
        assert "…" in of_training


def test_the_time_left_is_of_heads_of_one_pace(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with TrialsLine("x", 100) as line:
        line.advance(50, before=True)
        now[0] = 100.0
        line.advance(10)  # ten seconds a head
        line.changes_pace()
        line.now("mlp")
        now[0] = 300.0
        line.advance(1)  # 200 seconds a head
    said = [line for line in capsys.readouterr().err.splitlines() if " heads, " in line and "done" not in line]
    assert [re.findall(r"about ([\d,]+) s left", line) for line in said] == [[], ["400"], [], ["7,800"]]
