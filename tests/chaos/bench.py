"""Where faults happen: the worker's other end, feature sets that nobody hurt, and what is right after a fault."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.asking import FAILED, REFUSED
from tests.chaos.sets import KINDS, NEIGHBOUR, corpus_of

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
UNANSWERED = (REFUSED, FAILED)


class Broken(Exception):
    """A promise that the campaign's own premise rests on does not hold."""


class Worker:
    """A server of processes to be hurt, in a mount namespace of its own where there can be one."""

    def __init__(self) -> None:
        self.can_mount = _enter() is not None
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [*(_enter() or []), sys.executable, "-m", "tests.chaos.worker"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # what interrupts the campaign is not for the worker
        )
        self._said = b""

    def start(self, do: str, *words: object, **named: object) -> int:
        """Have a child do something; gives its process id."""
        request = {"do": do, "words": [str(word) for word in words], "named": named}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return -1 if do == "import" else int(self._line()["pid"])

    def end(self) -> dict[str, Any]:
        """Wait for it: `signal`, and `gave`, `refused` or `failed`."""
        return self._line()

    def do(self, do: str, *words: object, **named: object) -> dict[str, Any]:
        """Both."""
        self.start(do, *words, **named)
        return self.end()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout
        while b"\n" not in self._said:
            if not select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0]:
                raise Broken("a process hangs")
            said = os.read(self.process.stdout.fileno(), 2**16)
            if not said:
                raise Broken("the worker ended")
            self._said += said
        line, self._said = self._said.split(b"\n", 1)
        return dict(json.loads(line))


def _enter() -> list[str] | None:
    """What starts a process in a mount namespace of its own, or None where that cannot be."""
    if not _found:
        for words in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
            trial = "mount -t tmpfs -o size=64k tmpfs /mnt"
            with contextlib.suppress(OSError):
                if subprocess.run([*words, "sh", "-c", trial], capture_output=True).returncode == 0:
                    _found.append(words)
                    break
        else:
            _found.append(None)
    return _found[0]


_found: list[list[str] | None] = []


@dataclass(frozen=True)
class Reference:
    """A feature set as one uninterrupted writer leaves it.

    Args:
        name: its folder, in the cache's.
        files: digests of all files of the cache.
        answers: what it answers when asked for everything.
        steps: in how many steps it was written.
        seconds: in how many seconds.
    """

    name: str
    files: Mapping[str, str]
    answers: Mapping[str, str]
    steps: int
    seconds: float


@dataclass
class Outcome:
    """What came of one fault.

    Args:
        what: what was done, for people.
        skipped: why it was not.
        wrong: questions that were answered with something wrong.
        other: what failed in another way than with a `PipelineError`.
        found: whether the damage was found and named; None where there was none to find.
        lost: shards that the next run computed although they had been begun or sealed; None where that is not counted.
        sealed_lost: those of them that had been sealed, and that nothing had damaged and nobody was writing anew.
        left: what is not as one uninterrupted writer leaves it, after the repair.
    """

    what: str
    skipped: str = ""
    wrong: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    found: bool | None = None
    lost: int | None = None
    sealed_lost: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The promises that this fault broke."""
        said = [f"wrong: {each}" for each in self.wrong] + [f"other: {each}" for each in self.other]
        if self.found is False:
            said.append("the damage was not found")
        if (self.lost or 0) > 1 or self.sealed_lost:
            said.append(f"{self.lost} shards lost, {self.sealed_lost} of them sealed")
        return said + [f"left: {each}" for each in self.left]


class Bench:
    """A scratch folder, a worker, and references; one fault at a time.

    Args:
        scratch: an empty folder.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.workers = [Worker()]
        self.caches = {kind: scratch / "whole" / kind for kind in (*KINDS, NEIGHBOUR)}
        self.caches |= {f"{kind}, relabelled": scratch / "whole" / f"{kind}, relabelled" for kind in KINDS}
        self.references = {kind: self._reference(kind) for kind in self.caches}
        self.cache, self.log = scratch / "cache", scratch / "log"

    @property
    def worker(self) -> Worker:
        """The first one."""
        return self.workers[0]

    def more_workers(self, count: int) -> list[Worker]:
        """So many of them, for faults of several processes."""
        self.workers += [Worker() for _ in range(count - len(self.workers))]
        return self.workers[:count]

    def _reference(self, kind: str) -> Reference:
        cache, named = self.caches[kind], {"relabelled": kind.endswith("relabelled")}
        kind = kind.split(",")[0]
        cache.mkdir(parents=True)
        made = self.worker.do("write", cache, kind, self.scratch / "log of references", **named)
        folder = corpus_of(kind).writer(cache).folder
        checked = self.worker.do("check", folder, kind, **named)
        answers = self.worker.do("ask", folder)
        if (
            "gave" not in made
            or "gave" not in checked
            or any(a.startswith(UNANSWERED) for a in answers["gave"].values())
        ):
            raise Broken(f"without any fault, {kind} is not written and read: {made}, {checked}, {answers}")
        return self.reference(cache, folder, made["gave"])

    def reference(self, cache: Path, folder: Path, made: Mapping[str, Any]) -> Reference:
        """What a feature set is that was written without any fault."""
        files, answers = self.worker.do("list_files", cache)["gave"], self.worker.do("ask", folder)["gave"]
        return Reference(str(folder.relative_to(cache)), files, answers, made.get("steps", 0), made["seconds"])

    def lay(self, *kinds: str) -> Path:
        """Start with a fresh cache that holds copies of whole feature sets; gives the first one's folder, if any."""
        self.log.unlink(missing_ok=True)
        for path in self.scratch.glob("elsewhere-*"):
            path.unlink()
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir()
        for kind in kinds:
            shutil.copytree(self.caches[kind], self.cache, dirs_exist_ok=True)
        return self.cache / self.references[kinds[0]].name if kinds else self.cache

    def noted(self, what: str) -> list[int]:
        """Shards that were noted as begun, or as sealed, since the log was last forgotten."""
        words = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [int(number) for said, number in words if said == what]

    def forget_log(self) -> None:
        """From now on, another process is noted."""
        self.log.unlink(missing_ok=True)

    def judge_reading(self, outcome: Outcome, folder: Path, allowed: Sequence[Reference]) -> bool:
        """Ask for everything; what is answered must be wholly as one of `allowed`. Gives whether all was answered."""
        told = self.worker.do("ask", folder)
        if "gave" not in told:
            outcome.other.append(f"reading died: {told}")
            return False
        answers: dict[str, str] = told["gave"]
        outcome.other += [f"{name} {said}" for name, said in answers.items() if said.startswith(FAILED)]
        served = {name: said for name, said in answers.items() if not said.startswith(UNANSWERED)}
        wrong = [[n for n, said in served.items() if said != right.answers[n]] for right in allowed]
        outcome.wrong += min(wrong, key=len)
        return len(served) == len(answers)

    def judge_repair(self, outcome: Outcome, told: Mapping[str, Any], *expected: Reference) -> None:
        """A repair must have gone well, and left what one uninterrupted writer leaves."""
        if "gave" not in told:
            outcome.other.append(f"the next run: {dict(told)}")
        whole = {name: digest for each in expected for name, digest in each.files.items()}
        found = self.worker.do("list_files", self.cache)["gave"]
        outcome.left += sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name))

    def kill_at(self, pid: int, seconds: float) -> None:
        """Kill a process after some time; it may have ended by then, and then nothing happens."""
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()


@contextlib.contextmanager
def open_bench(scratch: Path) -> Iterator[Bench]:
    """A bench whose workers end with it."""
    bench = Bench(scratch)
    try:
        yield bench
    finally:
        bench.close()
