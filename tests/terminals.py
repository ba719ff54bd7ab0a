"""A terminal of some width, for tests of what people see on one."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent


def on_terminal(words: Sequence[str], columns: int) -> tuple[str, int]:
    """What Python with these words writes to a terminal, without its colours, and its exit code."""
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], stderr=its, stdout=its, env=environment, timeout=60)
    os.close(its)
    found = b""
    with suppress(OSError):  # its end
        while part := os.read(ours, 65536):
            found += part
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found.decode()), done.returncode
