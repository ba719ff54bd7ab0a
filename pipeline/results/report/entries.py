"""One task of one run as the report knows it: its kind, its score, and what to call it beside others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.results.intervals import Interval
from pipeline.results.ledger import Run
from pipeline.results.report.predicted import SPLIT, Predicted

Kind = Literal["cached", "lora", "prompt", "baseline"]
KINDS: dict[Kind, str] = {
    "cached": "cached head",
    "lora": "LoRA",
    "prompt": "soft prompt",
    "baseline": "baseline",
}
"""What each kind is called for people."""
BASELINES = ("majority", "tfidf", "random-features", "control", "zero-shot")
"""Heads that others are held against."""
NAMED = {
    "tfidf": "TF-IDF",
    "random-features": "random features",
    "majority": "commonest class",
    "zero-shot": "zero-shot LLM",
}


@dataclass(frozen=True)
class Entry:
    """One task of one run.

    Args:
        run, task: which.
        metric: what decides the task.
        score: that metric on validation with its interval over rows, or None where validation was not predicted.
        predicted: what was predicted there, or None where that is not at hand.
    """

    run: Run
    task: str
    metric: str
    score: Interval | None
    predicted: Predicted | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.run

    @property
    def kind(self) -> Kind:
        """What was trained: a head on cached features, LoRA, a soft prompt; or a baseline."""
        if self.run.adapter is not None:
            return "prompt" if self.run.adapter.get("kind") == "prompt" else "lora"
        return "baseline" if self.run.head in BASELINES else "cached"

    @property
    def estimate(self) -> float:
        """The score, or minus infinity where there is none."""
        return float("-inf") if self.score is None else self.score.estimate

    @property
    def held_out(self) -> float | None:
        """The deciding metric on training rows that were held out."""
        value = self.run.scores.get(self.task, {}).get("held_out", {}).get(self.metric)
        return None if value is None else float(value)

    @property
    def views(self) -> str:
        """The views it looks at; nothing where it looks at none."""
        return str(self.run.config.get("features") or "")

    @property
    def weights(self) -> str:
        """The backbone and its quantisation."""
        of = (self.run.config.get("backbone"), self.run.config.get("quantization"))
        return " ".join(str(each) for each in of if each)

    @property
    def title(self) -> str:
        """What was trained, for people."""
        if self.kind == "prompt":
            return KINDS["prompt"]
        frozen = self.run.selection.get("freeze")
        head = NAMED.get(self.run.head, self.run.head) + ("" if frozen in (None, "none") else f", {frozen} frozen")
        return f"LoRA, {head}" if self.kind == "lora" else head

    def drawn(self, split: str) -> tuple[int, int]:
        """How many rows of a split were drawn for it, and of how many; zeros where none was left out."""
        return self.run.drawn(self.task, split)

    @property
    def trained_on(self) -> str:
        """Of which rows it was trained, for people, where that is a draw of the training rows; else nothing."""
        rows, _ = self.drawn("train")
        if rows:
            return f"{rows:,} rows"
        most = (self.run.config.get("training") or {}).get("max_rows") or 0
        return f"\N{LESS-THAN OR EQUAL TO} {most:,} rows" if most else ""

    @property
    def texts(self) -> str:
        """A digest of the sentences of validation; nothing where the run says none."""
        said = self.run.statistics.get(self.task, {}).get(SPLIT, {}).get("texts")
        return str(said or "")

    @property
    def fingerprints(self) -> list[str]:
        """Of all features that it was trained on or scored on."""
        return [name for names in self.run.features.get(self.task, {}).values() for name in names]

    @property
    def stage_one_seconds(self) -> float | None:
        """What its cached features took, once; 0 of a live run, whose own seconds hold its passes; None if unknown."""
        if self.run.path == "live" or not self.fingerprints:
            return 0.0
        seconds = self.run.costs.get(self.task, {}).get("seconds")
        return None if seconds is None else float(seconds)


def entry_of(run: Run, task: str, metric: str, predicted: Predicted | None) -> Entry:
    """One task of a run, its score as the run has it."""
    value = run.scores.get(task, {}).get(SPLIT, {}).get(metric)
    interval = run.statistics.get(task, {}).get(SPLIT, {}).get("intervals", {}).get(metric)
    score = None if value is None else Interval(float(value), None, None, 0.95, "not said")
    return Entry(run, task, metric, Interval(**interval) if interval else score, predicted)


def on_same_rows(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose predictions are at hand, and of the rows that the first of them predicted."""
    have = [(each, each.predicted.key) for each in entries if each.predicted is not None]
    return [each for each, key in have if key == have[0][1]]


def choose(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The best of each kind of run and head, so many at most, the best first; of each kind its best at least.

    Args:
        entries: that predicted the same rows.
    """
    ranked = sorted((each for each in entries if each.kind != "baseline"), key=lambda each: -each.estimate)
    best: dict[tuple[Kind, str], Entry] = {}
    for each in ranked:
        best.setdefault((each.kind, each.run.head), each)
    firsts: dict[Kind, Entry] = {}
    for each in best.values():
        firsts.setdefault(each.kind, each)
    found = list(firsts.values())
    found += [each for each in best.values() if each not in found][: max(0, most - len(found))]
    return sorted(found, key=lambda each: -each.estimate)


def legend_names(entries: Sequence[Entry]) -> dict[str, str]:
    """A short name for each run, by run: as much as it takes to tell them apart."""
    more: list[Callable[[Entry], str]] = [
        lambda each: str(each.run.config.get("quantization") or ""),
        lambda each: each.views,
        lambda each: f"seed {each.run.seed}",
        lambda each: each.name[-6:],
    ]
    names = {each.name: ", ".join(filter(None, [each.title, each.trained_on])) for each in entries}
    for part in more:
        alike: dict[str, list[Entry]] = {}
        for each in entries:
            alike.setdefault(names[each.name], []).append(each)
        for name, group in alike.items():
            if len({part(each) for each in group}) > 1:  # a word that all of them share tells nobody apart
                names |= {each.name: ", ".join(filter(None, [name, part(each)])) for each in group}
    return names
