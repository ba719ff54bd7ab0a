"""Intervals hold what they should, as often as they say."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import log_loss, roc_auc_score

from pipeline.errors import ConfigError, RunError
from pipeline.results.counts import COUNTED, OF_PROBABILITIES
from pipeline.results.intervals import NOT_BCA, Interval, bootstrap_interval, compared, seeds_interval, statistic_of
from pipeline.results.metrics import score, score_probabilities
from pipeline.results.resampling import resample


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, predictions and probabilities of 300 rows, two thirds of them of class 1."""
    rng = np.random.default_rng(5)
    y = (rng.random(300) < 0.68).astype(np.int64)
    decisions = rng.normal(size=300) + 1.6 * y - 0.5
    probabilities = np.stack([1 / (1 + np.exp(decisions)), 1 / (1 + np.exp(-decisions))], axis=1)
    return y, (decisions > 0).astype(np.int64), probabilities


def _mcc(y: np.ndarray, predictions: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of two classes it is Pearson's correlation."""
    y, predictions = (each - each.mean(axis=axis, keepdims=True) for each in (y, predictions))
    spread = np.sqrt((y**2).sum(axis=axis) * (predictions**2).sum(axis=axis))
    return (y * predictions).sum(axis=axis) / spread


def _accuracy(y: np.ndarray, predictions: np.ndarray, axis: int = -1) -> np.ndarray:
    return (y == predictions).mean(axis=axis)


@pytest.mark.parametrize(("metric", "function"), [("mcc", _mcc), ("accuracy", _accuracy)])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_are_scipys_within_what_resampling_varies(rows, metric, function, method):
    y, predictions, _ = rows
    ours = bootstrap_interval(metric, y, predictions, method=method, seed=1)
    theirs = scipy.stats.bootstrap(
        (y.astype(float), predictions.astype(float)),
        function,
        paired=True,
        vectorized=True,
        n_resamples=9_999,
        method={"bca": "BCa"}.get(method, method),
        rng=np.random.default_rng(2),
        batch=500,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(score(y, predictions)[metric], abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.05 * width)
    assert ours.method == method
    other = bootstrap_interval(metric, y, np.where(np.arange(300) < 20, 1 - predictions, predictions), method=method)
    assert other.low != pytest.approx(theirs.low, abs=0.05 * width)


def test_bca_is_not_the_percentile_interval_where_the_score_is_skewed():
    y, predictions = np.ones(60, dtype=int), np.r_[np.zeros(3, dtype=int), np.ones(57, dtype=int)]
    bca, percentile = (bootstrap_interval("accuracy", y, predictions, method=each) for each in ("bca", "percentile"))
    assert bca.low < percentile.low
    assert bca.high < 1.0 == percentile.high


def test_bca_of_probabilities_is_scipys(rows):
    y, _, probabilities = rows
    losses = -np.log(np.take_along_axis(probabilities, y[:, None], axis=1)[:, 0])
    theirs = scipy.stats.bootstrap((losses,), np.mean, n_resamples=9_999, rng=np.random.default_rng(3), batch=500)
    ours = bootstrap_interval("log_loss", y, probabilities)
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.05 * (high - low))


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_intervals_of_probabilities_hold_the_score(rows, metric):
    y, _, probabilities = rows
    found = bootstrap_interval(metric, y, probabilities, resamples=999, method="percentile")
    assert found.estimate == pytest.approx(score_probabilities(y, probabilities)[metric], abs=1e-12)
    assert found.low < found.high
    if metric != "ece":  # which is biased: chance alone makes a gap
        assert found.low < found.estimate < found.high


@pytest.mark.parametrize("metric", COUNTED)
def test_drawing_cells_is_drawing_rows(rows, metric):
    """The same distribution, by a two-sample test; a draw of fewer rows has another one."""
    y, predictions, _ = rows
    statistic, cells, width = statistic_of(metric, y, predictions)
    assert len(cells) == 4
    of_cells = resample(statistic, cells, resamples=4_000, seed=1, width=width).values
    rng = np.random.default_rng(2)

    def of_rows(number: int) -> list[float]:
        drawn = rng.integers(0, 300, (4_000, number))
        counts = np.stack([2 * y[draw] + predictions[draw] for draw in drawn])
        per_cell = np.stack([(counts == cell).sum(axis=1) for cell in range(4)], axis=1)
        return statistic(per_cell.astype(float))

    jitter = rng.normal(scale=1e-4, size=(2, 4_000))  # the test is of continuous values
    assert scipy.stats.ks_2samp(of_cells + jitter[0], of_rows(300) + jitter[1]).pvalue > 0.01
    assert scipy.stats.ks_2samp(of_cells + jitter[0], of_rows(200) + jitter[1]).pvalue < 1e-4


def test_the_percentile_interval_of_accuracy_is_the_binomials(rows):
    y, predictions, _ = rows
    found = bootstrap_interval("accuracy", y, predictions, method="percentile", resamples=99_999)
    exact = scipy.stats.binom(300, found.estimate)
    assert found.low * 300 == pytest.approx(exact.ppf(0.025), abs=1)
    assert found.high * 300 == pytest.approx(exact.ppf(0.975), abs=1)
    assert found.low * 300 != pytest.approx(exact.ppf(0.05), abs=1)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_hold_the_true_value_as_often_as_they_say(method):
    rng, truth, simulations = np.random.default_rng(7), 0.8, 500
    held = {0.95: 0, 0.5: 0}
    for _ in range(simulations):
        y = np.ones(200, dtype=int)
        predictions = (rng.random(200) < truth).astype(int)
        for level in held:
            found = bootstrap_interval("accuracy", y, predictions, level=level, method=method, resamples=999)
            held[level] += found.low <= truth <= found.high
    assert 0.92 <= held[0.95] / simulations <= 0.97
    assert 0.4 <= held[0.5] / simulations <= 0.62


def test_leaving_out_one_row_of_a_cell_is_leaving_out_that_row(rows):
    y, predictions, _ = rows
    statistic, cells, _ = statistic_of("mcc", y, predictions)
    found = resample(statistic, cells, resamples=1)
    one_by_one = [score(np.delete(y, row), np.delete(predictions, row))["mcc"] for row in range(300)]
    assert np.sort(np.repeat(found.left_out, cells)) == pytest.approx(np.sort(one_by_one), abs=1e-12)


def test_the_seed_alone_decides_and_blocks_do_not(rows, monkeypatch):
    y, predictions, probabilities = rows
    for metric, predicted in (("mcc", predictions), ("auroc", probabilities)):
        first = bootstrap_interval(metric, y, predicted, resamples=500, seed=4)
        np.random.default_rng(0).random(9)
        assert bootstrap_interval(metric, y, predicted, resamples=500, seed=4) == first
        assert bootstrap_interval(metric, y, predicted, resamples=500, seed=5) != first
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.results.resampling.BLOCK_VALUES", 4_000)
            assert bootstrap_interval(metric, y, predicted, resamples=500, seed=4).to_dict() == pytest.approx(
                first.to_dict()
            )


def test_where_bca_is_not_defined_the_method_says_so(rows):
    y, predictions, _ = rows
    right = bootstrap_interval("mcc", y, y)
    assert (right.estimate, right.low, right.high, right.method) == (1.0, 1.0, 1.0, NOT_BCA)
    one_row = bootstrap_interval("accuracy", np.asarray([1]), np.asarray([0]))
    assert (one_row.low, one_row.high, one_row.method) == (0.0, 0.0, NOT_BCA)
    few = bootstrap_interval("mcc", y[:4], y[:4])  # a resample may be of one class, and has no correlation then
    assert few.method == NOT_BCA
    assert bootstrap_interval("mcc", y, predictions).method == "bca"
    assert "percentile" in NOT_BCA


def test_what_differs_by_rounding_alone_is_equal():
    values = np.asarray([0.3, 0.1 + 0.2, 0.3 + 1e-9, 0.2])
    assert compared(values, 0.3) == (1, 1)
    assert (values <= 0.3).sum() == 2


def test_resamples_without_an_auroc_are_left_out_and_rows_without_one_refused():
    probabilities = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    found = bootstrap_interval("auroc", np.asarray([0, 1, 1, 1]), probabilities)
    assert 0.0 <= found.low <= found.estimate == 1.0
    assert found.method == NOT_BCA  # without its one row, class 0 is not there
    with pytest.raises(RunError, match="not defined"):
        bootstrap_interval("auroc", np.ones(4, dtype=int), probabilities)


def test_several_classes_have_intervals_too():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    predictions = np.where(rng.random(200) < 0.6, y, rng.integers(0, 4, 200))
    expected = score(y, predictions)
    for metric in COUNTED:
        found = bootstrap_interval(metric, y, predictions)
        assert found.estimate == pytest.approx(expected[metric], abs=1e-12)
        assert found.low < found.estimate < found.high
    logits = rng.normal(size=(200, 4)) + np.eye(4)[y]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = bootstrap_interval("auroc", y, probabilities, resamples=500)
    assert found.low < roc_auc_score(y, probabilities, multi_class="ovr") < found.high
    found = bootstrap_interval("log_loss", y, probabilities, resamples=500)
    assert found.low < log_loss(y, probabilities) < found.high


def test_what_is_asked_for_wrongly_is_refused(rows):
    y, predictions, probabilities = rows
    for words, wrong in (
        ("no such metric", {"metric": "bleu", "predicted": predictions}),
        ("something else", {"metric": "mcc", "predicted": probabilities}),
        ("something else", {"metric": "auroc", "predicted": predictions}),
        ("no such interval", {"metric": "mcc", "predicted": predictions, "method": "basic"}),
        ("no such interval", {"metric": "mcc", "predicted": predictions, "level": 95}),
    ):
        with pytest.raises(ConfigError, match=words):
            bootstrap_interval(y=y, resamples=9, **wrong)
    for wrong in (predictions[:-1], predictions[:0]):
        with pytest.raises(RunError, match="do not go with the rows"):
            bootstrap_interval("mcc", y, wrong)
    with pytest.raises(RunError, match="do not go with the rows"):
        bootstrap_interval("mcc", y[:0], predictions[:0])


def test_an_interval_reads_to_a_person_and_is_json():
    interval = Interval(0.4123, 0.3601, 0.4599, 0.95, "bca")
    assert str(interval) == "0.412 [0.36, 0.46]"
    assert Interval(**interval.to_dict()) == interval
    assert str(Interval(0.4123, None, None, 0.95, "one seed")) == "0.412"


def test_over_seeds_the_mean_has_students_interval():
    values = [0.40, 0.43, 0.41, 0.46]
    found = seeds_interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    assert (found.interval.estimate, found.interval.low, found.interval.high) == pytest.approx((0.425, low, high))
    assert (found.std, found.seeds) == (pytest.approx(np.std(values, ddof=1)), 4)
    normal = scipy.stats.norm.interval(0.95, np.mean(values), scipy.stats.sem(values))
    assert found.interval.high - found.interval.low > 1.5 * (normal[1] - normal[0])  # few seeds say little


def test_one_seed_has_no_interval_and_none_is_refused():
    found = seeds_interval([0.4])
    assert (found.interval, found.std, found.seeds) == (Interval(0.4, None, None, 0.95, "one seed"), None, 1)
    same = seeds_interval([0.5, 0.5])
    assert (same.interval.low, same.interval.high, same.std) == (0.5, 0.5, 0.0)
    with pytest.raises(RunError, match="no score"):
        seeds_interval([])


def test_an_end_that_is_not_0_does_not_look_like_it_and_0_has_no_minus():
    def shown(low: float, high: float, spec: str = "+.3f") -> str:
        return f"{Interval(-0.022, low, high, 0.95, 'bca'):{spec}}"

    assert shown(-0.056, -0.0) == "-0.022 [-0.056, +0.000]"
    assert shown(-0.056, -1e-17) == "-0.022 [-0.056, +0.000]"
    assert shown(-0.056, -0.00044) == "-0.022 [-0.056, -0.0004]"
    assert shown(0.00002, 0.0123) == "-0.022 [+0.00002, +0.012]"
    assert shown(-0.0, 0.5, ".3f") == "-0.022 [0.000, 0.500]"
    assert str(Interval(0.1, -0.001, 0.2, 0.95, "bca")) == "0.100 [-0.001, 0.20]"
