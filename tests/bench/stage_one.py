"""How fast stage one is, against what people use instead: same model, same prompts, same rows, in one run.

    make bench GLUE_DIR=…

Every contender runs in a process of its own and waits for its turn; turns go round, so that a noisy machine disturbs
all alike. Prints Markdown: how far stage one is from what it could be at best (the corpora's distinct token prefixes,
and the time of the same matrix products alone); then, for each contender, medians and spreads, ratios, peak memory,
and how far its features are from the unpadded float32 pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import DataConfig
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from tests.bench.contenders import CONTENDERS, Request

OURS, BASE = "this project, float32", "sentence-transformers, float32"
POOLINGS = {"cola": "mean", "sst2": "last"}
SPLITS = {"cola": "validation", "sst2": "train"}
NEEDS = {"sentence": "sentence_transformers", "llama": "llama_cpp"}
FEWER = {"naive loop, float32": 16, "llama-cpp-python, Q4_1": 100, "reference": 64}
"""Contenders too slow for all rows: so many, spread over them, and scaled by the tokens."""


class Process:
    """A contender in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        command = [sys.executable, "-m", "tests.bench.contenders", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, request: Request, repeat: object) -> tuple[dict[str, Any], np.ndarray]:
        assert self.process.stdin is not None
        place = self.folder / f"{list(CONTENDERS).index(self.name)}-{repeat}"
        asked = {"request": f"{place}.json", "features": f"{place}.npy"}
        Path(asked["request"]).write_text(json.dumps(asdict(request)), "utf-8")
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.answer(), np.load(asked["features"])

    def end(self) -> None:
        with self.process:  # closes its pipes, and waits for it
            pass


def read_requests(data: DataConfig, rows: int, tasks: Sequence[str]) -> dict[str, Request]:
    """The texts of tasks under their own prompts."""
    requests = {}
    for task in find_tasks(tuple(tasks), ()):
        split = SPLITS[task.name]
        before, after = task.prompt.split("{}")
        texts = list(read_task(task, data, (split,))[split].texts[:rows])
        requests[task.name] = Request(texts, before, after, POOLINGS[task.name])
    return requests


def spread_over(request: Request, rows: int) -> tuple[np.ndarray, Request]:
    """Some of a request's rows, evenly spread."""
    chosen = np.unique(np.linspace(0, len(request.texts) - 1, rows).astype(int))
    return chosen, replace(request, texts=[request.texts[row] for row in chosen])


def differences(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest relative difference and the smallest cosine over the rows."""
    lengths = np.linalg.norm(expected, axis=1)
    relative = np.linalg.norm(found - expected, axis=1) / lengths
    cosine = (found * expected).sum(1) / (lengths * np.linalg.norm(found, axis=1))
    return float(relative.max()), float(cosine.min())


def compare(names: list[str], requests: dict[str, Request], repeats: int) -> None:
    """Run all contenders in turn and print their table."""
    from pipeline.backbone.catalogue import find_backbone
    from pipeline.backbone.tokens import load_tokenizer
    from pipeline.config import BackboneConfig

    tokenizer = load_tokenizer(find_backbone(BackboneConfig()).folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [Process(each, folder) for each in names]
        judge = Process("reference", folder)
        print("| task | contender | sentences/s | prompted tokens/s | times sentence-transformers | spread | peak, GB |"
              " largest relative difference | smallest cosine |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
        for task, request in requests.items():
            lengths = np.array([len(ids) for ids in tokenizer(request.prompted)["input_ids"]])
            chosen, few = spread_over(request, FEWER["reference"])
            _, expected = judge.ask(few, "reference")
            rates: dict[str, list[float]] = {each: [] for each in names}
            peaks, agreement = {}, {}
            for process in processes:
                process.ask(spread_over(request, 32)[1], "warm")
            for repeat in range(repeats):
                for process in processes:
                    each = process.name
                    own, asked = spread_over(request, FEWER.get(each, len(request.texts)))
                    answer, features = process.ask(asked, repeat)
                    rates[each].append(float(lengths[own].sum()) / answer["seconds"])
                    peaks[each] = answer["peak_bytes"]
                    both = np.intersect1d(own, chosen)
                    here, there = np.searchsorted(own, both), np.searchsorted(chosen, both)
                    agreement[each] = differences(features[here], expected[there])
                    print(f"{task}, {each}: {rates[each][-1]:.0f} tokens/s", file=sys.stderr)
            base = statistics.median(rates[BASE]) if BASE in rates else float("nan")
            for each in names:
                rate = statistics.median(rates[each])
                spread = (max(rates[each]) - min(rates[each])) / rate
                few_rows = f" ({FEWER[each]} rows, scaled)" if each in FEWER else ""
                relative, cosine = agreement[each]
                print(
                    f"| {task} | {each}{few_rows} | {rate / lengths.mean():.0f} | {rate:,.0f} | {rate / base:.2f} "
                    f"| {100 * spread:.0f} % | {peaks[each] / 1e9:.2f} | {relative:.1e} | {cosine:.6f} |"
                )
        for process in (*processes, judge):
            process.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glue")
    parser.add_argument("--tasks", nargs="+", default=["cola", "sst2"], choices=["cola", "sst2"])
    parser.add_argument("--rows", type=int, default=2000, help="of each task at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", help="beginnings of names; all that are installed by default")
    parser.add_argument("--no-limits", action="store_true", help="only the contenders")
    options = parser.parse_args()
    data = DataConfig(data=options.data)
    there = [each for each in CONTENDERS if each != "reference"]
    if options.contenders:
        there = [each for each in there if each.startswith(tuple(options.contenders))]
    absent = [each for each in there if find_spec(NEEDS.get(each.split("-")[0], "torch")) is None]
    for each in absent:
        print(f"{each}: not installed, left out", file=sys.stderr)
    if not options.no_limits:
        from tests.bench.limits import print_limits

        print_limits(data)
    compare(
        [each for each in there if each not in absent],
        read_requests(data, options.rows, options.tasks),
        options.repeats,
    )


if __name__ == "__main__":
    main()
