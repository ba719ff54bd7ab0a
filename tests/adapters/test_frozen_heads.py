"""Two heads on one set of adapters, one of them frozen: its bytes stay, both tasks are scored."""

import numpy as np
import pytest
from safetensors.torch import load_file

BOTH = ("cola", "sst2")


@pytest.fixture
def with_heads(live):
    live.extract(layers=("1", "-1"), poolings=("mean", "last"), tasks=BOTH)
    runs = live.heads(tasks=BOTH, held_out=0.25)
    return live, {run.tasks[0]: run.run for run in runs}


def head_bytes(live, run, task):
    path = live.runs_dir / run
    path = path / "heads" / f"{task}.safetensors" if (path / "heads").is_dir() else path / "head.safetensors"
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("freeze", ["none", "cola", "sst2"])
def test_the_frozen_heads_bytes_stay_and_the_other_trains(with_heads, freeze):
    live, heads = with_heads
    begin = () if freeze == "none" else (heads[freeze],)
    (run,) = live.lora(tasks=BOTH, freeze=freeze, head_from=begin, select_by="loss", evaluations=1)
    for task in BOTH:
        weight = np.frombuffer(head_bytes(live, run.run, task)["body.0.weight"], dtype=np.float32)
        assert weight.any(), task  # a head that begins anew begins at zero
        stayed = head_bytes(live, run.run, task) == head_bytes(live, heads[task], task)
        assert stayed == (task == freeze), task
    assert set(run.scores["cola"]) == set(run.scores["sst2"]) == {"held_out", "validation"}
    assert run.selection["step"] > 0


def test_both_tasks_are_scored_at_every_evaluation(with_heads, capsys):
    live, heads = with_heads
    (run,) = live.lora(tasks=BOTH, freeze="cola", head_from=tuple(heads.values()))
    for record in run.selection["evaluations"]:
        assert set(record["held_out"]) == set(BOTH)
    said = capsys.readouterr().err
    assert said.count("cola held-out mcc") == said.count("sst2 held-out accuracy") == len(run.selection["evaluations"])


def test_both_tasks_rows_train_the_adapters(with_heads):
    live, heads = with_heads
    (run,) = live.lora(tasks=BOTH, freeze="cola", head_from=(heads["cola"],), evaluations=1, epochs=1)
    assert set(run.selection["evaluations"][1]["train_loss"]) == set(BOTH)
