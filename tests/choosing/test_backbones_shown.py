"""What people see of a comparison: the table, LogME's agreement, the page with the Pareto plot, and the command."""

import json
import re
import sys

import pytest
from rich.console import Console

from pipeline import cli
from pipeline.choosing.agreement import rank_agreement
from pipeline.choosing.plot import check_plot, pareto_figure, write_plot
from pipeline.choosing.table import comparison_tables
from pipeline.errors import ConfigError


def test_the_table_has_every_contender_and_why_some_are_missing(compared):
    console = Console(width=220)
    with console.capture() as capture:
        console.print(comparison_tables(compared))
    cola, sst2 = capture.get().split("cola: LogME against MCC")
    for part, task in ((cola, "cola"), (sst2, "sst2")):
        for each in compared.of_task(task):
            [line] = [line for line in part.splitlines() if f"│ {each.contender.label} " in line]
            for shown in (each.views, f"{each.score:.3f}", f"{each.layer} of 2", f"{each.logme[each.views]:.4f}"):
                assert shown in line
        assert part.count("not had: the backbone has no such layer") == 1
        assert part.count("not had: the Hub cannot be reached") == 1
    assert "too few contenders" in sst2


def test_the_figure_has_each_score_with_its_interval_at_its_cost(compared):
    figure = pareto_figure(compared)
    assert len(figure.data) == 4  # on the front and not, of two tasks
    for front, beaten, task in (*[(*figure.data[:2], "cola")], *[(*figure.data[2:], "sst2")]):
        on_front = compared.front(task)
        assert sum(on_front) == len(front.x) >= 1
        assert list(front.x) == sorted(front.x)
        drawn = {}
        for trace in (front, beaten):
            for x, y, up, down in zip(trace.x, trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True):
                drawn[x] = (y, y + up, y - down)
        for each in compared.of_task(task):
            expected = (each.score.estimate, each.score.high, each.score.low)
            assert drawn[each.seconds_per_thousand] == pytest.approx(expected)


def test_the_page_needs_nothing_else_and_is_not_overwritten_unasked(compared, tmp_path):
    path = tmp_path / "new" / "backbones.html"
    write_plot(compared, path)
    page = path.read_text("utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "Plotly.newPlot" in page
    assert "tiny-llama:none@1" in page
    with pytest.raises(ConfigError, match="there already"):
        check_plot(path, overwrite=False)
    check_plot(path, overwrite=True)
    with pytest.raises(ConfigError, match=r"\.html"):
        check_plot(tmp_path / "backbones.png", overwrite=True)


def test_ranks_agree_and_how_much_that_says():
    same = rank_agreement([1, 2, 3, 4, 5, 6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.9])
    assert (same.kendall, same.spearman, same.contenders) == pytest.approx((1, 1, 6))
    assert same.p == pytest.approx(2 / 720)  # of all orders, this and its reverse
    assert "unlikely by chance, were all contenders independent" in str(same)
    few = rank_agreement([1, 2, 3], [0.1, 0.2, 0.3])
    assert few.p == pytest.approx(2 / 6)
    assert "chance alone" in str(few)
    assert rank_agreement([3, 1, 2], [1, 3, 2]).kendall == pytest.approx(-1)
    assert rank_agreement([1, 2], [1, 2]) is None
    assert rank_agreement([1, 2, 3], [5, 5, 5]) is None


@pytest.fixture
def command(compare, monkeypatch, capsys):
    def run(*words):
        fixed = ("--tasks", "cola", "--heads", "centroid", "--seeds", 2, "--group-by", "sentence", "--rows", 50)
        places = ("--glue-dir", compare.data.glue_dir, "--cache-dir", compare.cache.cache_dir)
        places += ("--runs-dir", compare.runs.runs_dir, "--models-dir", compare.settings["models_dir"])
        words = [str(word).format(compare.backbone) for word in (*words, *fixed, *places)]
        monkeypatch.setattr(sys, "argv", ["pipeline", "backbones", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_what_it_has_and_ends_with_2_where_a_contender_is_missing(
    command, in_this_process, tmp_path
):
    code, out, err = command("{}:none@1", "org/none", "--json", "--plot", tmp_path / "plot.html")
    assert code == 2
    record = json.loads(out)
    assert [each["layer"] for each in record["contenders"]] == [1]
    assert [each["contender"] for each in record["not_had"]] == ["org/none:nf4"]
    assert "pipeline: 1 of 2 contenders could not be had\norg/none:nf4: the Hub cannot be reached" in err
    assert (tmp_path / "plot.html").is_file()


def test_the_command_says_what_is_wrong_before_it_begins(command, tmp_path):
    (tmp_path / "plot.html").write_text("mine")
    code, out, err = command("{}:none", "--plot", tmp_path / "plot.html")
    assert (code, out) == (2, "")
    assert "--force" in err
    assert (tmp_path / "plot.html").read_text() == "mine"
    code, out, err = command("a:q8", "b@c", "--json")
    assert (code, out) == (2, "")
    assert "a:q8" in err
    assert "b@c" in err
