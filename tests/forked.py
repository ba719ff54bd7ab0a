"""Commands in processes that are forked from one that has the heavy packages loaded: each begins as a new process does,
without seconds of importing torch and transformers."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Listener
from pathlib import Path

from tests import forked_client

HEAVY = [
    "tests.forked",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto",
    "peft",
    "bitsandbytes",
    "sklearn.linear_model",
    "pyarrow.parquet",
    "scipy.stats",
    "accelerate",
]
SECONDS = 600
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(HEAVY)


def pipeline(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], *, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `pipeline` with some words in a folder, as a process of its own, and give what it printed.

    Args:
        given: on standard input.
    """
    return _ended(words, folder, environment, given=given)


def python(code: str, words: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as `python -c` does, in a process of its own, and give what it printed."""
    return _ended([*map(str, words)], folder, {}, code=code)


def _ended(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], *, given: str = "", code: str = ""
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as place:
        process, said = begin(words, folder, environment, Path(place), given=given, code=code)
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["pipeline", *words], SECONDS)
        out, err = (path.read_text("utf-8") for path in said)
        return subprocess.CompletedProcess(["pipeline", *words], process.exitcode, out, err)


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Within, commands can be run so from outside; gives what to call instead of `pipeline`."""
    with tempfile.TemporaryDirectory() as place, Listener(f"{place}/socket", authkey=forked_client.AUTHKEY) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield f"{sys.executable} {forked_client.__file__} {listener.address}"


def _serve(listener: Listener) -> None:
    while True:
        try:
            connection = listener.accept()
        except OSError:  # it was closed
            return
        with connection, contextlib.suppress(EOFError, OSError):  # where its client has gone
            words, folder, environment = connection.recv()
            try:
                done = pipeline(words, Path(folder), environment)
            except subprocess.TimeoutExpired as error:
                connection.send((1, "", str(error)))
            else:
                connection.send((done.returncode, done.stdout, done.stderr))


def begin(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    place: Path,
    *,
    given: str = "",
    code: str = "",
) -> tuple[multiprocessing.process.BaseProcess, tuple[Path, Path]]:
    """Begin to run `pipeline`, or a program of which the code is given; what it prints goes to two files in `place`."""
    said = place / "stdout", place / "stderr"
    stdin = place / "stdin"
    stdin.write_text(given, "utf-8")
    process = _context.Process(target=_become, args=(list(words), folder, dict(environment), stdin, said, code))
    process.start()
    return process, said


def _become(
    words: list[str], folder: Path, environment: dict[str, str], stdin: Path, said: tuple[Path, Path], code: str
) -> None:
    """Be the command: its folder, environment, standard streams and arguments."""
    os.chdir(folder)
    os.environ.update(environment)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    sys.argv = ["-c" if code else "pipeline", *words]
    try:
        if code:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
            return
        from pipeline.cli import main

        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
