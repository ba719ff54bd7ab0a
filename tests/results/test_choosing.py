"""Which lines of the ledger are chosen, in which order, and what they become in a file."""

import datetime
import json
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.errors import ConfigError, RunError
from pipeline.results.choosing import choose_lines, why_none
from pipeline.results.export import export_lines
from pipeline.results.lines import ledger_table, lines_of
from pipeline.runs_config import LinesConfig


def test_an_empty_choice_says_why(ledger):
    def why(**settings):
        assert not choose_lines(ledger, LinesConfig(**settings)).num_rows
        return why_none(ledger, LinesConfig(**settings))

    assert why(tasks=("colla",)) == "no run has the task colla: the ledger has cola, sst2; did you mean cola?"
    assert why(heads=("ml",)).endswith("did you mean mlp?")
    assert why(heads=("transformer",)) == "no run has the head transformer: the ledger has logreg, mlp"
    assert why(tasks=("sst2",), where=("seed=77",)) == "none of the 5 lines of the ledger fulfils all of this"


@pytest.fixture
def ledger(make_run):
    """Five lines of four runs: scores 0.3, 0.5, none, 0.1 and 0.7."""

    def scores(task, accuracy):
        return {task: {"validation": {} if accuracy is None else {"accuracy": accuracy}}}

    config = make_run("x").config
    return ledger_table(
        lines_of(
            [
                make_run("a", scores=scores("cola", 0.3), seed=1, created="2026-11-01T00:00:00.0Z"),
                make_run("b", scores=scores("cola", 0.5), head="mlp", seed=2, created="2026-11-02T00:00:00.0Z"),
                make_run(
                    "c",
                    tasks=("cola", "sst2"),
                    scores=scores("cola", None) | scores("sst2", 0.1),
                    created="2026-11-03T00:00:00.0Z",
                    seconds=9.0,
                ),
                make_run(
                    "d",
                    scores=scores("cola", 0.7),
                    config={**config, "quantization": "checkpoint"},
                    created="2026-11-04T12:00:00.0Z",
                ),
            ]
        )
    )


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({}, ["a", "b", "c", "c", "d"]),
        ({"tasks": ("sst2",)}, ["c"]),
        ({"heads": ("mlp",)}, ["b"]),
        ({"heads": ("mlp", "logreg"), "tasks": ("cola",)}, ["a", "b", "c", "d"]),
        ({"where": ("quantization=checkpoint",)}, ["d"]),
        ({"where": ("quantization!=checkpoint", "seed<3")}, ["a", "b"]),
        ({"where": ("score>=0.5",)}, ["b", "d"]),  # a line without a score fulfils no condition on it
        ({"where": ("score<0.5",)}, ["a", "c"]),
        ({"since": "2026-11-03"}, ["c", "c", "d"]),
        ({"since": "2026-11-04T12:00"}, ["d"]),
        ({"where": ("created<2026-11-02",)}, ["a"]),
        ({"last": 2}, ["c", "c", "d"]),
        ({"sort": "score"}, ["d", "b", "a", "c", "c"]),  # the best first, none last
        ({"sort": "score", "reverse": True}, ["c", "a", "b", "d", "c"]),
        ({"sort": "seconds", "reverse": True, "last": 2}, ["c", "c", "d"]),
        ({"sort": "score", "last": 3}, ["d", "b", "c", "c"]),
        ({"where": ("head=none",)}, []),
    ],
)
def test_lines_are_chosen_and_sorted(ledger, settings, runs):
    assert choose_lines(ledger, LinesConfig(**settings))["run"].to_pylist() == runs


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"where": ("scores>=0.5",)}, ("no such column", "did you mean score?")),
        ({"sort": "mc"}, ("no such column", "did you mean mcc?")),
        ({"where": ("score>=high",)}, ("no such value", "high")),
        ({"where": ("score",)}, ("this is no condition",)),
        ({"since": "yesterday"}, ("this is no time", "yesterday")),
    ],
)
def test_what_is_no_column_or_value_is_refused(ledger, settings, words):
    with pytest.raises(ConfigError) as caught:
        choose_lines(ledger, LinesConfig(**settings))
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(ConfigError, match="last"):
        LinesConfig(last=-1)


def test_what_is_exported_is_what_was_chosen(ledger, tmp_path):
    chosen = choose_lines(ledger, LinesConfig(sort="score"))
    for name in ("runs.csv", "runs.parquet", "runs.md"):
        export_lines(chosen, tmp_path / name)
    assert pq.read_table(tmp_path / "runs.parquet").equals(chosen)
    frame = pd.read_csv(tmp_path / "runs.csv")
    assert frame["run"].tolist() == ["d", "b", "a", "c", "c"]
    assert frame["score"].tolist()[:4] == [0.7, 0.5, 0.3, 0.1]
    assert json.loads(frame["config"][0])["quantization"] == "checkpoint"
    assert frame["features"][0] == "3fa9 77aa"
    header, rule, first, *others = (tmp_path / "runs.md").read_text().splitlines()
    assert len(others) == 4
    cells = [line.strip("|").split("|") for line in (header, rule, first)]
    assert len({len(line) for line in cells}) == 1
    row = dict(zip((name.strip() for name in cells[0]), (cell.strip() for cell in cells[2]), strict=True))
    assert (row["task"], row["head"], row["score"], row["run"]) == ("cola", "logreg", "0.700", "d")


def test_a_file_that_is_there_is_not_overwritten_unless_asked(ledger, tmp_path):
    path = tmp_path / "runs.md"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="there already"):
        export_lines(ledger, path)
    assert path.read_text() == "mine"
    export_lines(ledger, path, overwrite=True)
    assert path.read_text() != "mine"
    with pytest.raises(ConfigError, match="does not say what to write"):
        export_lines(ledger, tmp_path / "runs.xlsx")
    assert [each.name for each in tmp_path.iterdir()] == ["runs.md"]
    export_lines(ledger, tmp_path / "new" / "runs.csv")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["runs.csv"]
    with pytest.raises(RunError, match="in a folder"):
        export_lines(ledger, path / "runs.csv")


def test_a_pipe_in_a_cell_does_not_break_the_table(make_run, tmp_path):
    config = {**make_run("x").config, "data": "a|b"}
    export_lines(ledger_table(lines_of([make_run("a", config=config)])), tmp_path / "runs.md")
    assert r"| a\|b |" in (tmp_path / "runs.md").read_text()


def test_the_commands_choose_and_export(tmp_path, enter, monkeypatch, capsys):
    for day, head in ((1, "ridge"), (2, "svm"), (3, "mlp")):
        enter(f"2026010{day}-000000-cola-{head}", head=head)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", "runs", *words, "--runs-dir", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        return capsys.readouterr().out

    listed = json.loads(command("ls", "--heads", "svm", "mlp", "--sort", "created", "--reverse", "--json"))
    assert [run["head"] for run in listed] == ["mlp", "svm"]
    assert listed[0]["config"]["backbone"] == "smollm2-135m"
    shown = command("ls", "--where", "head=ridge")
    assert "ridge" in shown
    assert "svm" not in shown
    written = json.loads(command("export", str(tmp_path / "out.csv"), "--last", "1", "--json"))
    assert written == [{"file": str(tmp_path / "out.csv"), "lines": 1}]
    assert pd.read_csv(tmp_path / "out.csv")["head"].tolist() == ["mlp"]
    assert datetime.datetime.fromisoformat(pd.read_csv(tmp_path / "out.csv")["created"][0]).year == 2026
