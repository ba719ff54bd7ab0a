"""Metrics of many samples at once are those of scikit-learn, one by one."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from pipeline.errors import ConfigError
from pipeline.results.counts import (
    COUNTED,
    OF_PROBABILITIES,
    check_metric,
    metric_of_counts,
    tables_of,
    weighted_metric,
)
from pipeline.results.metrics import score, score_probabilities


def _samples(classes: int, number: int = 60, rows: int = 25) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(classes)
    found = []
    for _ in range(number):
        y = rng.integers(0, classes, rows)
        y[:classes] = np.arange(classes)
        found.append((y, np.where(rng.random(rows) < 0.5, y, rng.integers(0, classes, rows))))
    return found


def _counts(samples: list[tuple[np.ndarray, np.ndarray]], classes: int) -> np.ndarray:
    return np.stack([confusion_matrix(y, p, labels=np.arange(classes)) for y, p in samples])


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_of_counts_are_scikit_learns_one_by_one(classes):
    samples = _samples(classes)
    counts = _counts(samples, classes)
    average = "binary" if classes == 2 else "macro"
    scikit_learns = {
        "mcc": matthews_corrcoef,
        "accuracy": accuracy_score,
        "balanced_accuracy": balanced_accuracy_score,
        "f1": lambda y, p: f1_score(y, p, average=average),
    }
    assert set(scikit_learns) == set(COUNTED)
    for metric, function in scikit_learns.items():
        expected = [function(y, predictions) for y, predictions in samples]
        assert metric_of_counts(metric, counts) == pytest.approx(expected, abs=1e-12), metric
        turned = metric_of_counts(metric, counts[:, ::-1])  # the true classes in another order
        assert turned != pytest.approx(expected, abs=1e-3), metric


def test_metrics_of_counts_are_the_scoring_functions_where_something_is_missing():
    """A class that no row has, one that is never predicted, one of both: no quotient divides by nothing."""
    cases = [([0, 0, 0], [0, 0, 0]), ([1, 1], [1, 1]), ([0, 1, 1], [0, 0, 0]), ([0, 0], [1, 1]), ([0, 2], [2, 0])]
    for y, predictions in (map(np.asarray, case) for case in cases):
        classes = 1 + max(1, y.max(), predictions.max())
        expected = score(y, predictions)
        counts = _counts([(y, predictions)], classes)
        assert {name: float(metric_of_counts(name, counts)[0]) for name in COUNTED} == pytest.approx(expected)


def test_cells_of_one_place_are_added():
    tables = tables_of(np.asarray([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]]), np.asarray([3, 0, 3]), 2)
    assert tables.tolist() == [[[2, 0], [0, 5]], [[1, 0], [0, 0]]]


def test_many_rows_do_not_overflow():
    counts = np.asarray([[[40_000_000, 1_000_000], [2_000_000, 50_000_000]]])
    assert metric_of_counts("mcc", counts) == pytest.approx(metric_of_counts("mcc", counts / 1e6), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_weighted_metrics_are_those_of_repeated_rows(classes, tied):
    rng = np.random.default_rng(classes)
    y = rng.integers(0, classes, 40)
    logits = rng.normal(size=(40, classes)) + np.eye(classes)[y]
    if tied:
        logits = logits.round()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    draws = rng.integers(0, 40, (30, 40))
    weights = np.stack([np.bincount(draw, minlength=40) for draw in draws]).astype(float)
    of_one = (lambda p: p[:, 1]) if classes == 2 else (lambda p: p)
    expected = {
        "auroc": [roc_auc_score(y[draw], of_one(probabilities[draw]), multi_class="ovr") for draw in draws],
        "log_loss": [log_loss(y[draw], probabilities[draw], labels=np.arange(classes)) for draw in draws],
        "ece": [score_probabilities(y[draw], probabilities[draw])["ece"] for draw in draws],
    }
    assert set(expected) == set(OF_PROBABILITIES)
    for metric, values in expected.items():
        statistic = weighted_metric(metric, y, probabilities)
        assert statistic(weights) == pytest.approx(values, abs=1e-12), metric
        assert statistic(weights[::-1]) != pytest.approx(values, abs=1e-3), metric


def test_rows_of_one_class_have_no_auroc_and_other_rows_keep_theirs():
    y, probabilities = np.asarray([0, 1, 1]), np.asarray([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    found = weighted_metric("auroc", y, probabilities)(np.asarray([[0.0, 2, 1], [1, 1, 1]]))
    assert np.isnan(found[0])
    assert found[1] == 1.0


def test_a_metric_that_there_is_not_is_refused():
    for name in (*COUNTED, *OF_PROBABILITIES):
        check_metric(name)
    with pytest.raises(ConfigError, match="no such metric") as caught:
        check_metric("bleu")
    assert caught.value.found == "bleu"
    assert "balanced_accuracy" in caught.value.expected
    with pytest.raises(ConfigError, match="of predicted classes"):
        metric_of_counts("auroc", np.ones((1, 2, 2)))
    with pytest.raises(ConfigError, match="of probabilities"):
        weighted_metric("mcc", np.asarray([0, 1]), np.full((2, 2), 0.5))
