"""Trainings under way: each keeps its state on disk beside the runs, and what is done is never done again."""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pipeline.config import RunsConfig
from pipeline.digests import sha256_of_record
from pipeline.errors import RunError
from pipeline.partials import partial_path
from pipeline.progress import say
from pipeline.results.ledger import TRAININGS, Run, find_run, read_run

LOCK_SECONDS = 1.0
"""So long is waited for a lock: who looks for leftovers holds it for an instant."""


@contextmanager
def state_folders(runs: RunsConfig, settled: Sequence[Mapping[str, Any]]) -> Iterator[list[Path]]:
    """Where a command's trainings keep their states, one folder each; on leaving without an error all are removed.

    Args:
        settled: what decides each of them.

    Raises:
        RunError: another process is at the same trainings.
    """
    folder = runs.runs_dir / TRAININGS / sha256_of_record(list(settled))[:16]
    folders = [folder / str(number) for number in range(len(settled))]
    with _locked(folder):
        try:
            yield folders
        except BaseException:
            if any(path.is_dir() for path in folders):
                raise  # the same command goes on from there
            _remove(folder)
            raise
        _remove(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the folder is made if it is not there.

    Raises:
        RunError: another process holds it.
    """
    latest = time.monotonic() + LOCK_SECONDS
    while (lock := _try_to_lock(folder)) is None:
        if time.monotonic() > latest:
            raise RunError(
                "another process is at this very training",
                where=folder,
                remedy="wait for it; or change a setting, such as --seed",
            )
        time.sleep(0.05)
    with lock:
        yield


def _try_to_lock(folder: Path) -> TextIO | None:
    """The lock's file, held; None where another process holds it, or clears the folder away at this moment."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack, contextlib.suppress(BlockingIOError, FileNotFoundError):
        lock = stack.enter_context((folder / "lock").open("a"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
            stack.pop_all()
            return lock
    return None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


DONE = "done.json"
"""Of a state's folder: which run a training became."""


def note_done(folder: Path, run: Run) -> None:
    """Note in a training's state which run it became; the run need not be in the ledger yet.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder / DONE)
    partial.write_text(json.dumps({"run": run.run}) + "\n", "utf-8")
    partial.replace(folder / DONE)


def run_there(folder: Path, runs: RunsConfig) -> Run | None:
    """The run that a training of a command became, where the command was stopped later."""
    try:
        name = str(json.loads((folder / DONE).read_text("utf-8"))["run"])
        run = read_run(find_run(runs.runs_dir, name))
    except (OSError, ValueError, KeyError, TypeError, RunError):
        return None
    say(f"{'+'.join(run.tasks)}: trained before this command was stopped, as {run.run}")
    return run
