"""How stage one scales on Ray, what the engine costs a shard, and whether a killed worker costs more than its shard.

    make bench-ray GLUE_DIR=…

Three measurements, each of whole commands in processes of their own; seconds are those of the pass, without loading.
Scaling: one worker of one thread and two of them take turns over CoLA's train split through a few blocks. Overhead: the
same many small shards in one process and by one worker, in turns. Kills: CoLA on a cluster of three nodes, two workers
killed with SIGKILL while they compute, against one process without Ray, byte for byte.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache.passes import PASSES
from tests.bench.predicting import PASS
from tests.ray_nodes import processes_called, ray_nodes

WORKER = "ray::Worker.compute"


def extract(cache_dir: Path, words: Sequence[object]) -> "subprocess.Popen[str]":
    """Begin stage one; what it says comes through a pipe."""
    command = [sys.executable, "-m", "pipeline", "extract", "--cache-dir", cache_dir, *words]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said_by(process: "subprocess.Popen[str]") -> str:
    """What a command said, when it is done."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said)
    return said


def pass_seconds(said: str) -> float:
    """The seconds of a command's passes."""
    return sum(float(found.replace(",", "")) for found in PASS.findall(said))


def in_turns(
    folder: Path, contenders: dict[str, Sequence[object]], words: Sequence[object], repeats: int
) -> dict[str, list[float]]:
    """The seconds of each contender's passes, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats):
        for number, (name, engine) in enumerate(contenders.items()):
            seconds[name].append(pass_seconds(said_by(extract(folder / f"{turn}-{number}", [*words, *engine]))))
            print(f"turn {turn + 1}, {name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def ray(workers: int) -> list[object]:
    """The words for so many workers of one thread."""
    return ["--engine", "ray", "--workers", workers]


def scaling(folder: Path, words: Sequence[object], repeats: int) -> None:
    """Two workers against one, of one thread each."""
    few_blocks = ["--tasks", "cola", "--splits", "train", "--layers", 6, "--poolings", "mean", "--shard-rows", 128]
    done = in_turns(folder, {"one": ray(1), "two": ray(2)}, [*words, *few_blocks, "--threads", 1], repeats)
    ratios = [one / two for one, two in zip(done["one"], done["two"], strict=True)]
    one, two = (statistics.median(seconds) for seconds in done.values())
    print("| workers of one thread | seconds | times one worker, turn by turn |\n|---|---|---|")
    print(f"| one | {one:.1f} | |\n| two | {two:.1f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |\n", flush=True)


def overhead(folder: Path, words: Sequence[object], repeats: int) -> None:
    """One worker against one process without Ray, over small shards."""
    small = ["--tasks", "cola", "--splits", "validation", "--layers", 1, "--poolings", "mean", "--shard-rows", 16]
    done = in_turns(folder, {"one process": (), "one worker": ray(1)}, [*words, *small, "--threads", 1], repeats)
    shards = len(list((folder / "0-0").rglob("shard-*.json")))
    here, there = (statistics.median(seconds) for seconds in done.values())
    print("| shards | one process, s | one worker, s | the engine's overhead a shard, ms |\n|---|---|---|---|")
    print(f"| {shards} | {here:.1f} | {there:.1f} | {1000 * (there - here) / shards:.1f} |\n", flush=True)


def kills(folder: Path, words: Sequence[object]) -> None:
    """Three nodes, two kills, against one process."""
    asked = [*words, "--tasks", "cola", "--shard-rows", 256, "--threads", 1]
    here, there = folder / "alone", folder / "ray"
    print(f"alone: {pass_seconds(said_by(extract(here, asked))):.0f} s", file=sys.stderr, flush=True)
    shards = len(list(here.rglob("shard-*.json")))
    chance, killed = random.Random(), []
    with ray_nodes([1, 1, 1]) as address:
        process = extract(there, [*asked, *ray(3), "--address", address])
        for least in sorted(chance.sample(range(shards // 10, shards * 9 // 10), 2)):
            while len(list(there.rglob("shard-*.json"))) < least and process.poll() is None:
                time.sleep(0.05)
            while not (workers := processes_called(WORKER)) and process.poll() is None:
                time.sleep(0.01)
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed.append(least)
        said = said_by(process)
    same = contents(here) == contents(there)
    again = sum(count - 1 for each in there.rglob(PASSES) for count in Counter(numbers(each)).values())
    print("| nodes | shards | killed, at so many whole shards | said | whole shards done again | byte-identical |")
    print("|---|---|---|---|---|---|")
    died, at = said.count("a worker died on"), ", ".join(map(str, killed))
    print(f"| 3 | {shards} | {at} | {died} | {again} | {'yes' if same else 'NO'} |")


def numbers(passes: Path) -> list[int]:
    """The shards that were computed to the end."""
    return [json.loads(line)["shard"] for line in passes.read_text("utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a cache: shards, indexes, seals and manifests."""
    files = (path for path in folder.rglob("*") if path.suffix in (".h5", ".parquet", ".json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glue")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=["scaling", "overhead", "kills"], default=["scaling", "overhead", "kills"]
    )
    options = parser.parse_args()
    words = ["--data", options.data, "--backbone", options.backbone, "--token-budget", 1024]
    with tempfile.TemporaryDirectory() as name:
        for what in options.only:
            folder = Path(name) / what
            if what == "kills":
                kills(folder, words)
            else:
                {"scaling": scaling, "overhead": overhead}[what](folder, words, options.repeats)


if __name__ == "__main__":
    main()
