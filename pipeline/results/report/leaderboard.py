"""The leaderboard of a corpus: every run, how sure its score is, and whether the best is better than chance says."""

from dataclasses import dataclass

from pipeline.results.paired import PairedDifference, paired_bootstrap
from pipeline.results.report.corpora import Corpus
from pipeline.results.report.entries import Entry


@dataclass(frozen=True)
class Place:
    """A line of the leaderboard.

    Args:
        entry: whose.
        rank: from 1, by the score on validation; None where that is of other rows, or there is none.
        less_than_best: how much less it scores than the best on the same rows; None where that cannot be said.
        rivals: where it is the best on held-out rows of several runs that held out the same ones, how many these are.
    """

    entry: Entry
    rank: int | None
    less_than_best: PairedDifference | None
    rivals: int

    @property
    def is_selected(self) -> bool:
        """Whether held-out training rows select it, without a look at validation."""
        return self.rivals > 0

    @property
    def is_tied(self) -> bool:
        """Whether the 95 % interval of the difference from the best holds 0."""
        difference = None if self.less_than_best is None else self.less_than_best.difference
        return difference is not None and (difference.high is None or difference.high >= 0)


def leaderboard_of(corpus: Corpus) -> list[Place]:
    """Every run of a corpus, the best on validation first, then those that predicted other rows."""
    best = corpus.best
    peers = {each.name for each in corpus.peers}
    selected = _selected(corpus)
    found: list[Place] = []
    for entry in sorted(corpus.entries, key=lambda each: (each.name not in peers, -each.estimate)):
        is_ranked = entry.name in peers and entry.score is not None
        rank = 1 + sum(place.rank is not None for place in found) if is_ranked else None
        found.append(Place(entry, rank, _difference(corpus, best, entry), selected.get(entry.name, 0)))
    return found


def _difference(corpus: Corpus, best: Entry, entry: Entry) -> PairedDifference | None:
    mine, other = best.predicted, entry.predicted
    if entry.name == best.name or mine is None or other is None or mine.key != other.key:
        return None
    return paired_bootstrap(corpus.metric, mine.y, mine.predictions, other.predictions)


def _selected(corpus: Corpus) -> dict[str, int]:
    """Of every set of held-out rows that several runs share, the run that did best there, and how many they are."""
    groups: dict[str, list[Entry]] = {}
    for entry in corpus.peers:
        rows = entry.run.statistics.get(corpus.task, {}).get("held_out", {}).get("texts")
        if rows and entry.held_out is not None:
            groups.setdefault(rows, []).append(entry)
    several = [group for group in groups.values() if len(group) > 1]
    return {max(group, key=lambda e: e.held_out or 0.0).name: len(group) for group in several}
