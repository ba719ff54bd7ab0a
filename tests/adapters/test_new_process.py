"""What was trained gives the same logits in a new process; a training that was killed ends in the same bytes."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from pipeline.adapters.loading import LiveRun
from pipeline.config import DataConfig
from pipeline.errors import SentenceError
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from tests import forked

BOTH = ("cola", "sst2")
TEXTS = ["The cat sat on the mat .", "He have gone there .", "dull"]
LOAD = """
import json, sys
from pathlib import Path
from pipeline.adapters.loading import LiveRun
import torch
torch.set_num_threads(1)
folder, models, texts = json.loads(sys.argv[1])
live = LiveRun.load(Path(folder), models_dir=Path(models))
print(json.dumps({task: live.logits(task, texts).tolist() for task in live.run.tasks}))
"""


def logits_here(live, run):
    loaded = LiveRun.load(live.runs_dir / run.run, models_dir=live.folder / "models")
    return {task: loaded.logits(task, TEXTS).tolist() for task in run.tasks}


def logits_there(live, run):
    asked = json.dumps([str(live.runs_dir / run.run), str(live.folder / "models"), TEXTS])
    done = forked.python(LOAD, [asked], live.folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_validation(live, run):
    """Probabilities as the run has them, and as its weights give them once more."""
    loaded = LiveRun.load(live.runs_dir / run.run, models_dir=live.folder / "models")
    rows = pq.read_table(live.runs_dir / run.run / "predictions.parquet").to_pylist()
    for task in run.tasks:
        texts = read_task(find_tasks((task,))[0], live.settings(DataConfig, {}))["validation"].texts
        stored = [row["probabilities"] for row in rows if (row["task"], row["split"]) == (task, "validation")]
        yield np.array(stored), loaded.predict_proba(task, list(texts))


@pytest.mark.parametrize("kind", ["lora", "prompt", "frozen pair"])
def test_loaded_in_a_new_process_the_logits_are_the_same(live, kind):
    if kind == "lora":
        (run,) = live.lora(learning_rate=1e-2)
    elif kind == "prompt":
        (run,) = live.prompt(learning_rate=1e-2, select_by="loss")
    else:
        live.extract(layers=("1", "-1"), poolings=("mean", "last"))
        (head,) = live.heads(held_out=0.25)
        (run,) = live.lora(tasks=BOTH, freeze="cola", head_from=(head.run,))
    here, there = logits_here(live, run), logits_there(live, run)
    assert here == there
    assert np.ptp(here["cola"], axis=0).max() > 0
    for stored, again in of_validation(live, run):
        np.testing.assert_array_equal(stored, again)


def test_a_sentence_that_is_too_long_is_cut_where_that_is_asked_for(live, capsys):
    (run,) = live.lora(learning_rate=1e-2)
    folder, models = live.runs_dir / run.run, live.folder / "models"
    with pytest.raises(SentenceError, match=r"row 2(.|\n)*do: cut .* --truncation"):
        LiveRun.load(folder, models_dir=models).logits("cola", ["Fine .", "long " * 300])
    assert LiveRun.load(folder, models_dir=models, truncation=True).logits("cola", ["long " * 300]).shape == (1, 2)
    assert "1 of 1 sentences cut to 256 tokens" in capsys.readouterr().err


COMMON = ["--data", "glue", "--tasks", "cola", "--threads", "1", "--held-out", "0.25", "--batch-size", "4", "--json"]


def command(live, kind, runs_dir):
    views = ["--views", "L1-mean+L-1-last", "--dropout", "0.2"] if kind == "lora" else []
    cache = ["--cache-dir", str(live.cache_dir)] if kind == "lora" else []
    places = ["--glue-dir", live.defaults["glue_dir"], "--models-dir", live.defaults["models_dir"]]
    return [
        "adapt", kind, *COMMON, *views, *cache, "--runs-dir", str(runs_dir),
        "--backbone", live.defaults["backbone"], "--epochs", "6", "--evaluations", "4", *map(str, places),
    ]  # fmt: skip


def trained_weights(runs_dir):
    (run,) = [path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    files = sorted(path for path in run.rglob("*.safetensors"))
    return {path.relative_to(run).as_posix(): load_file(path) for path in files}, json.loads(
        (run / "run.json").read_text()
    )


def kill_behind_the_next_state(words, runs_dir):
    """Start a training, and SIGKILL it when it has kept a state (or while it keeps another)."""

    def states():
        return {path: path.stat().st_mtime_ns for path in runs_dir.glob(".training/*/*/state.safetensors")}

    before = states()
    process, _ = forked.begin(words, runs_dir.parent, {}, runs_dir.parent)
    while process.is_alive() and states() == before:
        time.sleep(0.005)
    time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_a_killed_training_goes_on_to_the_same_weights(live, kind, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert forked.pipeline(command(live, kind, whole), tmp_path, {}).returncode == 0
    for _ in range(2):
        kill_behind_the_next_state(command(live, kind, parts), parts)
    done = forked.pipeline(command(live, kind, parts), tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stderr
    one, record = trained_weights(whole)
    other, resumed = trained_weights(parts)
    assert one.keys() == other.keys()
    for file in one:
        assert {k: v.numpy().tobytes() for k, v in one[file].items()} == {
            k: v.numpy().tobytes() for k, v in other[file].items()
        }, file
    assert record["selection"] == resumed["selection"]
    assert not list(parts.glob(".training/*"))
