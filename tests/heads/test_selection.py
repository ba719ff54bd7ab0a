"""What is chosen is chosen on held-out training rows, never on the rows that are reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.errors import HeadError
from pipeline.heads.fit import STRENGTHS, TrainingRows, fit_head
from pipeline.heads.store import load_head
from pipeline.holdout import enough_hold_outs, hold_out
from pipeline.results.metrics import score


@pytest.fixture(scope="module")
def caches(write_cache, corpora, tmp_path_factory):
    """The same features under other labels: as they are, validation turned round, a third of train turned round."""
    folder = tmp_path_factory.mktemp("labels")
    train, validation = corpora["train"], corpora["validation"]
    flipped = np.where(np.arange(300) % 3 == 0, 1 - train.truth, train.truth)
    return {
        "as they are": write_cache(folder / "a", corpora),
        "validation": write_cache(
            folder / "v", {**corpora, "validation": replace(validation, labels=1 - validation.truth)}
        ),
        "train": write_cache(folder / "t", {**corpora, "train": replace(train, labels=flipped)}),
    }


def _weights(runs_dir: Path, run) -> np.ndarray:
    head = load_head(runs_dir / run.run)
    if run.head == "logreg":
        return np.append(head.coef_, head.intercept_)
    return np.concatenate([value.numpy().ravel() for value in head.module_.state_dict().values()])


@pytest.mark.parametrize("head", ["logreg", "linear", "mlp"])
def test_validation_labels_decide_nothing_but_the_validation_scores(caches, train, tmp_path, head):
    runs = {name: train(cache, heads=(head,)) for name, cache in caches.items()}
    weights = {name: _weights(tmp_path / "runs", run) for name, run in runs.items()}
    usual, other = runs["as they are"], runs["validation"]
    np.testing.assert_array_equal(weights["as they are"], weights["validation"])
    assert usual.selection == other.selection
    assert usual.scores["cola"]["held_out"] == other.scores["cola"]["held_out"]
    turned = 1 - usual.scores["cola"]["validation"]["accuracy"]
    assert other.scores["cola"]["validation"]["accuracy"] == pytest.approx(turned)
    assert not np.array_equal(weights["as they are"], weights["train"])
    assert usual.scores["cola"]["held_out"] != runs["train"].scores["cola"]["held_out"]


def _rows(corpora, seed: int = 0) -> TrainingRows:
    corpus = corpora["train"]
    fit, held = hold_out(corpus.texts, corpus.truth, share=0.1, seed=seed)
    return TrainingRows(corpus.X["L1-mean"], corpus.truth, fit, held)


def test_the_strength_has_the_lowest_loss_on_the_held_out_rows(corpora):
    for seed in range(3):
        rows = _rows(corpora, seed)
        fitted = fit_head("logreg", rows, params={}, seed=0)
        losses, held_out = {}, {}
        for C in STRENGTHS["logreg"]:
            head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
            head.fit(rows.X[rows.fit], rows.y[rows.fit])
            losses[C] = log_loss(rows.y[rows.held], head.predict_proba(rows.X[rows.held]))
            held_out[C] = score(rows.y[rows.held], head.predict(rows.X[rows.held]))
        assert losses[fitted.selection["C"]] == pytest.approx(min(losses.values()), rel=1e-3)
        assert fitted.held_out == pytest.approx(held_out[fitted.selection["C"]])
        assert fitted.selection["tried"] == len(losses)
        assert max(losses.values()) > min(losses.values()) * 1.05


def test_a_weak_signal_wants_a_stronger_penalty_than_a_clear_one():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 300)
    noise = rng.normal(size=(300, 100))
    chosen = []
    for signal in (0.1, 3.0):
        X = (noise + signal * y[:, None] * (np.arange(100) < 10)).astype(np.float32)
        rows = TrainingRows(X, y, np.arange(60, 300), np.arange(60))
        chosen.append(fit_head("logreg", rows, params={}, seed=0).selection["C"])
    assert chosen[0] < chosen[1]
    assert set(chosen) <= set(STRENGTHS["logreg"])


def test_the_final_head_is_fitted_on_all_training_rows(corpora):
    rows = _rows(corpora)
    head = fit_head("logreg", rows, params={}, seed=0).head
    np.testing.assert_allclose(head.mean_, rows.X.mean(axis=0, dtype=np.float64), rtol=1e-5)
    assert not np.allclose(head.mean_, rows.X[rows.fit].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["logreg", "linear", "mlp", "RidgeClassifier"])
def test_held_out_scores_are_of_a_head_that_had_not_seen_these_rows(corpora, kind):
    """Labels drawn by lot, more features than rows: a head that had seen the rows would know them by heart."""
    rng = np.random.default_rng(9)
    X, y = rng.normal(size=(120, 300)).astype(np.float32), rng.integers(0, 2, 120)
    rows = TrainingRows(X, y, np.arange(80), np.arange(80, 120))
    params = {"C": 1.0} if kind == "logreg" else {}
    fitted = fit_head(kind, rows, params=params, seed=0)
    assert fitted.held_out["accuracy"] < 0.75
    if kind in ("logreg", "RidgeClassifier"):
        assert score(y[80:], fitted.head.predict(X[80:]))["accuracy"] == 1.0


def test_a_named_strength_is_not_searched(corpora):
    fitted = fit_head("logreg", _rows(corpora), params={"C": 0.5}, seed=0)
    assert fitted.head.C == fitted.selection["C"] == 0.5
    assert fitted.selection["tried"] == 1


def test_other_settings_are_scikit_learns_own(corpora):
    params = {"class_weight": "balanced"}
    balanced = fit_head("LogisticRegression", _rows(corpora), params=params, seed=0)
    plain = fit_head("LogisticRegression", _rows(corpora), params={}, seed=0)
    assert balanced.head.pipeline_[-1].class_weight == "balanced"
    assert not np.array_equal(balanced.head.pipeline_[-1].coef_, plain.head.pipeline_[-1].coef_)
    with pytest.raises(HeadError, match="no such setting") as caught:
        fit_head("logreg", _rows(corpora), params=params, seed=0)
    assert "LogisticRegression" in caught.value.remedy


def test_where_few_rows_are_held_out_the_strength_has_the_lowest_loss_over_several_folds(corpora):
    corpus = corpora["train"]
    ways = enough_hold_outs(corpus.texts, corpus.truth, share=0.1, seed=1)
    assert len(ways) == 5
    held_out = np.concatenate([held for _, held in ways]).tolist()
    assert len(held_out) == len(set(held_out)) == 150
    (fit, held), *others = ways
    rows = TrainingRows(corpus.X["L1-mean"], corpus.truth, fit, held, others=tuple(others))
    fitted = fit_head("logreg", rows, params={}, seed=0)
    losses, on_first = {}, {}
    for C in STRENGTHS["logreg"]:
        head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
        of_ways = [head.fit(rows.X[fit], rows.y[fit]).predict_proba(rows.X[held]) for fit, held in ways]
        losses[C] = log_loss(np.concatenate([rows.y[held] for _, held in ways]), np.concatenate(of_ways))
        on_first[C] = score(rows.y[rows.held], of_ways[0].argmax(axis=1))
    assert losses[fitted.selection["C"]] == pytest.approx(min(losses.values()), rel=1e-3)
    assert fitted.selection["by"] == "log-loss on rows held out in 5 ways"
    assert fitted.held_out == pytest.approx(on_first[fitted.selection["C"]])  # the rows that other heads are scored on


def test_enough_rows_are_held_out_once():
    texts, y = [f"sentence {number}" for number in range(6000)], np.arange(6000) % 2
    [(_, held)] = enough_hold_outs(texts, y, share=0.1, seed=0)
    assert len(held) == 600
    np.testing.assert_array_equal(held, hold_out(texts, y, share=0.1, seed=0)[1])
    assert len(enough_hold_outs(texts[:2000], y[:2000], share=0.1, seed=0)) == 3
    assert len(enough_hold_outs(texts[:100], y[:100], share=0.1, seed=0)) == 5
    assert len(enough_hold_outs(texts[:100], y[:100], share=0.5, seed=0)) == 2
