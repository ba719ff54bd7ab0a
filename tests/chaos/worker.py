"""The processes that the campaign hurts: reads requests, one JSON line each, and forks a child for every one.

Answers two lines a request: `{"pid": …}` when the child runs, `{"status": …, "result": …}` when it has ended. The
imports are made once, before the first fork. With the mount namespace that the campaign starts it in, a child can also
mount small disks that nobody else sees.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.random  # noqa: F401  (these once, before the first fork)
import torch  # noqa: F401

from pipeline.cache import FeatureSet
from pipeline.cache.verify import verify_feature_set
from pipeline.config import PassConfig
from pipeline.errors import PipelineError
from pipeline.extract.sharing import claimed_shards
from tests.chaos.asking import ask_everything
from tests.chaos.sets import SHARD_ROWS, corpus_of, job_of

with contextlib.suppress(ImportError):
    import pandas  # noqa: F401  (pyarrow imports it where it is installed)

LOCK_TIMEOUT = 60.0
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "fcntl.lockf"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Steps:
    """Counts what this process does to the cache, and kills it at the step that was said, before it is made."""

    def __init__(self, cache_dir: Path, kill_at: int | None) -> None:
        self.cache_dir, self.kill_at, self.count = str(cache_dir), kill_at, 0
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.step()
            fsync(descriptor)

        os.fsync = counted
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_opened = event == "open" and arguments[2] & WRITING
        if event == "fcntl.lockf" or ((is_opened or event in CHANGES) and str(arguments[0]).startswith(self.cache_dir)):
            self.step()

    def step(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def write(
    cache_dir: str, kind: str, log: str, *, relabelled: bool = False, verify: bool = False, kill_at: int | None = None
) -> dict[str, Any]:
    """Stage one without its backbone: set damage aside, bring labels up to date, write what is missing.

    Every shard that is begun, and every one that is sealed, is noted in the file `log`.
    """
    noted = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    steps = Steps(Path(cache_dir), kill_at)
    began = time.monotonic()
    small = corpus_of(kind, relabelled=relabelled)
    passes = PassConfig(shard_rows=SHARD_ROWS, verify=verify, lock_timeout=LOCK_TIMEOUT)
    if job := job_of(small, Path(cache_dir)).missing(passes):
        (writer,) = job.writers
        claimed = claimed_shards(job.writers, job.unsealed(), label=job.label, timeout=LOCK_TIMEOUT)
        with contextlib.closing(claimed):
            for claim in claimed:
                os.write(noted, f"began {claim.number}\n".encode())
                small.write_shard(writer, claim.number)
                claim.give_back()
                os.write(noted, f"sealed {claim.number}\n".encode())
        writer.finish(timeout=LOCK_TIMEOUT)
    return {"steps": steps.count, "seconds": time.monotonic() - began}


def check(folder: str, kind: str, *, relabelled: bool = False) -> None:
    """Hold a feature set against the values that its corpus is made of."""
    corpus_of(kind, relabelled=relabelled).check(FeatureSet(folder))


def set_aside(folder: str, *, kill_at: int | None = None) -> dict[str, Any]:
    """Look for damage, and take it out of use."""
    report = verify_feature_set(Path(folder), deep=True)
    steps = Steps(Path(folder).parents[2], kill_at)
    report.set_aside(timeout=LOCK_TIMEOUT)
    return {**report.to_dict(), "steps": steps.count}


def look(folder: str) -> dict[str, Any]:
    """Look for damage."""
    return verify_feature_set(Path(folder), deep=True).to_dict()


def ask(folder: str) -> dict[str, str]:
    """Ask for everything."""
    return ask_everything(Path(folder))


def list_files(cache_dir: str) -> dict[str, str]:
    """Everything in a cache with a digest of what it is, but for locks, logs and notes."""
    found = {}
    for path in sorted(Path(cache_dir).rglob("*")):
        if path.name not in (".lock", "passes.jsonl") and (path.is_symlink() or not path.is_dir()):
            name = path.relative_to(cache_dir).as_posix()
            found[name] = "link" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def mount(folder: str, *words: str) -> str:
    """Mount a file system on `folder`, or change how it is mounted; gives what mount complains of."""
    return subprocess.run(["mount", *words, folder], capture_output=True, text=True).stderr


def unmount(folder: str) -> str:
    """The end of it."""
    return subprocess.run(["umount", folder], capture_output=True, text=True).stderr


def extract(*words: str) -> None:
    """The real command."""
    import pipeline.cli

    sys.argv = ["pipeline", "extract", *words]
    pipeline.cli.main()


DO: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (write, check, set_aside, look, ask, list_files, mount, unmount, extract)
}


def _run(request: dict[str, Any], answer: int) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    result: dict[str, Any]
    try:
        result = {"gave": DO[request["do"]](*request["words"], **request["named"])}
    except PipelineError as error:
        result = {"refused": f"{type(error).__name__}: {error}"}
    except SystemExit as end:
        result = {{0: "gave", None: "gave", 2: "refused"}.get(end.code, "failed"): f"exit {end.code}"}
    except BaseException:
        result = {"failed": traceback.format_exc()}
    with os.fdopen(answer, "w") as out:
        json.dump(result, out)


def serve() -> None:
    """Work off requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "import":
            __import__(request["words"][0])
            continue
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run(request, writing)
            os._exit(0)
        os.close(writing)
        print(json.dumps({"pid": child}), flush=True)
        with os.fdopen(reading) as told:
            result = told.read()
        _, status = os.waitpid(child, 0)
        ended = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
        print(json.dumps({**ended, **(json.loads(result) if result else {})}), flush=True)


if __name__ == "__main__":
    serve()
