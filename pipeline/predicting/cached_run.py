"""A run of the cached path taken up again: its heads, and if they read features the backbone that gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads.store import load_head
from pipeline.heads.text_head import text_column
from pipeline.heads.token_rows import TokenRows
from pipeline.predict_config import PredictConfig
from pipeline.predicting.answers import Answers
from pipeline.predicting.needs import Needs, needs_of
from pipeline.predicting.sentences import Sentences
from pipeline.progress import say
from pipeline.results.baselines_table import TFIDF
from pipeline.results.ledger import Run
from pipeline.results.scored import over_labels
from pipeline.terminal import missing_package

if TYPE_CHECKING:
    from pipeline.predicting.features import TextFeatures

OF_A_BACKBONE = ("device", "backbone", "adapter", "truncation")
"""Settings of what computes features."""


@dataclass(frozen=True)
class CachedRun:
    """Heads with what they read.

    Args:
        run: the record.
        needs: by task.
        heads: by task.
        features: computes what they read, or None where they read none.
    """

    run: Run
    needs: Mapping[str, Needs]
    heads: Mapping[str, Any]
    features: "TextFeatures | None"

    @classmethod
    def load(cls, folder: Path, run: Run, tasks: Sequence[str], asked: PredictConfig) -> "CachedRun":
        """Load the heads of some of a run's tasks, and the backbone of their features.

        Raises:
            RunError, HeadError, BackboneError: as `needs_of`, `load_head` and `TextFeatures.open`.
            MissingPackage: the packages of stage one are not installed, and the head reads features.
        """
        needs = {task: needs_of(folder, run, task, asked.cache_dir) for task in tasks}
        heads = {task: load_head(folder, task) for task in tasks}
        views = [view for of_task in needs.values() for view in of_task.views]
        if not views:
            if idle := [name for name in OF_A_BACKBONE if getattr(asked, name) != getattr(PredictConfig(), name)]:
                say(f"{', '.join(idle)}: without effect, for {run.head} needs no backbone")
            return cls(run, needs, heads, None)
        try:
            from pipeline.predicting.features import TextFeatures
        except ModuleNotFoundError as error:
            raise missing_package(error, "extract") from error
        return cls(run, needs, heads, TextFeatures.open(folder, str(run.config["backbone"]), views, asked))

    def labels(self, task: str) -> tuple[str, ...]:
        """The classes' names, by their numbers."""
        return self.needs[task].labels

    def answer(self, task: str, sentences: Sentences, advance: Callable[[int], None]) -> Answers:
        """Predict sentences, as the head would if stage one had written their features and it had read them.

        Args:
            advance: told of sentences as they are done.
        """
        head, X = self.heads[task], self._read(task, sentences, advance)
        probabilities = over_labels(head.predict_proba(X), head.classes_, len(self.labels(task)))
        return Answers(self.labels(task), np.asarray(head.predict(X), dtype=np.int64), probabilities)

    def _read(self, task: str, sentences: Sentences, advance: Callable[[int], None]) -> Any:
        if self.features is None:
            advance(len(sentences))
            if self.run.head == TFIDF:
                return text_column(sentences.texts)
            return np.zeros((len(sentences), self.heads[task].n_features_in_))  # the commonest class: it does not look
        views = self.needs[task].views
        parts = self.features.read(views, sentences, advance)
        if views[0].pooling == "tokens":
            return TokenRows(parts[0])
        return np.concatenate(parts, axis=1)
