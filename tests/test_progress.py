"""The bar of a training: its loss and the last held-out score stay on it."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

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


def on_a_terminal(program):
    """What a program writes to a terminal 120 columns wide, without its colours."""
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
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
