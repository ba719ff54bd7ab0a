"""What sharing gained or cost: a mean over seeds of differences on the same rows, with an interval over rows."""

import io

import numpy as np
import pytest
from rich.console import Console

from pipeline.errors import ConfigError, RunError
from pipeline.results.intervals import Interval, seeds_interval
from pipeline.results.metrics import score
from pipeline.results.paired import paired_bootstrap
from pipeline.results.sharing import Sharing, difference_over_seeds, sharing_table


def predictions(random, y, share, seeds):
    wrong = random.random((seeds, len(y))) < share
    return np.where(wrong, 1 - y, y)


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.mark.parametrize("metric", ["mcc", "accuracy", "f1"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_predictions_differ_by_nothing(random, metric, seeds):
    y = random.integers(0, 2, 200)
    a = predictions(random, y, 0.2, seeds)
    found = difference_over_seeds(metric, y, a, a)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("metric", ["mcc", "accuracy", "f1"])
def test_with_one_seed_it_is_the_paired_bootstrap(random, metric):
    y = random.integers(0, 2, 300)
    a, b = predictions(random, y, 0.3, 1), predictions(random, y, 0.2, 1)
    assert difference_over_seeds(metric, y, a, b) == paired_bootstrap(metric, y, a[0], b[0]).difference


def test_several_seeds_are_averaged_and_their_order_does_not_matter(random):
    y = random.integers(0, 3, 400)
    a, b = (np.where(random.random((4, 400)) < share, random.integers(0, 3, (4, 400)), y) for share in (0.4, 0.3))
    found = difference_over_seeds("mcc", y, a, b)
    expected = np.mean([score(y, p)["mcc"] for p in b]) - np.mean([score(y, p)["mcc"] for p in a])
    assert found.estimate == pytest.approx(expected)
    assert found.low < expected < found.high
    other = difference_over_seeds("mcc", y, a, b[::-1])
    assert other.estimate == pytest.approx(found.estimate)
    assert (other.low, other.high) == pytest.approx((found.low, found.high), abs=0.01)
    back = difference_over_seeds("mcc", y, b, a)
    assert back.estimate == pytest.approx(-found.estimate)


def test_the_interval_is_that_of_resampled_rows(random):
    y = random.integers(0, 2, 150)
    a, b = predictions(random, y, 0.35, 3), predictions(random, y, 0.25, 3)
    found = difference_over_seeds("accuracy", y, a, b)
    gains = ((b == y).mean(axis=0) - (a == y).mean(axis=0))[random.integers(0, 150, (5000, 150))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gains, (0.025, 0.975))), abs=0.012)
    wider = [difference_over_seeds("accuracy", y, a[[place]], b[[place]]) for place in range(3)]
    assert found.high - found.low < min(each.high - each.low for each in wider)  # averaging takes chance away


def test_what_cannot_be_compared(random):
    y = random.integers(0, 2, 50)
    a = predictions(random, y, 0.2, 2)
    with pytest.raises(RunError, match="do not go with the rows"):
        difference_over_seeds("mcc", y, a, a[:, :-1])
    with pytest.raises(RunError, match="as many trainings"):
        difference_over_seeds("mcc", y, a, a[:1])
    with pytest.raises(ConfigError, match="no metric of predicted classes"):
        difference_over_seeds("auroc", y, a, a)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_table_says_over_what_each_interval_is(seeds):
    scores = [seeds_interval([0.3, 0.4, 0.5][:seeds])] * 2
    gain = Interval(0.1, -0.0, 0.2, 0.95, "bca")
    found = Sharing("cola", "mcc", "none", 9, tuple(range(seeds)), (), (), *scores, gain)
    console = Console(width=120, file=io.StringIO())
    console.print(sharing_table([found]))
    said = console.file.getvalue()
    assert "against separate [95 % over rows]" in said
    assert "+0.100 [+0.000, +0.200]" in said
    assert ("score [95 % over seeds]" in said) == (seeds == 3)
