"""A sweep selects on rows held out of training, tells how many it tried, goes on where it stopped, and streams."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from pipeline.config import CacheConfig, RunsConfig
from pipeline.errors import CacheError, ConfigError, HeadError
from pipeline.heads import sweep as sweeping
from pipeline.heads import trying
from pipeline.heads.fused import spectrum, stream
from pipeline.heads.store import load_head
from pipeline.heads.sweep import sweep
from pipeline.heads_config import SweepConfig
from pipeline.results.ledger import read_runs
from pipeline.results.trials import TRIALS, by_layer, leaderboard, placed, read_trials
from pipeline.results.trials_table import leaderboard_table
from pipeline.views import View

CONFIG = SweepConfig(tasks=("cola",), heads=("logreg", "lda", "centroid"), strengths=(0.01, 1.0), seeds=3)
HEADS = 2 + 8 + 1
SINGLES = ("L1-mean", "L2-last", "L2-mean")


@pytest.fixture(scope="module")
def swept(cache, tmp_path_factory):
    """One sweep of the small cache, and where its run lies."""
    runs = RunsConfig(tmp_path_factory.mktemp("runs"))
    [found] = sweep(CONFIG, cache, runs)
    return found, runs


def test_the_record_says_what_was_tried_and_what_was_selected(swept):
    found, runs = swept
    [run] = read_runs(runs.runs_dir)
    assert run == found.run
    specs = {each.views for each in found.standings}
    assert set(SINGLES) < specs
    assert len(specs) == 3 + 1  # the best two, but no layer beside its neighbour
    assert run.selection["tried"] == len(found.standings) == HEADS * len(specs)
    assert run.selection["trials"] == found.trials.num_rows == 3 * HEADS * len(specs)
    best = found.standings[0]
    assert (run.head, run.config["features"]) == (best.head, best.views)
    assert run.scores["cola"]["held_out"] == best.scores
    assert best.held_out.interval.estimate == max(each.scores["mcc"] for each in found.standings)
    assert read_trials(runs.runs_dir / run.run / TRIALS).equals(found.trials)
    assert leaderboard(found.trials, "mcc") == found.standings


def test_the_best_of_every_head_stands_below_the_first_lines(swept):
    standings = swept[0].standings
    lines = placed(standings, 2)
    assert [place for place, _ in lines[:2]] == [1, 2]
    assert all(standings[place - 1] is line for place, line in lines)
    assert {line.head for _, line in lines} == {each.head for each in standings}
    for _, line in lines[2:]:
        assert line is next(each for each in standings if each.head == line.head)
    assert placed(standings, len(standings)) == list(enumerate(standings, start=1))


@pytest.mark.parametrize("width", [80, 100])
def test_scores_and_heads_stay_whole_in_a_narrow_terminal(swept, width):
    found, _ = swept
    views = "L16-mean+L20-mean+L24-mean"
    standings = [
        replace(each, views=views, head="mlp", setting="weight_decay", strength=0.01) for each in found.standings
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(leaderboard_table(found.run, standings, "mcc", 3))
    said = console.file.getvalue()
    for each in standings[:3]:
        assert f" mcc {each.held_out.interval:.3f} " in said
        assert f" mlp weight_decay={each.strength:.3g} " in said
    assert (f" {views} " in said) == (width == 100)


def test_scores_by_layer_are_the_best_of_each_single_view(swept):
    found, _ = swept
    rows = by_layer(found.trials, "mcc")
    assert [(row["layer"], row["pooling"]) for row in rows] == [(2, "last"), (1, "mean"), (2, "mean")]
    for row in rows:
        name = f"L{row['layer']}-{row['pooling']}"
        assert row["mean"] == max(each.scores["mcc"] for each in found.standings if each.views == name)


def test_the_stored_head_gives_the_runs_predictions_and_its_probabilities_are_calibrated(swept, cache, corpora):
    found, runs = swept
    head = load_head(runs.runs_dir / found.run.run)
    X = np.concatenate([corpora["validation"].X[name] for name in found.run.config["features"].split("+")], axis=1)
    accuracy = (head.predict(X) == corpora["validation"].truth).mean()
    assert accuracy == found.run.scores["cola"]["validation"]["accuracy"]
    assert accuracy > 0.85
    calibration = found.run.statistics["cola"]["validation"]["calibration"]
    assert calibration["temperature"] == head.temperature_ == found.run.selection["temperature"]
    assert calibration["after"]["log_loss"] == pytest.approx(found.run.scores["cola"]["validation"]["log_loss"])


@pytest.fixture(scope="module")
def tempting(corpora):
    """The same corpus with one more view: it tells validation's labels, and of training rows nothing."""
    random = np.random.default_rng(3)
    splits = {}
    for split, corpus in corpora.items():
        extra = random.normal(size=corpus.X["L1-mean"].shape).astype(np.float32)
        if split == "validation":
            direction = np.ones(extra.shape[1])
            extra += np.outer(2 * corpus.truth - 1, 30 * direction).astype(np.float32)
        splits[split] = replace(corpus, X={**corpus.X, "L0-mean": extra})
    return splits


VIEWS = (View(0, "mean"), View(1, "mean"), View(2, "mean"), View(2, "last"))


def test_what_is_best_on_validation_alone_is_not_selected(tempting, write_cache, tmp_path):
    cache = write_cache(tmp_path / "cache", tempting, views=VIEWS)
    [found] = sweep(replace(CONFIG, side_by_side=0), cache, RunsConfig(tmp_path / "runs"))
    assert found.run.config["features"] != "L0-mean"
    on_validation = {}  # the control: a selection that looked there would fall for it
    for views in (*SINGLES, "L0-mean"):
        [other] = sweep(replace(CONFIG, side_by_side=0, views=(views,)), cache, RunsConfig(tmp_path / "alone"))
        on_validation[views] = abs(other.run.scores["cola"]["validation"]["mcc"])
    assert max(on_validation, key=on_validation.get) == "L0-mean"


def test_validation_labels_decide_nothing_but_the_validation_scores(cache, swept, corpora, write_cache, tmp_path):
    turned = {**corpora, "validation": replace(corpora["validation"], labels=1 - corpora["validation"].truth)}
    other_cache = write_cache(tmp_path / "cache", turned, shard_rows=128)
    [other] = sweep(CONFIG, other_cache, RunsConfig(tmp_path / "runs"))
    found, runs = swept
    columns = [name for name in found.trials.column_names if name != "seconds"]
    assert other.trials.select(columns).equals(found.trials.select(columns))
    one, two = (
        load_head(where / run.run) for where, run in ((runs.runs_dir, found.run), (tmp_path / "runs", other.run))
    )
    np.testing.assert_array_equal(one.coef_, two.coef_)
    assert one.temperature_ == two.temperature_
    accuracies = [run.scores["cola"]["validation"]["accuracy"] for run in (found.run, other.run)]
    assert sum(accuracies) == pytest.approx(1)


def test_labels_that_mean_nothing_are_learned_at_chance(corpora, write_cache, tmp_path):
    random = np.random.default_rng(5)
    mixed = {
        split: replace(each, labels=random.permutation(each.truth))
        for split, each in corpora.items()
        if split != "test"
    }
    cache = write_cache(tmp_path / "cache", mixed)
    [found] = sweep(replace(CONFIG, side_by_side=0), cache, RunsConfig(tmp_path / "runs"))
    scores = [each.scores["mcc"] for each in found.standings]
    assert abs(np.mean(scores)) < 0.12  # 80 to 90 rows held out, and 33 heads that are much alike
    assert abs(found.run.scores["cola"]["validation"]["mcc"]) < 0.25


def test_a_stopped_sweep_goes_on_and_comes_to_the_same(swept, cache, tmp_path, monkeypatch, capsys):
    found, _ = swept
    runs, real, calls = RunsConfig(tmp_path / "runs"), trying.run_trials, []

    def stops(name, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        return real(name, *rest)

    monkeypatch.setattr(trying, "run_trials", stops)
    with pytest.raises(KeyboardInterrupt):
        sweep(CONFIG, cache, runs)
    assert read_runs(runs.runs_dir) == []
    assert "goes on" not in capsys.readouterr().err
    then = []
    monkeypatch.setattr(trying, "run_trials", lambda name, *rest: then.append(name) or real(name, *rest))
    [again] = sweep(CONFIG, cache, runs)
    assert capsys.readouterr().err.count("goes on where it was stopped: 2 sets of views were done before") == 1
    assert calls + then == list(dict.fromkeys(each for each in found.trials["views"].to_pylist()))
    columns = [name for name in found.trials.column_names if name != "seconds"]
    assert again.trials.select(columns).equals(found.trials.select(columns))
    assert not [path for path in runs.runs_dir.iterdir() if path.name.startswith(".")]  # no state is left


@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
def test_what_streams_comes_to_what_is_in_memory(corpora, write_cache, tmp_path, monkeypatch, storage_dtype):
    if storage_dtype == "bfloat16":
        coarse = lambda X: {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in X.items()}  # noqa: E731
        corpora = {split: replace(each, X=coarse(each.X)) for split, each in corpora.items()}
    cache = write_cache(tmp_path / "cache", corpora, shard_rows=64, storage_dtype=storage_dtype)
    config = replace(CONFIG, heads=("logreg", "svm", "ridge", "lda", "centroid"))
    held = []
    monkeypatch.setattr(
        stream.FeatureStream,
        "in_memory",
        lambda self, real=stream.FeatureStream.in_memory: held.append(1) or real(self),
    )
    [whole] = sweep(config, cache, RunsConfig(tmp_path / "whole"))
    assert held
    held.clear()
    monkeypatch.setattr(stream, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(stream, "LEAST_BLOCK_ROWS", 16)
    monkeypatch.setattr(stream, "BLOCK_BYTES", 1)
    [streamed] = sweep(config, cache, RunsConfig(tmp_path / "streamed"))
    assert not held
    for one, two in zip(whole.standings, streamed.standings, strict=True):
        assert one.scores["mcc"] == pytest.approx(two.scores["mcc"], abs=0.05)
    assert whole.run.config["features"] == streamed.run.config["features"]
    assert whole.run.scores["cola"]["validation"] == pytest.approx(streamed.run.scores["cola"]["validation"], rel=1e-3)


def test_a_classifier_of_scikit_learn_takes_part(cache, tmp_path):
    config = replace(CONFIG, heads=("centroid", "GaussianNB"), strengths=(), views=("L1-mean",), side_by_side=0)
    [found] = sweep(config, cache, RunsConfig(tmp_path))
    assert {each.head for each in found.standings} == {"centroid", "GaussianNB"}
    assert all(each.scores["mcc"] > 0.5 for each in found.standings)
    with pytest.raises(HeadError, match="no such head"):
        sweep(replace(config, heads=("GausianNB",)), cache, RunsConfig(tmp_path))


@pytest.mark.parametrize("views", ["L2-tokens", "L1-mean+L2-tokens"])
def test_a_tokens_view_is_refused_before_anything_is_trained(cache, tmp_path, monkeypatch, views):
    monkeypatch.setattr(trying, "run_trials", None)
    for named in ((views,), ("all", views)):
        with pytest.raises(HeadError, match=r"cannot be trained on these views(.|\n)*pooled views"):
            sweep(replace(CONFIG, views=named), cache, RunsConfig(tmp_path))


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        SweepConfig(views=("all", "L1-mean"), heads=(), seeds=0, strengths=(-1.0,), side_by_side=-2, show=0)
    for part in ("all holds L1-mean", "heads: expected", "seeds: ", "strengths: ", "side_by_side: ", "show: "):
        assert part in str(caught.value)


def test_an_empty_cache_is_said(tmp_path):
    with pytest.raises(Exception, match="holds no features of cola/train"):
        sweep(CONFIG, CacheConfig(tmp_path), RunsConfig(tmp_path / "runs"))


def test_stacked_heads_take_part_and_are_stored(cache, corpora, tmp_path):
    config = replace(CONFIG, heads=("mlp", "linear"), strengths=(), views=("L1-mean",), side_by_side=0)
    [found] = sweep(config, cache, RunsConfig(tmp_path))
    assert {(each.head, each.setting) for each in found.standings} == {
        ("mlp", "weight_decay"),
        ("linear", "weight_decay"),
    }
    assert len(found.standings) == 6
    assert all(each.scores["mcc"] > 0.5 for each in found.standings)
    head = load_head(tmp_path / found.run.run)
    assert head.weight_decay == found.standings[0].strength
    assert head.temperature_ == found.run.selection["temperature"] != 1
    X, y = corpora["validation"].X["L1-mean"], corpora["validation"].truth
    assert (head.predict(X) == y).mean() == found.run.scores["cola"]["validation"]["accuracy"] > 0.8


def test_heads_that_take_long_are_tried_on_the_best_views_alone(cache, tmp_path):
    config = replace(CONFIG, heads=("lda", "mlp"), strengths=(), side_by_side=0, finalists=1)
    [found] = sweep(config, cache, RunsConfig(tmp_path))
    views = {kind: {each.views for each in found.standings if each.head == kind} for kind in ("lda", "mlp")}
    assert views["lda"] == set(SINGLES)
    best = next(each.views for each in found.standings if each.head == "lda")
    assert views["mlp"] == {best}
    assert found.run.selection["tried"] == 3 * 8 + 3


@pytest.mark.parametrize("group_by", ["source", "sentence"])
def test_what_is_known_of_a_source_does_not_count_on_others(corpora, write_cache, tmp_path, capsys, group_by):
    """One more view tells each source's labels in a way of that source's own."""
    random = np.random.default_rng(6)
    ways = random.normal(size=(10, corpora["train"].X["L1-mean"].shape[1]))
    splits = {}
    for split, corpus in corpora.items():
        of = random.integers(0, 10, len(corpus.texts)) if split == "train" else np.zeros(len(corpus.texts), int)
        signs = 2 * corpus.truth - 1
        extra = 30 * ways[of] * signs[:, None] if split == "train" else random.normal(size=(len(of), ways.shape[1]))
        sources = [f"source {n}" for n in of]
        splits[split] = replace(corpus, X={**corpus.X, "L0-mean": extra.astype(np.float32)}, sources=sources)
    cache = write_cache(tmp_path / "cache", splits, views=VIEWS)
    config = replace(CONFIG, heads=("ridge",), side_by_side=0, group_by=group_by)
    [found] = sweep(config, cache, RunsConfig(tmp_path / "runs"))
    assert (found.run.config["features"] == "L0-mean") == (group_by == "sentence")
    assert found.run.selection["by"].endswith(f"ways of holding out {group_by}s")
    assert "rows are held out by sentence" not in capsys.readouterr().err


def test_too_few_sources_are_said_and_sentences_take_their_place(cache, tmp_path, capsys):
    [found] = sweep(replace(CONFIG, side_by_side=0), cache, RunsConfig(tmp_path))
    assert (
        "rows are held out by sentence: a class is in one source alone, and there are 5 parts"
        in capsys.readouterr().err
    )
    assert found.run.selection["by"].endswith("sentences")


def test_views_side_by_side_are_far_apart():
    ranked = [
        View(19, "mean"),
        View(18, "mean"),
        View(20, "last"),
        View(22, "mean"),
        View(21, "mean"),
        View(17, "last"),
    ]
    assert list(sweeping.far_apart(ranked, 3)) == [
        View(19, "mean"),
        View(20, "last"),
        View(22, "mean"),
        View(17, "last"),
    ]
    assert list(sweeping.far_apart(ranked, 1)) == ranked


def test_views_that_memory_has_no_room_for_are_not_put_side_by_side(cache, corpora, tmp_path, monkeypatch, capsys):
    d = corpora["train"].X["L1-mean"].shape[1]
    room = 8 * (d + 1) ** 2 * (1 + spectrum.BESIDE) / spectrum.MEMORY_SHARE
    monkeypatch.setattr(spectrum, "free_bytes", lambda: room)
    [found] = sweep(CONFIG, cache, RunsConfig(tmp_path))
    assert {each.views for each in found.standings} == set(SINGLES)
    assert "no more than 1 view side by side" in capsys.readouterr().err
    with pytest.raises(HeadError, match="too wide"):  # what was named is refused before anything is trained
        sweep(replace(CONFIG, views=("L1-mean+L2-mean",)), cache, RunsConfig(tmp_path / "named"))
    [without] = sweep(replace(CONFIG, heads=("logreg", "centroid")), cache, RunsConfig(tmp_path / "without"))
    assert {each.views for each in without.standings} > set(SINGLES)


def _stopped_after_two(monkeypatch, cache, runs):
    real, calls = trying.run_trials, []

    def stops(name, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(name)
        return real(name, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(trying, "run_trials", stops)
        with pytest.raises(KeyboardInterrupt):
            sweep(CONFIG, cache, runs)


@pytest.mark.parametrize("changed", ["labels", "features"])
def test_what_was_tried_on_other_labels_or_features_is_not_taken_up(
    corpora, write_cache, tmp_path, monkeypatch, changed
):
    import shutil

    runs = RunsConfig(tmp_path / "runs")
    cache = write_cache(tmp_path / "cache", corpora)
    _stopped_after_two(monkeypatch, cache, runs)
    shutil.rmtree(cache.cache_dir)
    random = np.random.default_rng(2)
    if changed == "labels":
        other = {**corpora, "train": replace(corpora["train"], labels=random.permutation(corpora["train"].truth))}
    else:
        noise = {view: random.normal(size=X.shape).astype(np.float32) for view, X in corpora["train"].X.items()}
        other = {**corpora, "train": replace(corpora["train"], X=noise)}
    write_cache(cache.cache_dir, other, max_length=512 if changed == "labels" else 256)
    [resumed] = sweep(CONFIG, cache, runs)
    [fresh] = sweep(CONFIG, cache, RunsConfig(tmp_path / "others"))
    assert resumed.standings == fresh.standings
    assert max(each.scores["mcc"] for each in fresh.standings) < 0.5  # what was stopped had seen better


def test_views_of_other_rows_are_refused(corpora, write_cache, tmp_path):
    turned = {}
    for split, corpus in corpora.items():
        back = np.arange(len(corpus.texts))[::-1]
        turned[split] = replace(
            corpus,
            texts=[corpus.texts[row] for row in back],
            labels=None if corpus.labels is None else corpus.labels[back],
            truth=corpus.truth[back],
            idx=corpus.idx[back],
            X={view: X[back] for view, X in corpus.X.items()},
        )
    write_cache(tmp_path / "cache", corpora, views=(View(1, "mean"),))
    cache = write_cache(tmp_path / "cache", turned, views=(View(2, "mean"),))
    with pytest.raises(CacheError, match="must be of the same sentences"):
        sweep(replace(CONFIG, views=("L1-mean", "L2-mean")), cache, RunsConfig(tmp_path / "runs"))


def test_one_view_by_two_names_is_tried_once_and_a_strength_named_twice_too(cache, tmp_path):
    config = replace(CONFIG, heads=("logreg",), strengths=(0.01, 0.01), views=("L-1-mean", "L2-mean", "L1-mean"))
    [found] = sweep(config, cache, RunsConfig(tmp_path))
    assert {each.views for each in found.standings} == {"L2-mean", "L1-mean"}  # and no layer beside its neighbour
    assert [each.held_out.seeds for each in found.standings] == [3, 3]
