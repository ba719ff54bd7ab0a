"""`pipeline joint`: a table for people, JSON alone for programs, one message for what cannot be done."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.tasks.spec import BUILT_IN

QUICK = ("--seeds", 1, "--hidden-size", 8, "--max-steps", 20, "--evaluation-steps", 10, "--batch-size", 32)
STAGE_ONE = ("transformers", "datasets", "bitsandbytes", "peft", "accelerate", "huggingface_hub", "tokenizers")


@pytest.fixture(scope="module")
def where(write_cache, corpora, tmp_path_factory):
    """Options that name a cache of both tasks."""
    folder = tmp_path_factory.mktemp("cache")
    write_cache(folder, corpora)
    labels = {split: np.random.default_rng(1).permutation(corpus.truth) for split, corpus in corpora.items()}
    of_sst2 = {
        split: replace(corpus, labels=None if corpus.labels is None else labels[split])
        for split, corpus in corpora.items()
    }
    write_cache(folder, of_sst2, task=BUILT_IN["sst2"])
    return ("--cache-dir", folder)


@pytest.fixture
def pipeline(monkeypatch, capsys, tmp_path, where):
    """The command line in this process: its exit code, standard output and standard error."""

    def run(*words):
        folders = () if "--models-dir" in words else (*where, *QUICK)
        arguments = ["pipeline", *words, *folders, "--runs-dir", tmp_path / "runs"]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return code, *capsys.readouterr()

    return run


def test_a_person_gets_the_table(pipeline):
    code, out, err = pipeline("joint")
    assert code == 0, err
    lines = [line for line in out.splitlines() if "cola │" in line or "sst2 │" in line]
    assert [line.split("│")[2].strip() for line in lines] == [
        "separate", "joint", "joint, cola frozen", "joint, sst2 frozen",
    ] * 2  # fmt: skip
    assert max(map(len, out.splitlines())) <= 80
    assert "cola+sst2, joint, cola's head frozen, seed 0: done, step 20 of 20" in err


def test_a_program_gets_json_alone(where, in_new_process, tmp_path):
    words = ("joint", "--freeze", "sst2", *where, *QUICK, "--runs-dir", tmp_path, "--json", "--threads", 1)
    done = in_new_process("-X", "importtime", "-m", "pipeline", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert [run["selection"]["freeze"] for run in found["runs"]] == [None, None, "sst2"]
    assert [(each["task"], each["freeze"]) for each in found["comparisons"]] == [("cola", "sst2"), ("sst2", "sst2")]
    for each in found["comparisons"]:
        assert set(each["difference"]) == {"estimate", "low", "high", "level", "method"}
        assert each["joint"]["interval"]["low"] is None  # of one seed nobody knows
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert not imported & set(STAGE_ONE)
    assert "torch" in imported


def test_what_cannot_be_done_is_one_message(pipeline):
    for words, parts in (
        (("--freeze", "mnli"), ("freeze: expected all | none | cola | sst2, found 'mnli'",)),
        (("--tasks", "cola"), ("tasks: expected two, found 1",)),
        (("--freeze", "none", "--head-from", "x"), ("head_from: expected --freeze with the task",)),
        (("--freeze", "cola", "--head-from", "x"), ("no such run", "pipeline runs ls")),
        (("--views", "L1-mean", "L1-mean+L2-mean"), ("not equally wide", "cola: L1-mean, 16 numbers")),
    ):
        code, out, err = pipeline("joint", *words)
        assert (code, out) == (2, ""), err
        assert all(part in err for part in parts), err
        assert "Traceback" not in err


def test_a_run_says_what_its_heads_read_of_each_task(pipeline):
    _, out, _ = pipeline("joint", "--freeze", "none", "--json")
    *alone, together = json.loads(out)["runs"]
    assert together["inputs"] == alone[0]["inputs"] | alone[1]["inputs"]
    assert {task: found["labels"][1] for task, found in together["inputs"].items()} == {
        "cola": "acceptable", "sst2": "positive",
    }  # fmt: skip
    for task, found in together["inputs"].items():
        assert [(view["layer"], view["pooling"], view["prompt"]) for view in found["views"]] == [
            (1, "mean", BUILT_IN[task].prompt)
        ]
        assert "texts" not in found["views"][0]
