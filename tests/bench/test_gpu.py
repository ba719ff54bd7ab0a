"""The GPU benchmark runs, on a tiny shape and without a GPU, and says where there is none."""

import sys

import pytest
import torch

from tests.bench import gpu


@pytest.mark.slow
def test_every_way_is_measured_and_compared(monkeypatch, capsys, sample_dir):
    monkeypatch.chdir(sample_dir.parent.parent)
    words = ["--data", "sample", "--rows", "40", "--plain-rows", "40", "--repeats", "1", "--shape", "tiny"]
    monkeypatch.setattr(sys, "argv", ["gpu", *words, "--device", "cpu"])
    gpu.main()
    said = capsys.readouterr().out
    for task in ("cola", "sst2"):
        lines = [line.split(" | ") for line in said.splitlines() if line.startswith(f"| {task} |")]
        assert [line[1] for line in lines] == [
            "stage one, dequantised once",
            "stage one, Linear4bit",
            "transformers, batches of 32",
        ]
        assert all(float(cell.replace(",", "")) > 0 for line in lines for cell in line[2:5])
        assert lines[-1][-1].startswith("1.0")
        assert f"{task}: dequantised once and Linear4bit: " in said


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="no CUDA device is here"):
        gpu.main()


def test_both_ways_give_what_the_plain_loop_gives(sample_dir, monkeypatch):
    from pipeline.backbone.prefill import PrefillEngine
    from pipeline.config import DataConfig
    from pipeline.views import View

    monkeypatch.chdir(sample_dir.parent.parent)
    device, dtype = torch.device("cpu"), torch.float32
    model = gpu.random_nf4("tiny", device, dtype)
    gpu.dequantize_once(model, dtype)
    tokens = gpu.first_rows(gpu.read_tokens(DataConfig(data="sample"), 20)["sst2"], 7)
    plain, padded = gpu.plain_loop(model, device, tokens)
    engine = PrefillEngine(gpu.as_backbone(model, device, dtype, "once"), [4])
    ours, computed = gpu.stage_one(engine, View(4, "mean"), 256)(tokens)
    assert plain.shape == ours.shape == (7, 128)
    assert abs(plain - ours).max() < 1e-4
    assert computed < padded
