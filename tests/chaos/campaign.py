"""Hurt feature sets in every way that happens, and see that nothing wrong is served and nothing whole is lost.

    make chaos                                        some 390 faults
    make chaos ARGS="--faults 1000 --seed 7"

Every fault is real: processes are killed, disks fill up, bits of files are turned. After each, before any repair,
everything that a feature set can be asked is asked: the answer is exactly right, or a `PipelineError`. Then
`verify --deep` must name what is damaged, and the next run must leave, byte for byte, what an uninterrupted one leaves.
Prints a Markdown table; exits with 1 if any promise was broken.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.bench import Bench, Outcome, open_bench
from tests.chaos.faults import SHARES, Turn

Outcomes = Mapping[str, Sequence[Outcome]]


def plan(faults: int, only: str = "") -> dict[str, int]:
    """How many faults of each kind: in proportion to its share, and at least one.

    Args:
        only: of kinds whose name holds this.
    """
    shares = {name: share for name, (share, _) in SHARES.items() if only in name}
    return {name: max(1, round(share * faults / sum(shares.values()))) for name, share in shares.items()}


def run(bench: Bench, counts: Mapping[str, int], seed: int, found: dict[str, list[Outcome]]) -> None:
    """Inject faults and add what came of each to `found`; what breaks a promise is said at once."""
    for name, count in counts.items():
        outcomes = found.setdefault(name, [])
        for number in range(count):
            _say(f"\r{name}: {number + 1} of {count}\033[K")
            turn = Turn(number, count, random.Random(f"{seed} {name} {number}"))
            outcomes.append(SHARES[name][1](bench, turn))
            for said in outcomes[-1].broken:
                _say(f"\r{name}, {outcomes[-1].what}: {said}\n")
    _say("\r\033[K")


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


HEADER = (
    "fault",
    "injected",
    "wrong data served",
    "other errors",
    "found by verify --deep",
    "most shards lost",
    "differs after repair",
)


def table(found: Outcomes) -> str:
    """The figures, as Markdown."""
    rows = [_figures(name, outcomes) for name, outcomes in found.items() if outcomes]
    rows.append(_figures("**all**", [outcome for outcomes in found.values() for outcome in outcomes]))
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figures(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    done = [outcome for outcome in outcomes if not outcome.skipped]
    damaged = [outcome.found for outcome in done if outcome.found is not None]
    lost = [outcome.lost for outcome in done if outcome.lost is not None]
    skipped = len(outcomes) - len(done)
    return (
        name,
        f"{len(done)}" + (f" ({skipped} skipped)" if skipped else ""),
        str(sum(bool(outcome.wrong) for outcome in done)),
        str(sum(bool(outcome.other) for outcome in done)),
        f"{sum(damaged)} of {len(damaged)}" if damaged else "",
        str(max(lost)) if lost else "",
        str(sum(bool(outcome.left) for outcome in done)),
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=388, help="how many, about (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what chance decides (default: %(default)s)")
    parser.add_argument("--only", default="", help="only kinds of faults whose name holds this")
    options = parser.parse_args()
    found: dict[str, list[Outcome]] = {}
    began, is_whole = time.monotonic(), False
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        try:
            with open_bench(Path(scratch)) as bench:
                run(bench, plan(options.faults, options.only), options.seed, found)
                is_whole = True
        except KeyboardInterrupt:
            _say("\nstopped: the table is of what was done\n")
    print(table(found))
    broken = sum(bool(outcome.broken) for outcomes in found.values() for outcome in outcomes)
    _say(f"{broken} faults broke a promise; {time.monotonic() - began:.0f} s, seed {options.seed}\n")
    return 1 if broken else 0 if is_whole else 130


if __name__ == "__main__":
    sys.exit(main())
