"""A run that predicts: one interface for heads on cached features and for what was trained through the backbone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.config import LedgerConfig
from pipeline.errors import ConfigError, SentenceError
from pipeline.predict_config import PredictConfig
from pipeline.predicting.answers import Answers
from pipeline.predicting.cached_run import CachedRun
from pipeline.predicting.sentences import AT_ONCE, Sentences, arriving, several
from pipeline.results.ledger import RECORD, Run, find_run, read_run
from pipeline.terminal import missing_package

if TYPE_CHECKING:
    from pipeline.adapters.loading import LiveRun


class Loaded(Protocol):
    """A run in memory."""

    @property
    def run(self) -> Run:
        """Its record."""

    def labels(self, task: str) -> tuple[str, ...]:
        """The names of a task's classes, by their numbers."""

    def answer(self, task: str, sentences: Sentences, advance: Callable[[int], None]) -> Answers:
        """Predict sentences; `advance` is told of them as they are done."""


@dataclass(frozen=True)
class _Live:
    """A run of the live path as one of `Loaded`."""

    live: "LiveRun"

    @property
    def run(self) -> Run:
        return self.live.run

    def labels(self, task: str) -> tuple[str, ...]:
        return tuple(self.run.config["labels"][task])

    def answer(self, task: str, sentences: Sentences, advance: Callable[[int], None]) -> Answers:
        probabilities = self.live.predict_proba(task, sentences.texts, sentences.lines, sentences.origin)
        advance(len(sentences))
        return Answers(self.labels(task), probabilities.argmax(axis=1), probabilities)


class Predictor(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A trained run that takes sentences, with scikit-learn's manners; made by `load_predictor`.

    It is fitted: `fit` trains nothing, and `sklearn.base.clone` gives it back as it is, as it does a `FrozenEstimator`.
    So scikit-learn's scorers, `cross_val_predict` or a `VotingClassifier` take it where sentences are the samples.

    Args:
        loaded: the run in memory.
        task: which of its tasks is predicted where none is named; None where a call must name one.
    """

    def __init__(self, loaded: Loaded, task: str | None) -> None:
        self.loaded = loaded
        self.task = task

    @property
    def run(self) -> Run:
        """The run's record."""
        return self.loaded.run

    @property
    def classes_(self) -> np.ndarray:
        """`[c]` labels of the task, sorted, as scikit-learn's tools need them: the columns of `predict_proba`."""
        if self.task is None:
            raise AttributeError(f"classes_ of a predictor of several tasks: {', '.join(self.run.tasks)}")
        return np.asarray(np.unique(self.loaded.labels(self.task)))

    def answer(
        self,
        sentences: Iterable[str] | Sentences,
        task: str | None = None,
        advance: Callable[[int], None] = lambda sentences: None,
    ) -> Answers:
        """Predict sentences, by the numbers of their classes.

        Args:
            sentences: `n`; any number of them.
            task: which of the run's tasks; by default the predictor's.
            advance: told of sentences as they are done.

        Raises:
            ConfigError: the run is of other tasks, or of several and none is named.
            SentenceError: a sentence is missing or empty, no text, or too long; its place is named.
        """
        task = self._task(task)
        there = sentences if isinstance(sentences, Sentences) else Sentences.of(sentences)
        parts = [self.loaded.answer(task, part, advance) for part in there.parts(AT_ONCE)]
        labels = self.loaded.labels(task)
        if not parts:
            return Answers(labels, np.empty(0, dtype=np.int64), np.empty((0, len(labels))))
        predictions, probabilities = ([getattr(p, name) for p in parts] for name in ("predictions", "probabilities"))
        return Answers(labels, np.concatenate(predictions), np.concatenate(probabilities))

    def predict_proba(self, texts: Iterable[str], task: str | None = None) -> np.ndarray:
        """Probabilities `[n, c]` float64 of sentences, a column for each of the task's labels, which stand sorted.

        Args, raises: as `answer`, whose probabilities stand by the classes' numbers instead.
        """
        answers = self.answer(texts, task)
        return np.asarray(answers.probabilities[:, np.argsort(answers.labels)])

    def predict(self, texts: Iterable[str], task: str | None = None) -> np.ndarray:
        """Labels `[n]` of sentences. Args, raises: as `answer`."""
        answers = self.answer(texts, task)
        return np.asarray(np.asarray(answers.labels)[answers.predictions])

    def stream(self, texts: Iterable[str], task: str | None = None) -> Iterator[dict[str, Any]]:
        """Predict sentences as they come, each as soon as it is there; those that wait are computed together.

        Args:
            texts: taken in a thread of its own, a few thousand ahead at most.
            task: as in `answer`.

        Yields:
            `sentence`, `label`, `prediction` and `probabilities`, as `Answers.records` has them.

        Raises:
            ConfigError, SentenceError: as `answer`, after all sentences before the one that is at fault.
        """
        for records in self.stream_together(texts, task):
            yield from records

    def stream_together(
        self,
        texts: Iterable[str],
        task: str | None = None,
        origin: str = "the sentences",
        *,
        blank_too: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """As `stream`, those together that are computed together.

        Args:
            origin: where they come from, for errors.
            blank_too: answer an empty text with a record of nothing, instead of refusing it.
        """
        task, done = self._task(task), 0
        for together in arriving(several(texts)):
            lines = range(done + 1, done + len(together) + 1)
            yield from self.until_fault(together, lines, origin, task, blank_too=blank_too)
            done += len(together)

    def until_fault(
        self,
        texts: Sequence[str],
        lines: Sequence[int],
        origin: str,
        task: str | None = None,
        *,
        blank_too: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """Records of sentences together; where one cannot be used, of those before it.

        Args:
            lines: `[n]` where each stands, from 1, in order.
            task, origin, blank_too: as of `stream_together`.

        Raises:
            SentenceError: of the one that cannot be used, when those before it are given.
        """
        whole, fault = len(texts), None
        while whole:
            try:
                records = self._records(texts[:whole], lines[:whole], self._task(task), origin, blank_too)
            except SentenceError as error:  # the first at fault of its kind: another may be before it
                fault, whole = error, lines.index(error.line)
            else:
                yield records
                break
        if fault is not None:
            raise fault

    def _records(
        self, texts: Sequence[str], lines: Sequence[int], task: str, origin: str, blank_too: bool
    ) -> list[dict[str, Any]]:
        filled = [place for place, text in enumerate(texts) if not (blank_too and text.strip() == "")]
        sentences = Sentences.of([texts[place] for place in filled], [lines[place] for place in filled], origin)
        found: list[dict[str, Any]] = [
            {"sentence": "", "label": None, "prediction": None, "probabilities": None} for _ in texts
        ]
        for place, record in zip(filled, self.answer(sentences, task).records(sentences.texts), strict=True):
            found[place] = record
        return found

    def fit(self, texts: Any = None, y: Any = None) -> Self:
        """Do nothing: what was trained stays as it is."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return self

    def _task(self, task: str | None) -> str:
        return only_task(self.run, task or self.task)


def only_task(run: Run, task: str | None) -> str:
    """The task, if the run is of it; of a run of one task, that one where none is named.

    Raises:
        ConfigError: the run is of other tasks, or of several and none is named.
    """
    there = " | ".join(run.tasks)
    if task is None and len(run.tasks) > 1:
        raise ConfigError(
            "this run is of several tasks", where="task", expected=there, found="none", remedy="name one with --task"
        )
    if task is not None and task not in run.tasks:
        raise ConfigError("this run is of another task", where="task", expected=there, found=task)
    return task or run.tasks[0]


def folder_of(run: str | Path, runs_dir: Path) -> Path:
    """A run's folder, wherever it is; or that of the run so called, or whose name begins so, among others.

    Raises:
        RunError: there is none, or there are several.
    """
    return Path(run) if (Path(run) / RECORD).is_file() else find_run(runs_dir, str(run))


def load_predictor(
    run: str | Path,
    *,
    task: str | None = None,
    runs_dir: str | Path | None = None,
    models_dir: str | Path | None = None,
    device: str = "auto",
    backbone: str | None = None,
    adapter: str | Path | None = None,
    cache_dir: str | Path | None = None,
    truncation: bool = False,
) -> Predictor:
    """Load a run, once, to predict any number of sentences.

    Args:
        run: the run's folder; or its name or the beginning of it, in `runs_dir`.
        task: the only task to load, of a run of several.
        runs_dir: the folder of all runs; by default data/runs.
        models_dir, device, backbone, adapter, cache_dir, truncation: as in `PredictConfig`; models are in
            data/models by default.

    Raises:
        RunError: there is no such run, it has nothing to say of new sentences, or its record is damaged.
        ConfigError: it is of other tasks.
        BackboneError: its backbone is not here, or it is another one.
        HeadError, AdapterError: what was trained cannot be read.
        MissingPackage: a package of stage one or of the live path is not installed.
    """
    folder = folder_of(run, LedgerConfig().runs_dir if runs_dir is None else Path(runs_dir))
    places = {"models_dir": models_dir, "adapter": adapter, "cache_dir": cache_dir}
    paths = {name: Path(place) for name, place in places.items() if place is not None}
    record, asked = read_run(folder), PredictConfig(device=device, backbone=backbone, truncation=truncation, **paths)
    tasks = record.tasks if task is None else (only_task(record, task),)
    return Predictor(_load(folder, record, tasks, asked), tasks[0] if len(tasks) == 1 else None)


def _load(folder: Path, run: Run, tasks: Sequence[str], asked: PredictConfig) -> Loaded:
    if run.path != "live":
        return CachedRun.load(folder, run, tasks, asked)
    given: Mapping[str, Any] = {"adapter": asked.adapter, "cache_dir": asked.cache_dir}
    if useless := [name for name, value in given.items() if value is not None]:
        raise ConfigError(
            "a run of the live path has its adapter in its own folder and reads no cache",
            where=", ".join(useless),
            found=", ".join(str(given[name]) for name in useless),
            remedy="leave it out",
        )
    try:
        from pipeline.adapters.loading import LiveRun
    except ModuleNotFoundError as error:
        raise missing_package(error, "adapters") from error
    return _Live(
        LiveRun.load(
            folder,
            models_dir=asked.models_dir,
            device=asked.device,
            backbone=asked.backbone,
            truncation=asked.truncation,
        )
    )
