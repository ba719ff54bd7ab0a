"""How fast `pipeline predict` is against stage one over the same sentences, and whether its numbers are the same.

    make bench-predict GLUE_DIR=…

Trains a logistic regression on cached features, or takes a run; then stage one over the test split, with its default
views and with no higher layers than the head's, and `pipeline predict` on its file take turns, each in a process of its
own with everything that it loads. Prints Markdown: sentences a second of each command, whole and without loading, and
how far the probabilities of `predict` are from those of the same head on stage one's features.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.cache import FeatureCache
from pipeline.config import DataConfig
from pipeline.heads.store import load_head
from pipeline.results.ledger import read_run
from pipeline.tasks.glue import glue_file
from pipeline.tasks.spec import find_tasks

PASS = re.compile(r": done, [\d,]+ (?:rows|sentences?) in ([\d,.]+) s")
"""What a progress line says at its end: the seconds without loading."""


STAGE_ONE, SAME_LAYERS, PREDICT = "stage one, default views", "stage one, the head's layers", "predict"


@dataclass(frozen=True)
class Turn:
    """What one command took.

    Args:
        seconds: in all.
        cpu_seconds: of both cores, whatever else ran beside it.
        pass_seconds: without loading.
    """

    seconds: float
    cpu_seconds: float
    pass_seconds: float


def run(*words: object) -> tuple[Turn, str]:
    """Run a command of the pipeline; gives what it took and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    passes = [float(found.replace(",", "")) for found in PASS.findall(done.stderr)]
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Turn(seconds, cpu_seconds, sum(passes)), done.stdout


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Measure, and print the table."""
    (task,) = find_tasks((options.task,))
    assert task.glue is not None
    data = DataConfig(glue_dir=options.glue_dir)
    file = glue_file(data.glue_dir, task.glue, "test")
    ours = ("--backbone", options.backbone, "--quantization", options.quantization)
    models = ("--models-dir", options.models_dir)
    runs = ("--runs-dir", options.runs_dir or folder / "runs")
    name = options.run
    if name is None:
        words = ("heads", "--tasks", task.name, "--heads", "logreg", *ours, "--cache-dir", options.cache_dir, *runs)
        name = json.loads(run(*words, "--json")[1])[0]["run"]
    there = read_run(Path(runs[1]) / name)
    views = there.inputs[task.name]["views"]
    layers, poolings = (list(dict.fromkeys(view[field] for view in views)) for field in ("layer", "pooling"))
    turns: dict[str, list[Turn]] = {STAGE_ONE: [], SAME_LAYERS: [], PREDICT: []}
    for turn in range(options.repeats):
        words = ("extract", "--tasks", task.name, "--splits", "test", *ours, "--glue-dir", data.glue_dir, *models)
        turns[STAGE_ONE].append(run(*words, "--cache-dir", folder / f"cache-{turn}")[0])
        words = (*words, "--layers", *layers, "--poolings", *poolings)
        turns[SAME_LAYERS].append(run(*words, "--cache-dir", folder / f"same-{turn}")[0])
        to = folder / f"{turn}.parquet"
        turns[PREDICT].append(run("predict", name, "--file", file, "--to", to, *runs, *models, "--task", task.name)[0])
        for what, done in turns.items():
            print(f"turn {turn + 1}, {what}: {done[-1]}", file=sys.stderr)
    cache = FeatureCache(folder / "cache-0")
    X = np.concatenate([cache.open(task.name, "test", identity=view).X for view in views], axis=1)
    head = load_head(Path(runs[1]) / name, task.name)
    expected, table = head.predict_proba(X), pq.read_table(folder / "0.parquet")
    found = np.stack([table[f"probability_{label}"].to_numpy() for label in task.labels], axis=1)
    other = int((head.predict(X) != table["prediction"].to_numpy()).sum())
    rows = len(table)
    print(f"| sentences/s | {' | '.join(turns)} | predict, times the first / the second |\n|---|---|---|---|---|")
    names = {"seconds": "the whole command", "pass_seconds": "without loading", "cpu_seconds": "by CPU time"}
    for field, what in names.items():
        one, same, two = (rows / statistics.median(getattr(each, field) for each in done) for done in turns.values())
        print(f"| {what} | {one:,.1f} | {same:,.1f} | {two:,.1f} | {two / one:.2f} / {two / same:.2f} |")
    print(
        f"\n{task.name}, {rows:,} sentences of the test file, {options.quantization}, {there.head} on "
        f"{there.config.get('features')}; medians of {options.repeats}, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}.\nThe largest difference between probabilities of predict "
        f"and of features plus head: {np.abs(found - expected).max():.3g}; other predictions: {other}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--glue-dir", type=Path, default=DataConfig().glue_dir)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--cache-dir", type=Path, default=Path("data/cache"), help="holds the training features")
    parser.add_argument("--models-dir", type=Path, default=Path("data/models"))
    parser.add_argument("--runs-dir", type=Path, help="where --run is")
    parser.add_argument("--run", help="a run of the cached path, instead of a head that is trained first")
    parser.add_argument("--repeats", type=int, default=3)
    with tempfile.TemporaryDirectory() as folder:
        compare(parser.parse_args(), Path(folder))


if __name__ == "__main__":
    main()
