"""The bar of a training: its loss and the last held-out score stay on it."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import TrialsLine

ROOT = Path(__file__).parent.parent
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
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], stderr=its, stdout=its, env=environment, check=True, timeout=60)
    os.close(its)
    found = b""
    with suppress(OSError):  # its end
        while part := os.read(ours, 65536):
            found += part
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found.decode())


def test_loss_and_the_last_score_stay_on_the_bar():
    lines = re.split(r"[\r\n]+", on_a_terminal(TRAINS))
    [last] = [line for line in lines if "3/3" in line][-1:]
    assert "training loss 0.4756; cola held-out mcc 0.412" in last
    assert "cola, lora, step 1: cola held-out mcc 0.412" in lines
    assert any(line.startswith("cola, lora: done, step 3 of 3, training loss 0.4756") for line in lines)


SWEEPS = """
from pipeline.progress import TrialsLine
with TrialsLine("cola, sweep", 13125) as line:
    line.tell("L16-mean+L20-mean+L24-mean+L30-last", "logreg", 12, 30)
    line.advance(1200)
"""


@pytest.mark.parametrize(
    ("columns", "shown"), [(80, "L16-mean+L2"), (160, "L16-mean+L20-mean+L24-mean+L30-last: logreg")]
)
def test_on_a_narrow_terminal_the_text_is_cut_and_the_numbers_are_whole(columns, shown):
    lines = re.split(r"[\r\n]+", on_a_terminal(SWEEPS, columns))
    [last] = [line for line in lines if "1200/13125 heads, " in line][-1:]
    assert shown in last
    assert re.search(r"0:00:0\d", last)
    assert len(last.rstrip()) <= columns


def test_the_time_left_is_of_heads_of_one_pace(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    with TrialsLine("x", 100) as line:
        line.advance(50, before=True)
        line.advance(10)
        line.changes_pace()
        line.now("mlp")
        line.advance(1)
    said = capsys.readouterr().err.splitlines()
    at = [line for line in said if " heads, " in line]
    assert ["s left" in line for line in at] == [False, True, False, True]
