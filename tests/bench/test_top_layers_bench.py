"""The measurement of cached beginnings trains the same thing in both ways, and prints both."""

import re
import sys

from tests.bench import top_layers


def test_it_prints_both_and_how_far_they_are_apart(tiny_backbone, small_glue, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GLUE_DIR", str(small_glue))
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", str(tiny_backbone), "--top-layers", "1", "--rows", "40", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["top_layers", *words])
    top_layers.main()
    out = capsys.readouterr().out
    assert re.search(r"^\| whole \| [\d.]+ \| 1 \|$", out, re.M)
    assert re.search(r"^\| from layer 1 of 2 on, cached \| [\d.]+ \| [\d.]+ \|$", out, re.M)
    assert float(re.search(r"differ by (\S+) relative", out)[1]) < 1e-5
