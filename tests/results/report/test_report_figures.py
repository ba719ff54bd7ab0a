"""What the figures show, figure by figure, and how the report is written."""

import json
import sys

import numpy as np
import pytest

from pipeline.config import CacheConfig, LedgerConfig
from pipeline.errors import ConfigError, MissingPackage, RunError
from pipeline.report_command import report as report_command
from pipeline.results.calibration import expected_calibration_error
from pipeline.results.metrics import score
from pipeline.results.report.confusion import confusion
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.cost import cost_figure, pareto_front
from pipeline.results.report.entries import choose, entry_of, legend_names
from pipeline.results.report.figure import Figure, short
from pipeline.results.report.gather import gather
from pipeline.results.report.glance import card
from pipeline.results.report.markup import embedded_json
from pipeline.results.report.page import _filled
from pipeline.results.report.phenomena import LENGTHS, PHENOMENA, band_name, marked
from pipeline.results.report.reliability import reliability
from pipeline.results.report.writing import write_report
from pipeline.results.shares import wilson_interval
from tests.results.report.conftest import Reported

SENTENCES = {
    "question": ("Who left?", "He asked who left."),
    "wh-word first": ("What did she eat?", "She ate what he did."),
    "negation": ("He isn't here.", "He is knotty."),
    "passive-looking": ("The cake was quickly eaten.", "The cake was good."),
    "relative or complement word": ("The man that left slept.", "That man left."),
    "adverbial-clause word": ("She left because he slept.", "She slept."),
    "coordination": ("Ann and Bob left.", "Sandy left."),
    "reflexive or reciprocal": ("They saw each other.", "They saw the other."),
    "expletive-looking there or it": ("There was a riot.", "They went there."),
    "comparative": ("He is taller than Bob.", "He is tall."),
    "infinitive-looking": ("He wants to leave.", "He went to the shop."),
    "modal verb": ("He might leave.", "The mighty leave."),
    "quantifier": ("Every dog barks.", "The dog barks."),
    "capitalised name inside": ("He saw Mary.", "He saw her."),
    "comma": ("Well, he left.", "He left."),
}


def test_a_phenomenon_is_found_where_it_is_and_not_where_it_only_seems_so():
    assert set(SENTENCES) == {each.name for each in PHENOMENA}
    for name, pair in SENTENCES.items():
        assert marked(pair)[name].tolist() == [True, False], name


def test_every_sentence_stands_in_one_band_of_length():
    found = marked(["a " * words for words in range(1, 40)])
    bands = np.stack([found[band_name(*ends)] for ends in LENGTHS])
    assert (bands.sum(axis=0) == 1).all()
    assert found["6 to 8 words"].nonzero()[0].tolist() == [5, 6, 7]


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    points = [(float(cost), float(value)) for cost, value in rng.integers(0, 12, size=(60, 2))]
    front = pareto_front(points)

    def beaten(point):
        return any(c <= point[0] and v >= point[1] and (c, v) != point for c, v in points)

    assert {points[place] for place in front} == {point for point in points if not beaten(point)}
    assert [points[place][0] for place in front] == sorted(points[place][0] for place in front)


def test_bins_of_confidence_are_those_of_the_calibration_error():
    rng = np.random.default_rng(1)
    ones = rng.uniform(size=500)
    probabilities, y = np.stack([1 - ones, ones], axis=1), rng.integers(0, 2, 500)
    predictions = probabilities.argmax(axis=1)
    bins = reliability(y, predictions, probabilities.max(axis=1))
    assert sum(each.rows for each in bins) == 500
    error = sum(abs(each.confidence * each.rows - each.right) for each in bins) / 500
    assert error == pytest.approx(expected_calibration_error(y, probabilities))


def test_a_confusion_matrix_counts_rows_by_true_and_predicted_class():
    y, predictions = np.asarray([0, 0, 1, 2, 2]), np.asarray([0, 2, 1, 2, 2])
    assert confusion(y, predictions, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 2]]


def test_wilsons_interval_is_that_of_the_literature():
    low, high = wilson_interval(15, 148)  # Newcombe (1998), Statistics in Medicine 17, table I
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert wilson_interval(0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert wilson_interval(29, 29)[1] == 1.0


def _entry(make_run, name: str, head: str, value: float, **changes):
    scores = {"cola": {"validation": {"mcc": value}}}
    return entry_of(make_run(name, head=head, scores=scores, statistics={}, **changes), "cola", "mcc", None)


def test_the_best_of_every_kind_is_shown_however_many_heads_are_better(make_run):
    entries = [_entry(make_run, f"r{n}", f"head{n}", 0.9 - n / 100) for n in range(12)]
    entries.append(_entry(make_run, "again", "head0", 0.1))
    entries.append(_entry(make_run, "lora", "linear", 0.2, adapter={"kind": "lora"}, path="live"))
    entries.append(_entry(make_run, "none", "majority", 0.99))
    shown = [each.name for each in choose(entries, 4)]
    assert shown == ["r0", "r1", "r2", "lora"]


def test_a_short_name_says_as_much_as_tells_runs_apart(make_run):
    config = {"features": "L1-mean", "quantization": "nf4"}
    entries = [
        _entry(make_run, "run-aaaaaa", "mlp", 0.5, config=config),
        _entry(make_run, "run-bbbbbb", "mlp", 0.4, config=config | {"quantization": "int8"}),
        _entry(make_run, "run-cccccc", "ridge", 0.3, config=config),
        _entry(make_run, "run-dddddd", "svm", 0.3, config=config),
        _entry(make_run, "run-eeeeee", "svm", 0.3, config=config),
    ]
    assert list(legend_names(entries).values()) == ["mlp, nf4", "mlp, int8", "ridge", "svm, dddddd", "svm, eeeeee"]


def test_a_card_says_which_runs_it_is_the_best_of(make_run):
    entries = [_entry(make_run, f"run-{n}", "mlp", 0.5 - n / 10) for n in range(3)]
    baseline = _entry(make_run, "base", "majority", 0.9)

    def said(entries, peers):
        corpus = Corpus("cola", "glue", 3, 3, "mcc", ("0", "1"), tuple(entries), tuple(peers), (), {}, "cola", "CoLA")
        return card(corpus, [])

    assert '<h3 id="card-cola">CoLA: the best of 3 runs</h3>' in said(entries, entries)
    shown = said([*entries, baseline], [*entries[:2], baseline])
    assert "CoLA: the best of 2 runs (baselines and runs of other rows not counted)</h3>" in shown
    assert "The best of 2 by validation" in shown
    assert "CoLA: one run</h3>" in said([baseline], [baseline])


def test_names_on_the_front_tell_its_runs_apart(make_run):
    entries = [
        _entry(make_run, "run-a", "joint", 0.3, seconds=1.0),
        _entry(make_run, "run-b", "joint", 0.4, seconds=2.0, selection={"freeze": "cola"}),
        _entry(make_run, "run-cccccc", "joint", 0.5, seconds=3.0, selection={"freeze": "cola"}),
    ]
    corpus = Corpus("cola", "glue", 3, 3, "mcc", ("0", "1"), tuple(entries), tuple(entries), (), {}, "cola", "CoLA")
    figure = cost_figure(corpus)
    assert figure is not None
    names = [each["text"] for each in figure.variants[0].panels[0]["labels"]]
    assert names[0] == "joint" and len(set(names)) == 3
    assert all(name.startswith("joint, cola frozen, ") for name in names[1:])


def test_data_in_the_page_holds_no_markup_and_comes_back_as_it_was():
    record = {"text": "</script><!-- & \u2028 \u00e9", "number": 0.5, "none": None}
    text = embedded_json(record)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == record
    with pytest.raises(ValueError, match="JSON"):
        embedded_json(float("nan"))


def test_a_value_that_looks_like_a_slot_is_left_alone():
    assert _filled("a {{x}} b {{y}}", {"x": "{{y}}", "y": "2"}) == "a {{y}} b 2"


def _without_variables(value):
    if isinstance(value, dict):
        return {name: _without_variables(each) for name, each in value.items() if name != "panel"}
    if isinstance(value, list):
        return [_without_variables(each) for each in value]
    if isinstance(value, str) and value.startswith("var("):
        return [[0, "#000000"], [1, "#ffffff"]] if value == "var(--heat)" else "#000000"
    return value


def test_plotly_knows_every_trace_and_axis(report):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    drawn = [figure for figure in report.data["figures"].values() if figure["variants"]]
    assert len(drawn) == 13
    for figure in drawn:
        for variant in figure["variants"]:
            graph_objects.Figure(data=_without_variables(variant["traces"]))
            for panel in variant["panels"]:
                graph_objects.layout.XAxis(**_without_variables(panel["x"]))
                graph_objects.layout.YAxis(**_without_variables(panel["y"]))
    with pytest.raises(ValueError, match="Invalid"):
        graph_objects.Figure(data=[{"type": "scatter", "no_such_thing": 1}])


def test_scores_in_the_page_are_those_of_the_runs(report):
    page = report.data
    sentences = page["sentences"][0]
    for run in sentences["runs"]:
        found = score(np.asarray(sentences["label"]), np.asarray(run["predicted"]))["accuracy"]
        board = page["figures"]["leaderboard-cola"]
        [line] = [dict(zip(board["columns"], row, strict=True)) for row in board["rows"] if row[1] == run["run"]]
        assert line["accuracy"] == pytest.approx(found, abs=1e-5)
    wrong = sum(np.asarray(run["predicted"]) != np.asarray(sentences["label"]) for run in sentences["runs"])
    assert (np.asarray(sentences["wrong"]) >= wrong).all()


def test_only_an_earlier_report_is_written_over(report, tmp_path, capsys):
    path = tmp_path / "page.html"
    report_command(path, ledger=LedgerConfig(report.runs_dir), cache=CacheConfig(tmp_path / "no-cache"), json=True)
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "file": str(path),
        "bytes": path.stat().st_size,
        "runs": report.said["runs"],
        "detailed": report.said["detailed"],
        "tasks": ["cola", "sst2"],
        "corpora": ["CoLA (glue, 30 rows)", "SST-2 (glue, 30 rows)"],
    }
    assert "not in this cache" in path.read_text("utf-8")
    write_report(path, gather(report.runs_dir, labels={}, features={}))
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    path.write_text("<html>somebody's own</html>")
    with pytest.raises(ConfigError, match="no report"):
        write_report(path, gather(report.runs_dir, labels={}, features={}))
    assert path.read_text() == "<html>somebody's own</html>"
    with pytest.raises(ConfigError, match=r"expected: \.html \| \.htm") as caught:
        write_report(tmp_path / "page.txt", gather(report.runs_dir, labels={}, features={}))
    assert "page.html" in str(caught.value)
    assert not (tmp_path / "page.txt").exists()


def test_runs_can_be_named(report, tmp_path):
    last = report.data["figures"]["leaderboard-cola"]["rows"][-1][1]
    page = Reported(tmp_path / "page.html", report.runs_dir, report.cache_dir)
    write_report(page.path, gather(report.runs_dir, chosen=[last], labels={}, features={}))
    assert page.data["figures"]["confusion-cola"]["runs"] == [last]
    assert len(page.data["figures"]["confusion-sst2"]["runs"]) > 1  # nobody named one of this task
    with pytest.raises(RunError, match="no such run"):
        write_report(page.path, gather(report.runs_dir, chosen=["nobody"], labels={}, features={}))


def test_where_there_is_nothing_to_report_that_is_said(tmp_path, report, monkeypatch):
    with pytest.raises(RunError, match="no runs"):
        write_report(tmp_path / "page.html", gather(tmp_path / "none", labels={}, features={}))
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingPackage, match="plotly"):
        report_command(tmp_path / "page.html", ledger=LedgerConfig(report.runs_dir), cache=CacheConfig(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_figures_numbers_have_the_digits_that_anybody_reads():
    figure = Figure("id", "title", "caption", "alt", [], ("a", "b"), [[1 / 3, None], [float("inf"), 7]])
    assert figure.to_dict()["rows"] == [[0.333333, None], [None, 7]]
    assert short([1 / 3, None, float("nan")]) == [0.33333, None, None]
