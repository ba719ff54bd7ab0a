"""What the cache saved, reckoned from what runs say that it took."""

import io
import json
import sys

import pytest
from rich.console import Console

from pipeline import cli
from pipeline.results.savings import break_even, of_run, savings_of, savings_table


def _printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return " ".join(console.file.getvalue().split())


def cost(backbone=100.0, seconds=120.0, reading=1.0, passes="sha256:aa"):
    return {"backbone_seconds": backbone, "seconds": seconds, "reading_seconds": reading, "passes": [passes, "x"]}


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({}, 2),  # 120 + 2 * 1 is less than 2 * 100
        ({"seconds": 99.0, "reading": 0.5}, 1),
        ({"seconds": 99.0, "reading": 1.0}, 2),  # as much as one live pass is not less
        ({"seconds": 350.0, "reading": None}, 4),
        ({"reading": 60.0}, 4),
        ({"reading": 100.0}, None),
        ({"reading": 150.0}, None),
    ],
)
def test_the_break_even_is_the_first_number_of_experiments_that_are_cheaper(settings, number):
    of = cost(**settings)
    assert break_even(of) == number
    if number is not None:

        def gains(n):
            return of["seconds"] + n * (of["reading_seconds"] or 0.0) < n * of["backbone_seconds"]

        assert gains(number)
        assert not gains(number - 1)


def test_runs_that_share_passes_share_what_they_cost(make_run):
    runs = [
        make_run("a", costs={"cola": cost()}, seconds=10.0),
        make_run("b", costs={"cola": cost()}, seconds=20.0),
        make_run("c", costs={"cola": cost(passes="sha256:bb", seconds=5.0, backbone=4.0)}, seconds=1.0),
        make_run("d"),  # of features whose cost is not known
    ]
    first, second = savings_of(runs)
    assert (first.task, first.runs, first.stage_one_seconds, first.backbone_seconds) == ("cola", 2, 120.0, 100.0)
    assert first.experiment_seconds == 10.0 + 20.0 + 1.0 + 1.0
    assert first.live_seconds == 10.0 + 20.0 + 2 * 100.0
    assert first.saved_seconds == 230.0 - 120.0 - 32.0
    assert (second.runs, second.break_even) == (1, 2)
    assert second.saved_seconds < 0  # one run alone has not paid for its features
    assert of_run(runs[0], runs) == {"cola": {"shared_by": 2, "break_even": 2}}
    assert of_run(runs[3], runs) == {}
    text = {width: _printed(savings_table([first, second]), width) for width in (80, 200)}
    assert "left out for want of width: backbone, s" in text[80] and "in the backbone" not in text[80]
    assert "in the backbone" in text[200] and "cola" in text[200]


def test_each_task_of_a_run_has_its_own(make_run):
    both = make_run("a", tasks=("cola", "sst2"), costs={"cola": cost(), "sst2": cost(passes="sha256:cc")})
    assert [each.task for each in savings_of([both])] == ["cola", "sst2"]


def test_the_commands_say_it(tmp_path, enter, monkeypatch, capsys):
    for name in ("20260101-000000-a", "20260102-000000-b"):
        enter(name, costs={"cola": cost()})

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", "runs", *words, "--runs-dir", str(tmp_path), "--json"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        return json.loads(capsys.readouterr().out)

    [saved] = command("saved")
    assert (saved["runs"], saved["break_even"]) == (2, 2)
    assert saved["saved_seconds"] == pytest.approx(200 - 120 - 2)
    shown = command("show", "20260101")
    assert shown["saved"] == {"cola": {"shared_by": 2, "break_even": 2}}
    assert shown["costs"]["cola"]["backbone_seconds"] == 100.0
