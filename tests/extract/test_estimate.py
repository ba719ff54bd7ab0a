"""What is estimated from clusters of rows: right on average, and within its error as often as it says."""

import math

import numpy as np
import pytest

from pipeline.extract.estimate import Estimate, draw_clusters, estimate_ratio
from pipeline.extract.forecast import Sampling, forecast
from pipeline.extract.job import Job
from pipeline.extract.part import Part
from pipeline.views import View
from tests.cache.small_corpus import Corpus

DRAWS = 1000


def lengths(kind, clusters, rows):
    """Tokens of every row, `[clusters, rows]`: what neighbours have in common is much of what rows differ in."""
    random = np.random.default_rng(1)
    place = np.arange(clusters) / clusters
    common = {
        "lumps": random.gamma(4.0, 5.0, clusters),
        "trend": 10 + 40 * place + random.normal(0, 3, clusters),
        "two sources": np.where(place < 0.37, 8.0, 45.0) + random.normal(0, 2, clusters),
    }[kind]
    return np.maximum(1, random.poisson(np.maximum(common, 1.0)[:, None], (clusters, rows)))


def covered(tokens, drawn, error):
    """How often the total lies within an interval, and how wide that is on average, over the total."""
    clusters, truth = len(tokens), tokens.sum()
    hits, widths = 0, 0.0
    for seed in range(DRAWS):
        seen = tokens[draw_clusters(clusters, drawn, seed)]
        value = seen.mean() * tokens.size
        half = error(seen) * tokens.size
        hits += abs(value - truth) <= half
        widths += half / truth / DRAWS
    return hits / DRAWS, widths


@pytest.mark.parametrize("kind", ["lumps", "trend", "two sources"])
@pytest.mark.parametrize("drawn", [4, 16, 64])
def test_the_truth_lies_within_the_error_as_often_as_it_says(kind, drawn):
    tokens = lengths(kind, 1000, 32)

    def by_clusters(seen):
        return estimate_ratio(seen.sum(axis=1), [seen.shape[1]] * drawn, len(tokens)).error

    def as_if_rows_were_drawn(seen):
        return 1.96 * seen.std(ddof=1) / math.sqrt(seen.size)

    share, width = covered(tokens, drawn, by_clusters)
    assert share >= 0.93
    if kind == "lumps":
        assert share <= 0.985  # and it is not so wide that it says nothing
        assert covered(tokens, drawn, as_if_rows_were_drawn)[0] < 0.6
    elif drawn == 64:

        def as_if_drawn_anywhere(seen):
            return 2.0 * seen.mean(axis=1).std(ddof=1) / math.sqrt(drawn)

        assert width < 0.6 * covered(tokens, drawn, as_if_drawn_anywhere)[1]


def test_every_row_is_as_likely_to_be_drawn_and_all_are_where_all_are_asked_for():
    drawn = np.concatenate([draw_clusters(30, 7, seed) for seed in range(3000)])
    shares = np.bincount(drawn, minlength=30) / 3000
    assert len(shares) == 30
    assert np.abs(shares - 7 / 30).max() < 0.05
    assert draw_clusters(30, 30, 0).tolist() == list(range(30))
    assert (np.diff(draw_clusters(1000, 64, 5)) > 0).all()
    assert draw_clusters(1000, 64, 5).tolist() != draw_clusters(1000, 64, 6).tolist()


def test_all_clusters_leave_no_error():
    assert estimate_ratio([6, 8, 1], [2, 4, 4], 3) == Estimate(1.5)
    assert estimate_ratio([6, 8, 1], [2, 4, 4], 4).error > 0


def test_errors_add_as_what_they_are_of_does():
    one, other = Estimate(10.0, 3.0), Estimate(20.0, 4.0)
    assert one + other == Estimate(30.0, 5.0)
    assert one.along(other) == Estimate(30.0, 7.0)
    assert one.times(2) == Estimate(20.0, 6.0)
    assert one.times_estimate(Estimate(2.0)) == Estimate(20.0, 6.0)
    assert one.times_estimate(other) == Estimate(200.0, math.hypot(60.0, 40.0))


class MadeTokens:
    """Token ids of `n` rows: all begin alike, neighbours begin more alike, and rows grow longer to the end."""

    def __init__(self, rows):
        from pipeline.backbone.tokens import TokenRows

        random = np.random.default_rng(7)
        ids, start = [], 5
        for row in range(rows):
            lump = random.integers(0, 4) + row // 16 * 4
            more = 3 + 6 * row // rows + int(random.poisson(2 + lump % 5))
            ids.append(np.concatenate((np.arange(start), [100 + lump, 101 + lump], random.integers(9, 40, more))))
        lengths = np.array([len(row) for row in ids])
        self.tokens = TokenRows(
            ids=np.concatenate(ids).astype(np.int32),
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            start=np.full(rows, start),
            stop=lengths,
            truncated_rows=np.zeros(rows, dtype=bool),
        )

    def part(self, rows):
        class Examples:
            texts = ("x",) * len(rows)

        return Part(rows, Examples, self.tokens.take(rows))


def test_a_forecast_covers_what_is_counted_as_often_as_it_says(tmp_path):
    rows, shard_rows, seeds = 4000, 100, 60
    writer = Corpus(rows=rows, shard_rows=shard_rows, facts={"token_budget": 256}).writer(tmp_path)
    job = Job(None, (writer,), (View(2, "tokens"),))
    part_of, todo = MadeTokens(rows).part, job.unsealed()
    assert len(todo) == 40
    truth = forecast(job, part_of, todo, share=True)
    assert (truth.looked_at, truth.tokens.error) == (rows, 0)
    hits = {"tokens": 0, "own_tokens": 0, "computed_tokens": 0}
    errors = dict.fromkeys(hits, 0.0)
    for seed in range(seeds):
        sampling = Sampling(counted_rows=500, blocks=20, block_rows=16, planned_rows=600, seed=seed)
        found = forecast(job, part_of, todo, share=True, sampling=sampling)
        for name in hits:
            estimate, true = getattr(found, name), getattr(truth, name)
            hits[name] += abs(estimate.value - true.value) <= estimate.error
            errors[name] += estimate.error / true.value / seeds
    assert all(count >= 0.9 * seeds for count in hits.values()), hits
    assert all(0 < each < 0.15 for each in errors.values()), errors
    alone = forecast(job, part_of, todo, share=False)
    assert alone.computed_tokens.value > truth.tokens.value > truth.computed_tokens.value
