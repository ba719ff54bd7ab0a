"""The kinds of faults: each hurts one feature set, has it read and verified, repairs it, and says what came of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.files import DAMAGED
from pipeline.cache.manifest import MANIFEST
from tests.chaos import damage
from tests.chaos.bench import Bench, Outcome, Reference
from tests.chaos.real import kill_real_extract
from tests.chaos.sets import KINDS, NEIGHBOUR


@dataclass(frozen=True)
class Turn:
    """One fault of a kind.

    Args:
        number: which of them, from 0.
        of: how many there are.
        rng: what chance decides.
    """

    number: int
    of: int
    rng: random.Random

    def step(self, steps: int) -> int:
        """A step of a work of so many, from 1: all of them in turn, or evenly spread where there are fewer turns."""
        return 1 + (self.number % steps if self.of >= steps else self.number * steps // self.of)

    @property
    def kind(self) -> str:
        """A kind of feature set."""
        return KINDS[self.number % len(KINDS)]


def kill_at_a_step_of_writing(bench: Bench, turn: Turn) -> Outcome:
    """SIGKILL before each thing that a writer does to the cache."""
    reference = bench.references[turn.kind]
    kill_at = turn.step(reference.steps)
    bench.lay()
    told = bench.worker.do("write", bench.cache, turn.kind, bench.log, kill_at=kill_at)
    outcome = Outcome(f"{turn.kind}: killed before step {kill_at} of {reference.steps} of writing")
    return _after_a_kill(bench, outcome, turn.kind, told["signal"] == 9)


def kill_at_any_instant(bench: Bench, turn: Turn) -> Outcome:
    """SIGKILL from outside, whenever."""
    reference = bench.references[turn.kind]
    seconds = turn.rng.uniform(0, 1.1 * reference.seconds)
    bench.lay()
    pid = bench.worker.start("write", bench.cache, turn.kind, bench.log)
    bench.kill_at(pid, seconds)
    told = bench.worker.end()
    outcome = Outcome(f"{turn.kind}: killed {seconds * 1000:.1f} ms after it began to write")
    return _after_a_kill(bench, outcome, turn.kind, told["signal"] == 9)


def _after_a_kill(bench: Bench, outcome: Outcome, kind: str, was_killed: bool) -> Outcome:
    reference = bench.references[kind]
    began, sealed = bench.noted("began"), bench.noted("sealed")
    all_answered = bench.judge_reading(outcome, bench.cache / reference.name, [reference])
    if not was_killed and not all_answered:
        outcome.other.append("a writer came to its end, and what it wrote is refused")
    _nothing_is_called_damaged(bench, outcome, reference)
    bench.forget_log()
    told = bench.worker.do("write", bench.cache, kind, bench.log)
    again = set(bench.noted("began"))
    outcome.lost, outcome.sealed_lost = len(again & {*began, *sealed}), len(again & set(sealed))
    bench.judge_repair(outcome, told, reference)
    return outcome


def _nothing_is_called_damaged(bench: Bench, outcome: Outcome, reference: Reference) -> None:
    """What is unfinished is no damage."""
    told = bench.worker.do("look", bench.cache / reference.name)
    if "gave" not in told or told["gave"]["status"] == "damaged":
        outcome.other.append(f"verify: {told}")


def kill_while_labels_change(bench: Bench, turn: Turn) -> Outcome:
    """SIGKILL before each thing that is done where labels were corrected and the index is written anew."""
    before, after = bench.references[turn.kind], bench.references[f"{turn.kind}, relabelled"]
    folder = bench.lay(turn.kind)
    if "relabelling" not in _STEPS:
        _STEPS["relabelling"] = bench.worker.do("write", bench.cache, turn.kind, bench.log, relabelled=True)["gave"][
            "steps"
        ]
        folder = bench.lay(turn.kind)
    kill_at = turn.step(_STEPS["relabelling"])
    bench.worker.do("write", bench.cache, turn.kind, bench.log, relabelled=True, kill_at=kill_at)
    outcome = Outcome(f"{turn.kind}: killed before step {kill_at} of {_STEPS['relabelling']} of relabelling")
    bench.judge_reading(outcome, folder, [before, after])
    _nothing_is_called_damaged(bench, outcome, before)
    bench.forget_log()
    told = bench.worker.do("write", bench.cache, turn.kind, bench.log, relabelled=True)
    outcome.lost = len(set(bench.noted("began")))
    bench.judge_repair(outcome, told, after)
    return outcome


_STEPS: dict[str, int] = {}


def kill_while_damage_is_set_aside(bench: Bench, turn: Turn) -> Outcome:
    """SIGKILL before each thing that verify does to take damaged shards out of use.

    What it set aside, if anything, must be enough for stage one to know that the sizes of the rest prove nothing.
    """
    reference = bench.references[turn.kind]

    def hurt() -> Path:
        folder = bench.lay(turn.kind)
        for number in (1, 2):
            path = folder / f"shard-{number:05d}.h5"
            content = bytearray(path.read_bytes())
            content[turn.rng.randrange(len(content))] ^= 1
            path.write_bytes(content)
        return folder

    if "set aside" not in _STEPS:
        _STEPS["set aside"] = bench.worker.do("set_aside", hurt())["gave"]["steps"]
    folder, kill_at = hurt(), turn.step(_STEPS["set aside"])
    bench.worker.do("set_aside", folder, kill_at=kill_at)
    outcome = Outcome(f"{turn.kind}: killed before step {kill_at} of {_STEPS['set aside']} of setting damage aside")
    bench.judge_reading(outcome, folder, [reference])
    is_begun = any(folder.glob(f"*{DAMAGED}"))
    told = bench.worker.do("write", bench.cache, turn.kind, bench.log, verify=not is_begun)
    outcome.lost = outcome.sealed_lost = len(set(bench.noted("began")) - {1, 2})
    bench.judge_repair(outcome, told, reference)
    return outcome


def hurt_files(injuries: tuple[Callable[[Path, random.Random], list[Path]], ...]) -> "Inject":
    """Faults that change files of a whole set."""

    def inject(bench: Bench, turn: Turn) -> Outcome:
        injury = injuries[turn.number % len(injuries)]
        kinds = (
            (KINDS[0], NEIGHBOUR) if injury is damage.swap_sets else (KINDS[turn.number // len(injuries) % len(KINDS)],)
        )
        folder = bench.lay(*kinds)
        paths = injury(folder, turn.rng)
        names = ", ".join(path.relative_to(bench.cache).as_posix() for path in paths)
        return _after_damage(bench, Outcome(f"{injury.__name__}: {names}"), kinds, paths)

    return inject


def _after_damage(bench: Bench, outcome: Outcome, kinds: tuple[str, ...], paths: list[Path]) -> Outcome:
    references = [bench.references[kind] for kind in kinds]
    folders = [bench.cache / reference.name for reference in references]
    named: set[tuple[Path, str | int]] = set()
    for folder, reference in zip(folders, references, strict=True):
        bench.judge_reading(outcome, folder, [reference])
        told = bench.worker.do("look", folder)
        if "gave" not in told:
            outcome.other.append(f"verify: {told}")
            continue
        named |= {(folder, each[key]) for each in told["gave"]["damages"] for key in ("file", "shard")}
        named |= {(folder, MANIFEST)} if told["gave"]["status"] == "unfinished" else set()
    outcome.found = bool(named) and all(_is_named(path, named) for path in paths)
    for folder, kind in zip(folders, kinds, strict=True):
        aside = bench.worker.do("set_aside", folder)
        told = bench.worker.do("write", bench.cache, kind, bench.log)
        if "gave" not in aside:
            told = aside
    bench.judge_repair(outcome, told, *references)
    return outcome


def _is_named(path: Path, named: set[tuple[Path, str | int]]) -> bool:
    """Whether the file was; where a seal is sound but not this shard's own, it is the shard's files that belie it."""
    is_seal = path.suffix == ".json" and path.name != MANIFEST
    return (path.parent, path.name) in named or (is_seal and (path.parent, int(path.stem[6:])) in named)


def edit_by_hand(bench: Bench, turn: Turn) -> Outcome:
    """A field of the manifest or of a seal changed, as with an editor."""
    folder = bench.lay(turn.kind)
    paths, field = damage.edit(folder, turn.rng, place=turn.number, mend=False)
    return _after_damage(bench, Outcome(f"{turn.kind}: {field} of {paths[0].name} edited"), (turn.kind,), paths)


def forge(bench: Bench, turn: Turn) -> Outcome:
    """The same by someone who mends the record's own digest too, so that only other files can contradict it."""
    folder, reference = bench.lay(turn.kind), bench.references[turn.kind]
    (path,), field = damage.edit(folder, turn.rng, place=turn.number, mend=True)
    outcome = Outcome(f"{turn.kind}: {field} of {path.name} forged")
    if path.name == MANIFEST and field in damage.NOT_VOUCHED_FOR:
        bench.judge_reading(outcome, folder, [reference])
    elif field in damage.MEASURED_ONCE:
        bench.judge_reading(outcome, folder, [reference])
        outcome.found = bench.worker.do("look", folder)["gave"]["status"] == "damaged"
        (folder / MANIFEST).unlink()
    else:
        return _after_damage(bench, outcome, (turn.kind,), [])  # who of those that disagree is the forger, nobody knows
    path.unlink()  # by a person: nothing else could tell that it is this file
    bench.judge_repair(outcome, bench.worker.do("write", bench.cache, turn.kind, bench.log), reference)
    return outcome


def fill_the_disk(bench: Bench, turn: Turn) -> Outcome:
    """A real disk, of some KiB, that is full before the set is written."""
    reference = bench.references[turn.kind]
    outcome = Outcome(f"{turn.kind}: ")
    if not bench.worker.can_mount:
        outcome.skipped = "no disk can be mounted here"
        return outcome
    most = sum(path.stat().st_size + 4096 for path in bench.caches[turn.kind].rglob("*"))
    size_kib = turn.rng.randrange(4, most // 1024)
    outcome.what += f"a disk of {size_kib} KiB"
    bench.lay()
    complaint = bench.worker.do("mount", bench.cache, "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs")
    try:
        told = bench.worker.do("write", bench.cache, turn.kind, bench.log)
        if "failed" in told or complaint["gave"]:
            outcome.other.append(f"writing: {told} {complaint}")
        if "refused" in told and not told["refused"].startswith("DiskFull"):
            outcome.other.append(f"writing: {told}")
        bench.judge_reading(outcome, bench.cache / reference.name, [reference])
        _nothing_is_called_damaged(bench, outcome, reference)
        if any(".partial" in name for name in bench.worker.do("list_files", bench.cache)["gave"]):
            outcome.left.append("a partial file on the full disk")
        sealed = bench.noted("sealed")
        bench.worker.do("mount", bench.cache, "-o", "remount,size=64m")
        bench.forget_log()
        told = bench.worker.do("write", bench.cache, turn.kind, bench.log)
        outcome.sealed_lost = len(set(bench.noted("began")) & set(sealed))
        bench.judge_repair(outcome, told, reference)
    finally:
        bench.worker.do("unmount", bench.cache)
    return outcome


def forbid_writing(bench: Bench, turn: Turn) -> Outcome:
    """A folder mounted read-only: its readers read, a writer is told."""
    reference = bench.references[turn.kind]
    is_whole = turn.number % 2 == 0
    outcome = Outcome(f"{turn.kind}: {'a whole' if is_whole else 'an unfinished'} set on a read-only disk")
    if not bench.worker.can_mount:
        outcome.skipped = "no disk can be mounted here"
        return outcome
    folder = bench.lay(turn.kind)
    if not is_whole:
        (folder / MANIFEST).unlink()
        (folder / "shard-00002.json").unlink()
    bench.worker.do("mount", bench.cache, "--bind", str(bench.cache))
    bench.worker.do("mount", bench.cache, "-o", "remount,bind,ro")
    try:
        all_answered = bench.judge_reading(outcome, folder, [reference])
        told = bench.worker.do("write", bench.cache, turn.kind, bench.log)
        if all_answered != is_whole or ("gave" if is_whole else "refused") not in told:
            outcome.other.append(f"read-only: {told}, all answered: {all_answered}")
        bench.worker.do("mount", bench.cache, "-o", "remount,bind,rw")
        bench.judge_repair(outcome, bench.worker.do("write", bench.cache, turn.kind, bench.log), reference)
    finally:
        bench.worker.do("unmount", bench.cache)
    return outcome


def write_at_once(bench: Bench, turn: Turn) -> Outcome:
    """Two or three writers of one set, one of them killed."""
    reference, count = bench.references[turn.kind], 2 + turn.number % 2
    bench.lay()
    workers = bench.more_workers(count)
    logs = [bench.scratch / f"log {number}" for number in range(count)]
    for log in logs:
        log.unlink(missing_ok=True)
    seconds = turn.rng.uniform(0, 1.5 * reference.seconds)
    pids = [worker.start("write", bench.cache, turn.kind, log) for worker, log in zip(workers, logs, strict=True)]
    bench.kill_at(pids[0], seconds)
    told = [worker.end() for worker in workers]
    outcome = Outcome(f"{turn.kind}: {count} writers, one killed after {seconds * 1000:.1f} ms")
    bench.judge_reading(outcome, bench.cache / reference.name, [reference])
    lines = [log.read_text().split("\n") if log.exists() else [] for log in logs]
    of_dead, of_living = lines[0], [line for each in lines[1:] for line in each if line.startswith("began")]
    sealed = {line.split()[1] for line in of_dead if line.startswith("sealed")}
    begun = {line.split()[1] for line in of_dead if line.startswith("began")}
    again = {line.split()[1] for line in of_living}
    outcome.lost, outcome.sealed_lost = len(begun & again), len(sealed & again)
    if len(of_living) != len(again):
        outcome.other.append("two living writers computed one shard")
    for number, each in enumerate(told[1:], 1):
        if "gave" not in each:
            outcome.other.append(f"writer {number}: {each}")
    bench.judge_repair(outcome, told[1], reference)  # the living ones have finished: there is nothing to repair
    return outcome


Inject = Callable[[Bench, Turn], Outcome]

SHARES: dict[str, tuple[int, Inject]] = {
    "SIGKILL before a step of writing": (112, kill_at_a_step_of_writing),
    "SIGKILL at a random instant": (40, kill_at_any_instant),
    "SIGKILL while labels are rewritten": (36, kill_while_labels_change),
    "SIGKILL while damage is set aside": (12, kill_while_damage_is_set_aside),
    **{
        f"a file {name}" if name != "swapped" else "two files swapped": (share, hurt_files(damage.BY_CHANCE[name]))
        for name, share in zip(damage.BY_CHANCE, (28, 36, 10, 14, 18), strict=True)
    },
    "a manifest or seal edited by hand": (20, edit_by_hand),
    "the same, its digest mended": (20, forge),
    "a full disk": (12, fill_the_disk),
    "a read-only folder": (6, forbid_writing),
    "two or three writers, one killed": (14, write_at_once),
    "`pipeline extract` killed": (10, kill_real_extract),
}
"""Each kind of fault with its share of 388."""
