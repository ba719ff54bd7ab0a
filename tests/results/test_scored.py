"""What a run enters of each split."""

import json

import numpy as np
import pytest

from pipeline.digests import sha256_of_texts
from pipeline.results.intervals import bootstrap_interval
from pipeline.results.metrics import score, score_probabilities
from pipeline.results.scored import ScoredSplits

TRAIN = np.asarray([0, 1, 1, 1])
Y = np.asarray([0, 1, 1, 0, 1, 1])
PREDICTIONS = np.asarray([0, 1, 1, 1, 0, 1])
PROBABILITIES = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9]])
CLASSES = np.asarray([0, 1])
TEXTS = ("one", "two", "three", "four", "five", "six")
SOURCES = ("a", "b", "a", "c", "c", "a")


def _scored(train_sources=None, sources=None, probabilities=PROBABILITIES, labels=2) -> ScoredSplits:
    scored = ScoredSplits("cola", labels, TRAIN, train_sources)
    scored.add("validation", np.arange(6), TEXTS, Y, PREDICTIONS, probabilities, CLASSES, sources)
    return scored


def test_scores_are_of_classes_and_of_probabilities():
    found = _scored()
    assert found.scores["validation"] == {**score(Y, PREDICTIONS), **score_probabilities(Y, PROBABILITIES)}
    assert list(found.scores["validation"]) == [
        "mcc",
        "accuracy",
        "balanced_accuracy",
        "f1",
        "auroc",
        "log_loss",
        "ece",
    ]
    assert found.baseline["validation"] == score(Y, np.ones(6, dtype=int))
    without = _scored(probabilities=None)
    assert without.scores["validation"] == score(Y, PREDICTIONS)
    assert without.tables[0]["probabilities"].null_count == 6


def test_a_label_without_a_column_has_probability_0_and_is_scored():
    found = _scored(labels=3)
    wide = np.c_[PROBABILITIES, np.zeros(6)]
    assert found.tables[0]["probabilities"].to_pylist() == wide.tolist()
    assert found.scores["validation"]["log_loss"] == score_probabilities(Y, wide)["log_loss"]


def test_intervals_are_of_what_can_decide_a_task():
    intervals = _scored().statistics["validation"]["intervals"]
    assert list(intervals) == ["mcc", "accuracy", "f1"]
    assert intervals["accuracy"] == bootstrap_interval("accuracy", Y, PREDICTIONS).to_dict()
    assert intervals["mcc"]["estimate"] == pytest.approx(score(Y, PREDICTIONS)["mcc"])


def test_where_sources_are_known_scores_are_told_apart_by_them():
    found = _scored(("a", "b", None, "a"), SOURCES)
    statistics = found.statistics["validation"]
    assert {name: each["rows"] for name, each in statistics["sources"].items()} == {"a": 3, "b": 1, "c": 2}
    assert {name: each["rows"] for name, each in statistics["domains"].items()} == {"in_domain": 4, "out_of_domain": 2}
    assert statistics["domains"]["in_domain"]["accuracy"] == 1.0
    assert statistics["domains"]["out_of_domain"]["accuracy"] == 0.0
    assert found.tables[0]["source"].to_pylist() == list(SOURCES)
    assert json.loads(json.dumps(found.statistics)) == found.statistics


def test_nobody_guesses_sources_or_domains():
    assert set(_scored(None, SOURCES).statistics["validation"]) == {"texts", "intervals", "sources"}
    for sources in (None, ("",) * 6, (None,) * 6):
        assert set(_scored(("a",) * 4, sources).statistics["validation"]) == {"texts", "intervals"}


def test_a_split_without_labels_has_predictions_alone():
    scored = ScoredSplits("cola", 2, TRAIN, ("a",) * 4)
    scored.add("test", np.arange(6), TEXTS, None, PREDICTIONS, PROBABILITIES, CLASSES, SOURCES)
    assert (scored.scores, scored.baseline, scored.statistics) == ({}, {}, {})
    assert scored.tables[0]["prediction"].to_pylist() == PREDICTIONS.tolist()
    assert scored.tables[0]["source"].to_pylist() == list(SOURCES)


def test_it_says_which_sentences_were_scored():
    scored = _scored()
    assert scored.statistics["validation"]["texts"] == f"sha256:{sha256_of_texts(TEXTS)}"
    assert scored.tables[0]["text"].to_pylist() == list(TEXTS)
