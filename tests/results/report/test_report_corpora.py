"""Runs on different data are never mixed: each corpus has its card, its board and its figures."""

import json
import shutil

import pytest

from pipeline.errors import RunError
from pipeline.results.ledger import read_runs
from pipeline.results.report.corpora import corpora_of
from pipeline.results.report.gather import gather
from pipeline.results.report.ticks import seconds_axis
from pipeline.results.report.writing import write_report
from tests.results.report.conftest import Reported, draw

CORPORA = ["CoLA (glue, 30 rows)", "SST-2 (glue, 30 rows)", "CoLA (sample, 30 rows)"]


@pytest.fixture(scope="module")
def mixed(run_of_all_kinds, tmp_path_factory):
    """The runs of the report, and one of a sample that is better than all of them."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(run_of_all_kinds.runs_dir, folder / "runs")
    of_cola = next(run for run in read_runs(folder / "runs") if run.tasks == ("cola",) and run.path == "cached")
    path = shutil.copytree(folder / "runs" / of_cola.run, folder / "runs" / f"{of_cola.run}-sample") / "run.json"
    record = json.loads(path.read_text("utf-8"))
    record["run"], record["config"]["data"] = f"{of_cola.run}-sample", "sample"
    found = record["scores"]["cola"]["validation"], record["statistics"]["cola"]["validation"]
    found[0]["mcc"] = found[1]["intervals"]["mcc"]["estimate"] = found[1]["intervals"]["mcc"]["high"] = 0.99
    found[1]["texts"] = "sha256:" + "5" * 64
    path.write_text(json.dumps(record), "utf-8")
    page = Reported(folder / "report.html", folder / "runs", folder / "no-cache")
    page.said = write_report(page.path, gather(page.runs_dir, labels={}, features={}))
    return page


def _run(make_run, name, texts="", **config):
    statistics = {"cola": {"validation": {"texts": texts, "intervals": {}}}}
    return make_run(name, statistics=statistics, config={"data": "glue", **config})


def _corpora(runs, **which):
    found = corpora_of(runs, {run.run: {} for run in runs}, named=(), labels={}, **which)
    return [(each.task, each.source, sorted(entry.name for entry in each.entries)) for each in found]


def test_runs_are_told_apart_by_their_data_and_real_glue_comes_first(make_run):
    runs = [
        _run(make_run, "a", "sha256:11"), _run(make_run, "b", "sha256:11"),
        _run(make_run, "c", "sha256:22", data="sample"), _run(make_run, "d", data="sample"),
        _run(make_run, "e", "sha256:33", data="texts/of my own"),
    ]  # fmt: skip
    assert _corpora(runs) == [
        ("cola", "glue", ["a", "b"]),
        ("cola", "of my own", ["e"]),
        ("cola", "sample", ["c", "d"]),
    ]
    assert _corpora(runs, data=["sample"]) == [("cola", "sample", ["c", "d"])]
    assert _corpora(runs, data=["texts/of my own"]) == [("cola", "of my own", ["e"])]
    assert _corpora(runs, tasks=["sst2"]) == []


def test_a_sample_is_no_headline_and_stands_apart(mixed):
    assert mixed.said["corpora"] == CORPORA
    assert mixed.said["tasks"] == ["cola", "sst2"]
    figures = mixed.data["figures"]
    [line] = figures["leaderboard-cola-sample"]["rows"]
    assert line[1].endswith("-sample")
    assert line[1] not in [row[1] for row in figures["leaderboard-cola"]["rows"]]


def test_a_report_is_of_some_tasks_or_data_alone(mixed, tmp_path):
    page = tmp_path / "page.html"
    assert write_report(page, gather(mixed.runs_dir, tasks=["sst2"], labels={}, features={}))["corpora"] == CORPORA[1:2]
    said = write_report(page, gather(mixed.runs_dir, data=["sample"], labels={}, features={}))
    assert (said["corpora"], said["runs"]) == (CORPORA[2:], 1)
    with pytest.raises(RunError, match="no run is of these tasks and data") as error:
        write_report(page, gather(mixed.runs_dir, data=["mine"], labels={}, features={}))
    assert "cola on sample" in str(error.value) and "mine" in str(error.value)
    sample = next(run.run for run in read_runs(mixed.runs_dir) if run.run.endswith("-sample"))
    with pytest.raises(RunError, match="of other tasks or data"):
        write_report(page, gather(mixed.runs_dir, chosen=[sample], data=["glue"], labels={}, features={}))


def test_figures_are_of_the_corpus_that_is_chosen(look, mixed):
    page = look(path=mixed.path)
    own, other = page.locator("#cost-cola"), page.locator("#cost-cola-sample")
    assert own.is_visible() and not other.is_visible()
    assert page.locator("#cost-sst2").is_visible()
    card = page.locator("#glance article").first
    assert card.locator("h3").inner_text().startswith(CORPORA[0])
    assert "0.990" not in card.inner_text()
    page.get_by_label("Figures of CoLA", exact=True).select_option(label="sample, 30 rows")
    assert other.is_visible() and not own.is_visible()
    draw(page, "cost-cola-sample")
    assert page.locator("#sentences-corpus option:checked").inner_text() == CORPORA[2]
    page.get_by_role("button", name=f"Show the figures of {CORPORA[0]}").click()
    assert own.is_visible() and not other.is_visible()
    assert page.locator("#cost-sst2").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize("width", [1280, 390])
def test_names_in_a_figure_hide_neither_marks_nor_each_other(look, report, width):
    page = look(width)
    draw(page, "cost-cola")
    names, marks = page.query_selector("#cost-cola .plot").evaluate(
        """plot => ['.annotation-text', '.scatterlayer .points path'].map(selector =>
             [...plot.querySelectorAll(selector)].map(each => each.getBoundingClientRect())
               .map(box => [box.left, box.top, box.right, box.bottom]))"""
    )
    assert len(marks) > 2
    labels = [each["text"] for each in report.data["figures"]["cost-cola"]["variants"][0]["panels"][0]["labels"]]
    assert len(names) == len(labels) + 1  # each run on the front, and the commonest class
    assert len(set(labels)) == len(labels)

    def meet(a, b):
        return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

    for place, name in enumerate(names):
        assert not any(meet(name, mark) for mark in marks)
        assert not any(meet(name, other) for other in names[place + 1 :])


@pytest.mark.parametrize(("low", "high"), [(0.004, 0.004), (0.9, 1.1), (0.2, 300), (7, 90_000), (40, 55), (1e7, 2e7)])
def test_an_axis_of_seconds_says_them_as_people_do(low, high):
    axis, ticks = seconds_axis([low, high])
    start, end = (10**each for each in axis["range"])
    assert start < low <= high < end
    assert len(ticks) >= 2
    assert [tick["at"] for tick in ticks] == sorted(tick["at"] for tick in ticks)
    assert all(start <= tick["at"] * 1.001 and tick["at"] <= end * 1.001 for tick in ticks)
    assert all(tick["text"].split()[1] in ("ms", "s", "min", "h", "day", "days") for tick in ticks)
    assert len({tick["text"] for tick in ticks}) == len(ticks)
