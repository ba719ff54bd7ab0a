"""The measurement behind the README's tables runs, and tells a layer that knows from one that cannot."""

import re
import sys

import pytest

from tests.bench import choose_views


@pytest.mark.slow
def test_a_middle_layer_beats_the_embeddings_of_the_last_token(monkeypatch, capsys, sample_dir):
    """The embeddings of `Sentiment:` after every review are one vector: a head on them can only say one class."""
    monkeypatch.chdir(sample_dir.parent.parent)
    words = ["--task", "sst2", "--data", "sample", "--rows", "200", "--layers", "0", "20", "--prompts", "examples"]
    monkeypatch.setattr(sys, "argv", ["choose_views", *words, "--side-by-side", "0-last+20-last"])
    choose_views.main()
    printed = capsys.readouterr().out
    last = {row[0]: float(row[2]) for row in re.findall(r"\| (\d+) \| ([0-9.]+) \| ([0-9.]+) \|", printed)}
    assert last["0"] < 0.65
    assert last["20"] > last["0"] + 0.1
    assert "0-last+20-last" in printed
