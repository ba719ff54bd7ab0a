"""The CPU machine needs neither the model nor the data set: training a head imports none of stage one's packages."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from pipeline.tasks.spec import BUILT_IN
from pipeline.views import View

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
STAGE_ONE = ("transformers", "datasets", "bitsandbytes", "peft", "accelerate", "huggingface_hub", "gguf", "tokenizers")

TRAIN = """
import sys
from pathlib import Path
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.heads.train import train_heads
cache, runs = map(Path, sys.argv[1:])
config = HeadsConfig(tasks=("cola",), heads=("linear",), views=("L1-mean",))
train_heads(config, CacheConfig(cache), RunsConfig(runs))
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_training_heads_leaves_the_packages_of_stage_one_alone(in_new_process, cache, tmp_path):
    done = in_new_process("-c", TRAIN, cache.cache_dir, tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & set(STAGE_ONE)
    assert {"torch", "sklearn", "h5py", "safetensors"} <= loaded  # what is loaded does show
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir()]) == 1


@pytest.fixture(scope="module")
def command(in_new_process, cache, tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """`pipeline heads … --json`, which reports its imports on standard error."""
    runs_dir = tmp_path_factory.mktemp("runs")
    arguments = (
        "--tasks",
        "cola",
        "--heads",
        "logreg",
        "RidgeClassifier",
        "--views",
        "L1-mean",
        "L2-last",
        "--seed",
        "2",
    )
    folders = ("--cache-dir", cache.cache_dir, "--runs-dir", runs_dir)
    return in_new_process("-X", "importtime", "-m", "pipeline", "heads", *arguments, *folders, "--json")


def test_the_command_prints_its_result_as_json_and_nothing_else(command):
    assert command.returncode == 0, command.stderr[-2000:]
    runs = json.loads(command.stdout)
    assert [(run["head"], run["config"]["features"]) for run in runs] == [
        ("logreg", "L1-mean"),
        ("RidgeClassifier", "L1-mean"),
        ("logreg", "L2-last"),
        ("RidgeClassifier", "L2-last"),
    ]
    for run in runs:
        assert run["seed"] == 2
        shown = set(run["scores"]["cola"]["validation"])
        assert shown >= {"mcc", "accuracy", "balanced_accuracy", "f1"}
    assert "cola: logreg on L1-mean" in command.stderr  # what it says to people


def test_the_command_imports_nothing_of_stage_one(command):
    lines = [line for line in command.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert not imported & set(STAGE_ONE)
    assert {"torch", "sklearn", "h5py", "skops", "pipeline"} <= imported


@pytest.fixture
def pipeline(monkeypatch, capsys):
    """The command line in this process: its exit code, standard output and standard error."""
    from pipeline.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_person_gets_a_table_and_the_ledger_lists_the_same_runs(pipeline, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs")
    code, out, _ = pipeline("heads", "--tasks", "cola", "--heads", "logreg", "linear", "--views", "L1-mean", *where)
    assert code == 0
    assert all(word in out for word in ("MCC", "logreg", "linear", "L1-mean", "majority"))
    code, out, err = pipeline("runs", "ls", "--json", "--runs-dir", tmp_path / "runs")
    assert (code, err) == (0, "")
    runs = json.loads(out)
    assert {run["head"] for run in runs} == {"logreg", "linear"}
    code, out, _ = pipeline("runs", "show", runs[0]["run"], "--json", "--runs-dir", tmp_path / "runs")
    assert json.loads(out) == {**runs[0], "saved": {}}


def test_trouble_is_one_message_on_standard_error_and_exit_code_2(pipeline, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs", "--json")
    code, out, err = pipeline("heads", "--tasks", "cola", "--heads", "NoSuchHead", "--views", "L1-mean", *where)
    assert (code, out) == (2, "")
    assert err.startswith("pipeline: no such head")
    assert "Traceback" not in err
    code, out, err = pipeline("heads", "--tasks", "cola", "--quantization", "int8", "--views", "L1-mean", *where)
    assert (code, out) == (2, "")
    assert "wanted" in err
    assert "int8" in err
    assert pipeline("heads", "--tasks", "cola", "--heads", "logreg", "--views", "L1-mean", *where)[0] == 0


def test_a_task_of_ones_own_is_printed_as_json_too(pipeline, write_cache, corpora, tmp_path):
    from pipeline.tasks.spec import TaskSpec

    task = TaskSpec(name="tone", labels=("cold", "warm"), prompt="Tone of: {}")
    cache = write_cache(tmp_path / "cache", corpora, task=task)
    file = tmp_path / "tone.toml"
    file.write_text('name = "tone"\nlabels = ["cold", "warm"]\nprompt = "Tone of: {}"\n')
    arguments = ("--tasks", "tone", "--task-files", file, "--heads", "logreg", "--views", "L1-mean")
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs")
    code, out, err = pipeline("heads", *arguments, *where, "--json")
    assert code == 0, err
    (run,) = json.loads(out)
    assert run["tasks"] == ["tone"]
    assert run["config"]["task_files"] == [str(file)]


@pytest.mark.parametrize("prompt", ["Sentence: {}", "[INST] Good English? {} [/INST]", "a [red]b[/red] {}"])
def test_a_record_is_shown_to_a_person_as_it_is(pipeline, tmp_path, write_cache, corpora, prompt):
    """Chat prompts are full of square brackets, which a terminal library may take for its own markup."""
    task = replace(BUILT_IN["cola"], prompt=prompt)
    cache = write_cache(tmp_path / "cache", corpora, task=task, views=(View(1, "mean"),))
    where = ("--cache-dir", cache.cache_dir)
    (name,) = [path.name for path in (cache.cache_dir / "cola" / "train").iterdir()]
    code, out, err = pipeline("cache", "show", name, *where)
    assert (code, err) == (0, "")
    assert prompt in out
    arguments = ("--tasks", "cola", "--heads", "logreg", "--views", "L1-mean", "--prompt", prompt)
    assert pipeline("heads", *arguments, *where, "--runs-dir", tmp_path / "runs")[0] == 0
    (run,) = [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    code, out, err = pipeline("runs", "show", run, "--all", "--runs-dir", tmp_path / "runs")
    assert (code, err) == (0, "")
    assert prompt in out
