"""The benchmark of stage one measures what it says, and the plan of the real corpora is near its limit."""

import os
import sys
from pathlib import Path

import pytest
import torch

from pipeline.backbone.catalogue import find_backbone
from pipeline.backbone.packed import can_pack
from pipeline.backbone.plan import distinct_prefixes
from pipeline.backbone.tokens import load_tokenizer, tokenize
from pipeline.config import BackboneConfig, DataConfig
from pipeline.extract.probe import CANDIDATES
from pipeline.tasks.read import read_task
from pipeline.tasks.spec import find_tasks
from tests.bench import stage_one
from tests.bench.limits import planned

GLUE = Path(os.environ.get("GLUE_DIR", Path(__file__).parents[3] / "shared" / "glue"))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cola", "sst2"])
def test_the_plan_of_real_corpora_computes_little_more_than_each_prefix_once(task):
    if not GLUE.is_dir():
        pytest.skip(f"no GLUE in {GLUE}")
    (spec,) = find_tasks((task,), ())
    examples = read_task(spec, DataConfig(data="glue", glue_dir=GLUE), ("train",))["train"]
    tokenizer = load_tokenizer(find_backbone(BackboneConfig()).folder)
    tokens = tokenize(tokenizer, examples.texts, spec.prompt, max_length=512, origin=examples.origin)
    computed, padding = planned(tokens, max(CANDIDATES["cpu"]))
    assert computed <= 1.25 * distinct_prefixes([tokens[row] for row in range(len(tokens))])
    assert padding <= 0.03 * computed


@pytest.mark.slow
def test_contenders_agree_with_the_unpadded_pass(monkeypatch, capsys, sample_dir):
    monkeypatch.chdir(sample_dir.parent.parent)
    contenders = ["this project, float32", "transformers"]
    if packs_bfloat16 := can_pack(torch.device("cpu"), torch.bfloat16):  # else its products are emulated: minutes
        contenders.append("this project, bfloat16")
    rows = ["--data", "sample", "--tasks", "cola", "--rows", "6", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["stage_one", *rows, "--contenders", *contenders, "--no-limits"])
    stage_one.main()
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| cola |")]
    worst = {line[1]: float(line[7]) for line in lines}
    assert worst["this project, float32"] < 1e-4
    assert worst["transformers pipeline, float32"] < 1e-4
    assert not packs_bfloat16 or 1e-4 < worst["this project, bfloat16"] < 1e-1
