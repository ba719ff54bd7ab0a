"""The benchmark of predict measures what it says: the same sentences in both ways, and how far apart they come out."""

import sys

from pipeline import cli
from tests.bench import predicting


def test_both_ways_give_the_same_numbers(place, monkeypatch, capsys):
    seconds = {"extract": 2.0, "predict": 4.0}

    def here(*words):  # in this process, where everything is loaded already
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, words)])
        try:
            cli.main()
        except SystemExit as ended:
            assert not ended.code
        return predicting.Turn(*[seconds[words[0]]] * 3), ""

    monkeypatch.setattr(predicting, "run", here)
    words = ("--task", "cola", "--glue-dir", place.folder / "glue", "--backbone", place.backbone, "--repeats", 1)
    words += ("--models-dir", place.models, "--runs-dir", place.folder / "runs", "--run", place.runs["logreg"])
    monkeypatch.setattr(sys, "argv", ["predicting", *map(str, words)])
    predicting.main()
    out = capsys.readouterr().out
    assert "| the whole command | 5.0 | 5.0 | 2.5 | 0.50 / 0.50 |" in out  # 10 sentences
    assert "features plus head: 0; other predictions: 0." in out
