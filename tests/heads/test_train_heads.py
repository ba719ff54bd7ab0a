"""Training on cached features: heads learn, rows never shift, and a run says how it came about."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pipeline.cache import FeatureCache
from pipeline.config import CacheConfig, HeadsConfig, RunsConfig
from pipeline.heads.features import load_features
from pipeline.heads.store import load_head
from pipeline.heads.train import train_heads
from pipeline.results.ledger import Run, read_run
from pipeline.results.lines import LEDGER
from pipeline.tasks.spec import BUILT_IN, TaskSpec
from pipeline.views import parse_views

COLA = BUILT_IN["cola"]
Train = Callable[..., Run]


def _record(tmp_path: Path, run: Run) -> dict:
    return json.loads((tmp_path / "runs" / run.run / "run.json").read_text("utf-8"))


def _predictions(tmp_path: Path, run: Run, split: str) -> dict[str, np.ndarray]:
    table = pq.read_table(tmp_path / "runs" / run.run / "predictions.parquet").to_pydict()
    here = [row for row, name in enumerate(table["split"]) if name == split]
    return {name: np.asarray([column[row] for row in here]) for name, column in table.items()}


HEADS = ("logreg", "linear", "mlp", "RidgeClassifier", "LinearDiscriminantAnalysis")


@pytest.mark.parametrize("head", HEADS)
def test_a_head_beats_the_majority_class(train: Train, corpora, head):
    run = train(heads=(head,))
    scores, baseline = run.scores["cola"]["validation"], run.baseline["cola"]["validation"]
    share = corpora["validation"].truth.mean()
    assert baseline["accuracy"] == pytest.approx(share)
    assert baseline["mcc"] == 0.0
    assert scores["accuracy"] > baseline["accuracy"] + 0.05
    assert scores["mcc"] > 0.4


def test_on_features_without_a_signal_no_head_beats_the_majority_class(train: Train, write_cache, corpora, tmp_path):
    rng = np.random.default_rng(3)
    noise = {
        split: replace(c, X={v: rng.normal(size=X.shape).astype(np.float32) for v, X in c.X.items()})
        for split, c in corpora.items()
    }
    run = train(write_cache(tmp_path / "noise", noise))
    assert abs(run.scores["cola"]["validation"]["mcc"]) < 0.25


def test_run_json_says_how_the_run_came_about(train: Train, tmp_path, cache: CacheConfig):
    run = train(heads=("mlp",), seed=4)
    record = _record(tmp_path, run)
    assert record["run"] == run.run
    assert re.fullmatch(r"\d{8}-\d{6}-\d{6}-cola-mlp-[0-9a-f]{6}", record["run"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["created"])
    assert (record["path"], record["tasks"], record["head"], record["seed"]) == ("cached", ["cola"], "mlp", 4)
    assert record["seconds"] > 0
    assert set(record["versions"]) >= {"numpy", "scikit-learn", "torch", "skops", "safetensors", "h5py", "pyarrow"}
    assert record["versions"]["numpy"] == np.__version__
    assert record["config"]["seed"] == 4
    assert record["config"]["held_out"] == 0.1
    assert record["config"]["features"] == "L1-mean"
    assert record["config"]["cache_dir"] == str(cache.cache_dir)
    assert set(record["scores"]) == {"cola"}
    assert set(record["scores"]["cola"]) == {"held_out", "validation"}
    for scores in record["scores"]["cola"].values():
        assert set(scores) >= {"mcc", "accuracy", "balanced_accuracy", "f1"}
        assert all(np.isfinite(value) for value in scores.values())


def test_run_json_names_the_features_by_their_fingerprints(train: Train, tmp_path, cache: CacheConfig):
    record = _record(tmp_path, train(views=("L2-last+L1-mean",)))
    expected = {
        split: [
            FeatureCache(cache.cache_dir).open("cola", split, layer=layer, pooling=pooling).fingerprint
            for layer, pooling in ((2, "last"), (1, "mean"))
        ]
        for split in ("train", "validation", "test")
    }
    assert record["features"] == {"cola": expected}
    assert len({name for names in expected.values() for name in names}) == 6


def test_a_record_that_is_read_says_what_was_written(train: Train, tmp_path):
    run = train()
    assert json.loads(json.dumps(read_run(tmp_path / "runs" / run.run).to_dict())) == _record(tmp_path, run)


@pytest.mark.parametrize("head", ["logreg", "mlp", "RidgeClassifier"])
def test_predictions_stand_in_the_order_of_the_data_and_give_the_scores(train: Train, tmp_path, corpora, head):
    run = train(heads=(head,))
    rows = _predictions(tmp_path, run, "validation")
    corpus = corpora["validation"]
    assert rows["row"].tolist() == list(range(80))
    assert rows["idx"].tolist() == corpus.idx.tolist()
    assert rows["label"].tolist() == corpus.truth.tolist()
    assert set(rows["task"]) == {"cola"}
    scores = run.scores["cola"]["validation"]
    assert scores["mcc"] == matthews_corrcoef(corpus.truth, rows["prediction"])
    assert scores["accuracy"] == accuracy_score(corpus.truth, rows["prediction"])
    assert scores["f1"] == f1_score(corpus.truth, rows["prediction"])
    assert (
        accuracy_score(corpus.truth, np.roll(rows["prediction"], 1)) < scores["accuracy"] - 0.05
    )  # a shift would show
    head_on_disk = load_head(tmp_path / "runs" / run.run)
    assert head_on_disk.predict(corpus.X["L1-mean"]).tolist() == rows["prediction"].tolist()


def test_probabilities_go_with_the_predictions(train: Train, tmp_path):
    for head in ("logreg", "svm", "mlp", "RidgeClassifier"):  # of a margin, calibrated ones
        rows = _predictions(tmp_path, train(heads=(head,)), "validation")
        assert rows["probabilities"].shape == (80, 2)
        np.testing.assert_allclose(rows["probabilities"].sum(axis=1), 1.0, rtol=1e-6)
        assert rows["probabilities"].argmax(axis=1).tolist() == rows["prediction"].tolist()


def test_the_unlabelled_test_split_is_predicted_and_not_scored(train: Train, tmp_path, corpora):
    run = train()
    rows = _predictions(tmp_path, run, "test")
    assert rows["idx"].tolist() == corpora["test"].idx.tolist()
    assert set(rows["label"].tolist()) == {None}
    assert accuracy_score(corpora["test"].truth, rows["prediction"]) > 0.7  # the truth, which the cache does not hold
    assert "test" not in run.scores["cola"]
    assert "test" not in run.baseline["cola"]
    assert len(_predictions(tmp_path, run, "train")["row"]) == 0


def test_a_labelled_test_split_is_scored(train: Train, write_cache, corpora, tmp_path):
    labelled = {**corpora, "test": replace(corpora["test"], labels=corpora["test"].truth)}
    run = train(write_cache(tmp_path / "cache", labelled))
    assert run.scores["cola"]["test"]["accuracy"] > 0.7


def test_a_task_without_a_test_split_is_trained(train: Train, write_cache, corpora, tmp_path):
    two = {split: corpora[split] for split in ("train", "validation")}
    run = train(write_cache(tmp_path / "cache", two))
    assert set(run.features["cola"]) == {"train", "validation"}
    assert len(_predictions(tmp_path, run, "test")["row"]) == 0


def test_a_three_class_task_of_ones_own_is_trained(train: Train, write_cache, corpora, tmp_path):
    task = TaskSpec(name="tone", labels=("cold", "plain", "warm"), prompt="Tone of: {}", metric="f1")
    rng = np.random.default_rng(5)
    three = {}
    for split, corpus in corpora.items():
        labels = rng.integers(0, 3, len(corpus.texts))
        X = {view: (states + 4.0 * np.eye(3, 16)[labels]).astype(np.float32) for view, states in corpus.X.items()}
        three[split] = replace(corpus, labels=labels, truth=labels, X=X)
    cache = write_cache(tmp_path / "cache", three, task=task)
    file = tmp_path / "tone.toml"
    file.write_text('name = "tone"\nlabels = ["cold", "plain", "warm"]\nprompt = "Tone of: {}"\nmetric = "f1"\n')
    for head in ("logreg", "mlp"):
        run = train(cache, tasks=("tone",), task_files=(file,), heads=(head,))
        rows = _predictions(tmp_path, run, "validation")
        assert run.scores["tone"]["validation"]["accuracy"] > run.baseline["tone"]["validation"]["accuracy"] + 0.2
        assert run.scores["tone"]["validation"]["f1"] == f1_score(rows["label"], rows["prediction"], average="macro")
        assert rows["probabilities"].shape == (80, 3)


def test_views_side_by_side_are_the_concatenation_in_that_order(cache: CacheConfig, config: HeadsConfig, corpora):
    together = load_features(FeatureCache(cache.cache_dir), COLA, parse_views("L1-mean+L2-last"), config)
    turned = load_features(FeatureCache(cache.cache_dir), COLA, parse_views("L2-last+L1-mean"), config)
    assert set(together) == {"train", "validation", "test"}
    for split, features in together.items():
        expected = np.concatenate([corpora[split].X["L1-mean"], corpora[split].X["L2-last"]], axis=1)
        np.testing.assert_array_equal(features.X, expected)
        assert features.X.dtype == np.float32
        assert not np.array_equal(turned[split].X, expected)
        assert features.texts == corpora[split].texts
        assert features.sample_ids.tolist() == corpora[split].idx.tolist()
        assert (features.y is None) == (split == "test")


def test_two_views_score_as_well_as_the_better_of_them_and_use_both(train: Train, tmp_path):
    run = train(views=("L1-mean+L2-last",))
    assert load_head(tmp_path / "runs" / run.run).n_features_in_ == 32
    assert run.scores["cola"]["validation"]["mcc"] > train().scores["cola"]["validation"]["mcc"]


def test_without_a_named_view_the_tasks_own_are_trained_on(train: Train):
    run = train(views=())
    assert run.config["features"] == "+".join(map(str, COLA.head_view))
    assert len(run.features["cola"]["train"]) == len(COLA.head_view)


def test_how_the_rows_are_cut_into_shards_and_stored_decides_nothing(train: Train, write_cache, corpora, tmp_path):
    one_shard = write_cache(tmp_path / "one", corpora)
    in_three, in_one = train(heads=("mlp",)), train(one_shard, heads=("mlp",))
    three = _predictions(tmp_path, in_three, "validation")["probabilities"]
    one = _predictions(tmp_path, in_one, "validation")["probabilities"]
    np.testing.assert_array_equal(three, one)
    assert in_three.features == in_one.features


@pytest.mark.parametrize("head", ["logreg", "mlp", "RidgeClassifier"])
def test_a_seed_decides_every_prediction(train: Train, tmp_path, head):
    def logits(seed: int) -> np.ndarray:
        run = train(heads=(head,), seed=seed)
        assert run.seed == seed
        X = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
        return load_head(tmp_path / "runs" / run.run).decision_function(X)

    first, again, other = logits(3), logits(3), logits(8)
    np.testing.assert_array_equal(first, again)
    if head == "mlp":
        assert not np.array_equal(first, other)


def test_every_head_on_every_view_is_a_run_of_its_own(cache: CacheConfig, config: HeadsConfig, tmp_path):
    heads, views = ("logreg", "RidgeClassifier", "logreg"), ("L1-mean", "L2-last", "L1-mean")
    several = replace(config, heads=heads, views=views)  # what is named twice is trained once
    runs = train_heads(several, cache, RunsConfig(tmp_path / "runs"))
    assert [(run.head, run.config["features"]) for run in runs] == [
        ("logreg", "L1-mean"),
        ("RidgeClassifier", "L1-mean"),
        ("logreg", "L2-last"),
        ("RidgeClassifier", "L2-last"),
    ]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted([LEDGER, *(run.run for run in runs)])


def test_settings_of_a_head_reach_it(train: Train, tmp_path):
    weak = load_head(tmp_path / "runs" / train(params=("C=0.001",)).run)
    strong = load_head(tmp_path / "runs" / train(params=("C=10",)).run)
    assert (weak.C, strong.C) == (0.001, 10)
    assert np.abs(weak.coef_).sum() < np.abs(strong.coef_).sum()
    assert load_head(tmp_path / "runs" / train(heads=("mlp",), params=("hidden_size=8",)).run).hidden_size == 8
