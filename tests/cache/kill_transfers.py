"""Transfers to be killed at a step: reads lines of JSON, forks for each, and says how the copying ended.

A line is `{"direction": "push" | "pull", "remote": …, "cache_dir": …, "kill_at": n | null}`, and may name
variables of a user's `environment`; steps are every opening of
a file for writing, every renaming, removal and folder made (as audit events), and every report of bytes that are
copied. The answer is `killed`, `done` or `failed`, and the number of steps.
"""

import json
import os
import signal
import sys
from pathlib import Path

import s3fs  # noqa: F401  (once, before the first fork)
import sshfs  # noqa: F401

import pipeline.cache.transfer as transfer
from pipeline.config import TransferConfig

STEPS = ("os.rename", "os.remove", "os.mkdir")


def count_steps(kill_at, ignore):
    """Kill this process at its n-th step; steps in `ignore` (the folder of temporary files) do not count."""
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, words):
        writes = event in STEPS or (event == "open" and isinstance(words[2], int) and words[2] & os.O_CREAT)
        if writes and isinstance(words[0], (str, Path)) and not str(words[0]).startswith(ignore):
            step()

    class Line(transfer.BytesLine):
        def advance(self, size_bytes):
            step()

    transfer.BytesLine = Line
    sys.addaudithook(audit)
    return lambda: steps


def run(order):
    """In a process of its own, so that nothing here survives but the files."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ.update({"SSH_AUTH_SOCK": "", **order.get("environment", {})})
        steps = count_steps(order["kill_at"], os.environ["TMPDIR"])
        code = 1
        try:
            copy = getattr(transfer, order["direction"])
            copy(order["remote"], (), TransferConfig(replace=order.get("replace", False)), Path(order["cache_dir"]))
            code = 0
        finally:
            os.write(writing, str(steps()).encode())
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        steps = file.read()
    if os.WIFSIGNALED(status):
        return {"end": "killed", "steps": order["kill_at"]}
    return {"end": "failed" if os.WEXITSTATUS(status) else "done", "steps": int(steps)}


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # processes are killed here, not the power
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
