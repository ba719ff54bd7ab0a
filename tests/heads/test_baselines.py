"""Baselines know what they should and nothing else: of each, what it must equal and what it must not see."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import rankdata
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pipeline import cli
from pipeline.config import RunsConfig
from pipeline.errors import BackboneError, ConfigError, HeadError, RunError
from pipeline.heads.baselines import measure_baselines
from pipeline.heads.blind import draw_labels, majority_head, random_features
from pipeline.heads.candidates import SpecRows
from pipeline.heads.fused.stream import FeatureStream
from pipeline.heads.linear_head import LinearHead
from pipeline.heads.selection import select_each
from pipeline.heads.store import load_head
from pipeline.heads.text_head import TOKENS, select_text_head, text_column
from pipeline.heads_config import BaselinesConfig
from pipeline.holdout import hold_outs
from pipeline.results.baselines_table import BASELINES, baselines_table, chance_of, control_row
from pipeline.results.compare import compare_runs
from pipeline.results.ledger import read_predictions, read_runs
from pipeline.results.lines import LEDGER, ledger_table, lines_of
from pipeline.results.metrics import score
from pipeline.results.table import runs_table
from pipeline.tasks.spec import BUILT_IN, TaskSpec
from pipeline.views import View

CONFIG = BaselinesConfig(tasks=("cola",), views=("L1-mean",), strengths=(0.003, 0.1, 3.0), threads=1)
WHERE = (
    "--tasks",
    "cola",
    "--views",
    "L1-mean",
    "--strengths",
    "0.1",
    "--seeds",
    "1",
    "--draws",
    "2",
    "--threads",
    "1",
)


@pytest.fixture(scope="module")
def measured(cache, tmp_path_factory):
    """The baselines of the small cache, and where their runs lie."""
    runs = RunsConfig(tmp_path_factory.mktemp("runs"))
    [found] = measure_baselines(CONFIG, cache, runs)
    return found, runs


@pytest.fixture(scope="module")
def lines(measured):
    return {line.baseline: line for line in measured[0].table.lines}


@pytest.fixture
def head_of(measured, lines):
    """The stored head of a baseline."""
    return lambda baseline: load_head(measured[1].runs_dir / lines[baseline].runs[0])


def labels_of(corpora):
    return corpora["train"].truth, corpora["validation"].truth


# --- each baseline ---


def test_the_commonest_class_is_scikit_learns_dummy(lines, head_of, corpora, measured):
    y, true = labels_of(corpora)
    X = corpora["validation"].X["L1-mean"]
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(y), 1)), y)
    head = head_of("majority")
    np.testing.assert_array_equal(head.predict(X), dummy.predict(X))
    np.testing.assert_allclose(head.predict_proba(X), dummy.predict_proba(X), rtol=1e-12)
    assert lines["majority"].scores["accuracy"] == score(true, dummy.predict(X))["accuracy"]
    assert lines["majority"].score.estimate == 0.0
    run = next(run for run in measured[0].runs if run.head == "majority")
    assert run.scores["cola"]["validation"]["accuracy"] == run.baseline["cola"]["validation"]["accuracy"]


@pytest.mark.parametrize("y", [[0, 0, 1, 1], [1, 1, 0], [0, 2, 2, 5], [5, 5, 0, 0, 2]])
def test_of_classes_equally_common_the_lower_one_is_predicted_as_the_dummy_does(y):
    y, X = np.array(y), np.ones((3, 2))
    dummy, head = DummyClassifier(strategy="prior").fit(np.zeros((len(y), 1)), y), majority_head(y, 2)
    np.testing.assert_array_equal(head.predict(X), dummy.predict(X))
    np.testing.assert_allclose(head.predict_proba(X), dummy.predict_proba(X), rtol=1e-12)


def by_hand(C, texts, y):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKENS)
    return make_pipeline(words, LogisticRegression(C=C, tol=1e-10, max_iter=5000)).fit(texts, y)


def test_tfidf_is_a_pipeline_made_by_hand_with_the_same_strength(head_of, lines, corpora, measured):
    run = next(run for run in measured[0].runs if run.head == "tfidf")
    train, validation = corpora["train"], corpora["validation"]
    hand = by_hand(run.selection["C"], train.texts, train.truth)
    head, column = head_of("tfidf"), text_column(validation.texts)
    np.testing.assert_allclose(head.decision_function(column), hand.decision_function(validation.texts), atol=1e-3)
    assert lines["tfidf"].scores["mcc"] == score(validation.truth, hand.predict(validation.texts))["mcc"]
    other = by_hand(run.selection["C"] * 30, train.texts, train.truth)  # the strength does show
    assert np.abs(head.decision_function(column) - other.decision_function(validation.texts)).max() > 0.1


def test_tfidf_learns_from_the_rows_to_fit_on_alone(monkeypatch, cache, corpora, tmp_path):
    seen = []
    fit_transform = TfidfVectorizer.fit_transform

    def spy(self, raw_documents, y=None):
        seen.append(list(raw_documents))
        return fit_transform(self, raw_documents, y)

    monkeypatch.setattr(TfidfVectorizer, "fit_transform", spy)
    measure_baselines(replace(CONFIG, draws=1, strengths=(0.1,)), cache, RunsConfig(tmp_path))
    train = corpora["train"]
    ways = hold_outs(train.texts, train.truth, share=CONFIG.held_out, seed=CONFIG.seed, count=CONFIG.seeds)
    fits = [[train.texts[row] for row in fit] for fit, _ in ways]
    assert seen == [*fits, train.texts]
    assert not set(corpora["validation"].texts) & set(seen[-1])


@pytest.mark.parametrize("group_by", ["source", "sentence"])
def test_sources_are_held_out_whole_unless_sentences_are_asked_for(
    corpora, write_cache, tmp_path, monkeypatch, group_by
):
    sourced = {
        split: replace(corpus, sources=[f"source {row % 12}" for row in range(len(corpus.texts))])
        for split, corpus in corpora.items()
    }
    seen: list[set[str]] = []
    fit_transform = TfidfVectorizer.fit_transform

    def spy(self, raw_documents, y=None):
        seen.append({source_of[text] for text in raw_documents})
        return fit_transform(self, raw_documents, y)

    source_of = dict(zip(sourced["train"].texts, sourced["train"].sources, strict=True))
    monkeypatch.setattr(TfidfVectorizer, "fit_transform", spy)
    cache, runs = write_cache(tmp_path / "cache", sourced), RunsConfig(tmp_path / "runs")
    [found] = measure_baselines(replace(CONFIG, draws=1, strengths=(0.1,), group_by=group_by), cache, runs)
    *ways, everything = seen
    assert len(everything) == 12
    assert all((len(way) < 12) == (group_by == "source") for way in ways)
    assert found.runs[0].selection["by"].endswith(f"5 ways of holding out {group_by}s")
    head, majority, words = found.runs[:3]
    assert head.statistics["cola"]["held_out"] == words.statistics["cola"]["held_out"]
    assert "held_out" not in majority.statistics["cola"]


def test_only_what_trains_on_hidden_states_says_what_they_cost(corpora, write_cache, tmp_path):
    cache = write_cache(tmp_path / "cache", corpora)
    record = json.dumps({"shard": 0, "backbone_seconds": 8.0, "seconds": 9.0})
    for folder in (cache.cache_dir / "cola").glob("*/*"):
        (folder / "passes.jsonl").write_text(record + "\n")
    [found] = measure_baselines(replace(CONFIG, draws=1, strengths=(0.1,)), cache, RunsConfig(tmp_path / "runs"))
    costs = {run.head: run.costs.get("cola", {}).get("backbone_seconds") for run in found.runs}
    assert costs == {"logreg": 16.0, "majority": None, "tfidf": None, "random-features": None, "control": 16.0}


def test_tfidfs_strength_is_chosen_on_whole_texts_held_out():
    rng = np.random.default_rng(2)
    y = np.arange(200) % 2
    good, noise = ["bad", "fine"], [f"w{number}" for number in range(400)]
    texts = [f"{good[label]} {' '.join(rng.choice(noise, 6))}" for label in y]
    fits = [np.arange(200) >= 50, np.arange(200) < 150]
    counts = np.arange(200) % 5 > 0
    found = select_text_head(texts, y, fits, counts, "accuracy", (1e-4, 10.0))
    expected = []
    for C in (1e-4, 10.0):
        of_ways = []
        for fit in fits:
            scored = ~fit & counts
            hand = by_hand(C, [t for t, keep in zip(texts, fit, strict=True) if keep], y[fit])
            predicted = hand.predict([t for t, keep in zip(texts, scored, strict=True) if keep])
            of_ways.append(score(y[scored], predicted)["accuracy"])
        expected.append(np.mean(of_ways))
    assert (1e-4, 10.0)[int(np.argmax(expected))] == found.C
    assert found.held_out["accuracy"] == pytest.approx(max(expected))


def test_random_features_belong_to_a_text_and_say_nothing_of_it(lines, corpora):
    train, validation = random_features(["a", "b", "a", "c"], ["c", "d"], 500, seed=3)
    assert (train[0] == train[2]).all()
    assert (train[3] == validation[0]).all()
    distinct = np.stack([*train[[0, 1, 3]], validation[1]])
    assert np.abs(np.corrcoef(distinct) - np.eye(4)).max() < 0.2
    assert train.dtype == np.float32
    assert abs(train.std() - 1) < 0.1
    assert (random_features(["a"], [], 5, seed=3)[0] != random_features(["a"], [], 5, seed=4)[0]).all()
    line = lines["random-features"]
    assert line.score.low <= 0 <= line.score.high
    assert lines["head"].score.low > 0.2  # the true ones do say something
    assert line.comparison.paired.p < 0.01


def test_random_features_know_a_text_again_where_validation_repeats_it():
    rng = np.random.default_rng(0)
    texts, y = [f"text {number}" for number in range(60)], rng.integers(0, 2, 60)
    train, again = random_features(texts, texts, 200, seed=0)
    head = LinearHead(C=1.0).fit(train, y)
    assert (head.predict(again) == y).mean() > 0.99


# --- labels drawn at random ---


def test_drawn_labels_have_the_tasks_shares_and_nothing_to_do_with_its_labels():
    y = np.repeat([0, 1], [3000, 7000])
    fits = [np.ones(10_000, dtype=bool)]
    train, validation = draw_labels(y, 4000, fits, seed=0, draw=0)
    for drawn, own in ((train, y), (validation, None)):
        assert abs(drawn.mean() - 0.7) < 0.03
        assert own is None or abs(np.corrcoef(drawn, own)[0, 1]) < 0.05
    assert (draw_labels(y, 4000, fits, seed=0, draw=0)[0] == train).all()
    for other in (draw_labels(y, 4000, fits, seed=0, draw=1), draw_labels(y, 4000, fits, seed=1, draw=0)):
        assert 0.3 < (other[0] != train).mean() < 0.5
    with pytest.raises(HeadError, match="lack a class"):
        draw_labels(np.repeat([0, 1], [1, 4000]), 10, [np.arange(4001) < 30], seed=0, draw=0)


def test_the_control_task_is_at_chance_and_the_head_is_not(lines, measured):
    found, runs = measured
    line, head = lines["control"], lines["head"]
    assert line.control.at_chance
    assert line.control.above_chance.low <= 0 <= line.control.above_chance.high
    assert line.control.chance == pytest.approx(0, abs=1e-12)
    assert (line.control.draws, len(line.runs), len(line.control.scores)) == (5, 5, 5)
    assert line.score.estimate == pytest.approx(np.mean(line.control.scores))
    assert line.control.selectivity == pytest.approx(head.score.estimate - line.score.estimate)
    as_if_drawn = control_row(runs.runs_dir, [found.runs[0]], found.runs[0], "mcc")
    assert not as_if_drawn.control.at_chance  # true labels would show
    assert as_if_drawn.control.selectivity == 0


def test_where_the_true_labels_are_learned_perfectly_random_ones_still_are_not(write_cache, corpora, tmp_path):
    rng = np.random.default_rng(4)
    apart = {
        split: replace(
            corpus,
            X={"L1-mean": (np.outer(2 * corpus.truth - 1, np.full(16, 5.0)) + rng.normal(size=(len(corpus.truth), 16)))
               .astype(np.float32)},
        )
        for split, corpus in corpora.items()
    }  # fmt: skip
    cache = write_cache(tmp_path / "cache", apart, views=(View(1, "mean"),))
    [found] = measure_baselines(replace(CONFIG, draws=4), cache, RunsConfig(tmp_path / "runs"))
    lines = {line.baseline: line for line in found.table.lines}
    assert lines["head"].scores["mcc"] == lines["head"].scores["accuracy"] == 1.0
    assert lines["control"].control.at_chance
    assert abs(lines["control"].score.estimate) < 0.2
    assert lines["control"].control.selectivity > 0.8


def test_control_runs_hold_labels_of_their_own_and_are_never_compared_or_starred(measured, lines):
    found, runs = measured
    controls = [run for run in found.runs if run.head == "control"]
    drawn = [read_predictions(runs.runs_dir / run.run)["label"].to_numpy() for run in controls]
    true = read_predictions(runs.runs_dir / found.runs[0].run)["label"].to_numpy()
    assert all((labels != true).any() for labels in drawn)
    assert len({labels.tobytes() for labels in drawn}) == 5
    assert [run.config["draw"] for run in controls] == [0, 1, 2, 3, 4]
    assert all(run.scores["cola"]["held_out"] == {} for run in controls)
    with pytest.raises(RunError, match="did not predict the same rows"):
        compare_runs(*(runs.runs_dir / each.run for each in (controls[0], found.runs[0])))
    for run, labels, value in zip(controls, drawn, lines["control"].control.scores, strict=True):
        predicted = read_predictions(runs.runs_dir / run.run)["prediction"].to_numpy()
        assert score(labels, predicted)["mcc"] == value


def test_one_draw_has_its_interval_over_rows(cache, tmp_path):
    [found] = measure_baselines(replace(CONFIG, draws=1, strengths=(3.0,)), cache, RunsConfig(tmp_path))
    control = next(line.control for line in found.table.lines if line.control)
    assert control.above_chance.method == "bca"
    assert control.above_chance.low < control.above_chance.high


def test_chance_is_what_shuffled_predictions_score_on_average():
    rng = np.random.default_rng(1)
    y, predictions = rng.choice(2, 120, p=[0.3, 0.7]), rng.choice(2, 120, p=[0.2, 0.8])
    for metric in ("accuracy", "f1", "mcc"):
        shuffled = np.mean([score(y, rng.permutation(predictions))[metric] for _ in range(400)])
        assert chance_of(metric, y, predictions) == pytest.approx(shuffled, abs=0.015)
    assert chance_of("accuracy", y, np.ones(120, dtype=np.int64)) == pytest.approx(y.mean())
    three = rng.choice(3, 90), rng.choice(3, 90)
    assert 0.2 < chance_of("accuracy", *three) < 0.45


def test_heads_on_several_sets_of_labels_are_those_fitted_one_set_at_a_time(corpora):
    X, y = corpora["train"].X["L1-mean"], corpora["train"].truth
    fits = tuple(np.arange(len(y)) % 4 != left for left in range(2))
    stream, counts = FeatureStream.of_matrix(X), np.ones(len(y), dtype=bool)
    sets = [SpecRows(stream, labels, fits, counts) for labels in (y, draw_labels(y, 1, fits, 0, 0)[0])]
    strengths = (0.003, 0.1, 3.0)
    together = select_each(sets, "logreg", strengths, "mcc", lambda *_: None)
    for each, rows in zip(together, sets, strict=True):
        [alone] = select_each([rows], "logreg", strengths, "mcc", lambda *_: None)
        assert (each.C, each.held_out) == (alone.C, alone.held_out)
        np.testing.assert_allclose(each.head.coef_, alone.head.coef_, rtol=1e-2, atol=1e-3)
        plain = {C: [] for C in strengths}
        for C in strengths:
            for fit in fits:
                of_way = LinearHead(C=C).fit(X[fit], rows.y[fit])
                plain[C].append(score(rows.y[~fit], of_way.predict(X[~fit]))["mcc"])
        assert np.mean(plain[each.C]) == pytest.approx(max(map(np.mean, plain.values())), abs=0.02)
        np.testing.assert_allclose(each.head.coef_, LinearHead(C=each.C).fit(X, rows.y).coef_, rtol=1e-2, atol=1e-3)


# --- together ---


def test_every_head_loads_and_gives_its_runs_predictions(measured, corpora, head_of):
    found, runs = measured
    X = {"logreg": corpora["validation"].X["L1-mean"], "tfidf": text_column(corpora["validation"].texts)}
    X["random-features"] = random_features(corpora["train"].texts, corpora["validation"].texts, 16, 0)[1]
    for run in found.runs:
        folder = runs.runs_dir / run.run
        predicted = read_predictions(folder)
        assert set(predicted["split"].to_pylist()) == {"validation"}
        head = load_head(folder)
        rows = X.get(run.head, X["logreg"])
        np.testing.assert_array_equal(head.predict(rows), predicted["prediction"].to_numpy())
        np.testing.assert_allclose(head.predict_proba(rows), np.array(predicted["probabilities"].to_pylist()))
        assert not list(folder.glob("*.pkl"))
        assert sum(path.stat().st_size for path in folder.iterdir()) < 2**20


def test_the_table_holds_the_head_against_each_of_them(measured, lines):
    found, runs = measured
    assert [line.baseline for line in found.table.lines] == list(BASELINES)
    for name in ("majority", "tfidf", "random-features"):
        line = lines[name]
        [again] = compare_runs(runs.runs_dir / line.runs[0], runs.runs_dir / lines["head"].runs[0], metric="mcc")
        assert again == line.comparison
        assert again.paired.difference.estimate == pytest.approx(lines["head"].scores["mcc"] - line.scores["mcc"])
        assert (again.scores[0], again.scores[1]) == (line.score, lines["head"].score)
    assert lines["zero-shot"].note == "not measured: it was not asked for"
    assert (lines["zero-shot"].score, lines["zero-shot"].runs) == (None, ())
    console = Console(width=200, file=io.StringIO())
    console.print(baselines_table(found.table))
    shown = console.file.getvalue()
    assert all(name in shown for name in BASELINES.values())
    assert "at chance" in shown
    assert "selectivity" in shown


def test_the_ledger_lists_them_all(measured):
    found, runs = measured
    assert read_runs(runs.runs_dir) == list(found.runs)
    assert [run.head for run in found.runs] == ["logreg", "majority", "tfidf", "random-features", *["control"] * 5]
    table = runs_table(ledger_table(lines_of(found.runs)))
    assert table.row_count == 9
    starred = [cell for column in table.columns for cell in column.cells if str(cell).endswith(" *")]
    best = max(found.runs[:4], key=lambda run: run.scores["cola"]["held_out"].get("mcc", -1))
    assert starred == [f"{best.head} *"]  # of the control task's runs none, whatever their own labels scored
    assert {run.path for run in found.runs} == {"cached"}


def test_an_llm_that_cannot_be_asked_is_named_with_its_reason(cache, tmp_path):
    def refuse(task, train, validation):
        assert (task.name, len(train), len(validation)) == ("cola", 300, 80)
        raise BackboneError("no such backbone", expected="this | that")

    small = replace(CONFIG, draws=1, seeds=1, strengths=(0.1,))
    [found] = measure_baselines(small, cache, RunsConfig(tmp_path), zero_shot=refuse)
    assert found.table.lines[-1].note == "not measured: no such backbone; expected: this | that"
    assert len(found.runs) == 5


@pytest.mark.parametrize("when", [1, 2, 4])
def test_a_command_that_is_stopped_leaves_whole_runs_or_none(monkeypatch, cache, tmp_path, when):
    from pipeline.heads import entry

    write, calls = entry.write_predictions, []

    def stop(folder, tables):
        calls.append(folder)
        write(folder, tables)
        if len(calls) == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(entry, "write_predictions", stop)
    with pytest.raises(KeyboardInterrupt):
        measure_baselines(replace(CONFIG, draws=1, seeds=1, strengths=(0.1,)), cache, RunsConfig(tmp_path))
    assert len(read_runs(tmp_path)) == when - 1
    assert len([path for path in tmp_path.iterdir() if path.name != LEDGER]) == when - 1


def test_several_classes_and_a_task_scored_by_accuracy(write_cache, corpora, tmp_path):
    task = TaskSpec(name="tone", labels=("cold", "mild", "warm", "hot"), prompt="Tone of: {}")
    three = {}
    for split, corpus in corpora.items():
        labels = 3 * (rankdata(corpus.X["L2-last"][:, 0]) > len(corpus.truth) * 0.7) + corpus.truth * 1
        labels = np.where(labels > 1, 3, labels).astype(np.int64)  # no row is mild-plus: class 2 stays empty
        three[split] = replace(corpus, truth=labels, labels=None if corpus.labels is None else labels)
    cache = write_cache(tmp_path / "cache", three, task=task, views=(View(1, "mean"),))
    file = tmp_path / "tone.toml"
    file.write_text('name = "tone"\nlabels = ["cold", "mild", "warm", "hot"]\nprompt = "Tone of: {}"\n')
    config = replace(CONFIG, tasks=("tone",), task_files=(file,), draws=3)
    [found] = measure_baselines(config, cache, RunsConfig(tmp_path / "runs"))
    lines = {line.baseline: line for line in found.table.lines}
    assert found.table.metric == "accuracy"
    assert lines["control"].control.at_chance
    assert 0.2 < lines["control"].control.chance < 0.7
    assert lines["head"].scores["accuracy"] > lines["majority"].scores["accuracy"]


# --- settings and the command line ---


def test_wrong_settings_are_said_at_once():
    with pytest.raises(ConfigError, match=r"(?s)views: expected one, or one for each of 2.*seeds.*draws.*strengths"):
        BaselinesConfig(views=("L1-mean",) * 3, seeds=0, draws=0, strengths=(0.0,))
    BaselinesConfig(views=("L1-mean", "L2-mean"))


def test_each_task_may_have_views_of_its_own(write_cache, corpora, tmp_path):
    for name in ("cola", "sst2"):
        cache = write_cache(tmp_path / "cache", corpora, task=BUILT_IN[name])
    config = replace(CONFIG, tasks=("cola", "sst2"), views=("L1-mean", "L2-last+L2-mean"), draws=1, strengths=(0.1,))
    found = measure_baselines(config, cache, RunsConfig(tmp_path / "runs"))
    assert [(each.table.task, each.table.views) for each in found] == [
        ("cola", "L1-mean"),
        ("sst2", "L2-last+L2-mean"),
    ]
    assert {run.config["features"] for run in found[1].runs} == {"L2-last+L2-mean", "", "text", "random-32"}


@pytest.fixture
def pipeline(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_command_prints_json_alone_and_a_table_for_people(pipeline, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs", "--no-zero-shot")
    code, out, err = pipeline("baselines", *WHERE, *where, "--json")
    assert code == 0, err
    [record] = json.loads(out)
    assert [line["baseline"] for line in record["lines"]] == list(BASELINES)
    assert (record["task"], record["metric"], record["rows"], record["views"]) == ("cola", "mcc", 80, "L1-mean")
    assert [run["head"] for run in record["runs"]][:2] == ["logreg", "majority"]
    control = next(line["control"] for line in record["lines"] if line["control"])
    assert set(control) == {"draws", "scores", "chance", "above_chance", "at_chance", "selectivity"}
    assert "heads in" in err
    code, out, err = pipeline("baselines", *WHERE, *where)
    assert code == 0, err
    assert all(word in out for word in ("commonest class", "TF-IDF", "head - it", "selectivity"))
    assert pipeline("runs", "ls", "--runs-dir", tmp_path / "runs")[0] == 0
    names = [line["runs"][0] for line in record["lines"][:2]]
    code, out, err = pipeline("runs", "compare", *names, "--runs-dir", tmp_path / "runs", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["paired"]["difference"]["estimate"] < 0


def test_trouble_is_one_message_and_exit_code_2(pipeline, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs", "--no-zero-shot")
    code, out, err = pipeline("baselines", *WHERE[:-6], *where, "--draws", "0", "--seeds", "0")
    assert (code, out) == (2, "")
    assert "draws: expected at least 1" in err
    assert "seeds: expected at least 1" in err
    code, out, err = pipeline("baselines", *WHERE, *where, "--quantization", "int8")
    assert (code, out) == (2, "")
    assert "int8" in err
    assert not (tmp_path / "runs").exists()


WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from pipeline.cli import main
main()
"""


def test_without_the_packages_of_the_live_path_the_rest_is_measured(in_new_process, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs", "--json")
    done = in_new_process("-c", WITHOUT, "transformers,peft,bitsandbytes,tokenizers", "baselines", *WHERE, *where)
    assert done.returncode == 0, done.stderr
    [record] = json.loads(done.stdout)
    line = record["lines"][-1]
    assert (line["baseline"], line["score"]) == ("zero-shot", None)
    assert line["note"].startswith("not measured: this needs the package 'transformers', which is not installed")
    assert "make setup" in line["note"]
    assert record["lines"][0]["score"]["estimate"] > 0.5


def test_nothing_of_stage_one_is_loaded_where_the_llm_is_not_asked(in_new_process, cache, tmp_path):
    where = ("--cache-dir", cache.cache_dir, "--runs-dir", tmp_path / "runs", "--no-zero-shot", "--json")
    done = in_new_process("-X", "importtime", "-m", "pipeline", "baselines", *WHERE, *where)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert not {name.partition(".")[0] for name in names} & {"transformers", "bitsandbytes", "peft", "tokenizers"}
    assert "sklearn" in names
