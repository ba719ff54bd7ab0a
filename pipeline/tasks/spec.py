"""A task: its classes, the prompt around its sentences, its score, and the views that suit it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from pipeline.errors import ConfigError, did_you_mean
from pipeline.views import View

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Metric = Literal["mcc", "accuracy", "f1"]
SLOT = "{}"


@dataclass(frozen=True)
class GlueLayout:
    """How GLUE's folder lays out one task.

    Args:
        folder: the folder's name inside the GLUE folder.
        columns: the fields of `train.tsv` and `dev.tsv`, in order.
        header: whether these two files begin with a line of column names.
        hub_config: the configuration's name in `nyu-mll/glue`.
    """

    folder: str
    columns: tuple[str, ...]
    header: bool
    hub_config: str


@dataclass(frozen=True)
class TaskSpec:
    """A single-sentence classification task.

    Args:
        name: lower case; the folder of its features in the cache.
        labels: the classes' names, in the order of their numbers.
        prompt: the text around a sentence, with `{}` where the sentence goes, once.
        metric: the score that decides.
        views: what stage one keeps unless told otherwise; a float layer is a share of the backbone's depth.
        head_view: the view, or the views side by side, that heads train on unless told otherwise.
        text_column: the column of the sentences in CSV, TSV, Parquet and JSON-lines files.
        label_column: the column of the labels there: class names, or their numbers.
        glue: where the task lies in GLUE, if it is one of GLUE's.
        answer_prompt: the text around a sentence after which a label word comes, with `{}` in the sentence's place; by
            default the prompt, and `Answer:` on a line of its own.
        label_words: what a language model would say for each class, in the order of the labels; by default these.
        init_text: what virtual tokens before the answer prompt begin as; by default "Classify the sentence as ... or
            ..." with the label words.
    """

    name: str
    labels: tuple[str, ...]
    prompt: str
    metric: Metric = "accuracy"
    views: tuple[View, ...] = (View(0.65, "mean"), View(-1, "last"))
    head_view: tuple[View, ...] = (View(0.65, "mean"),)
    text_column: str = "sentence"
    label_column: str = "label"
    glue: GlueLayout | None = None
    answer_prompt: str = ""
    label_words: tuple[str, ...] = ()
    init_text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "answer_prompt", self.answer_prompt or f"{self.prompt}\nAnswer:")
        object.__setattr__(self, "label_words", self.label_words or self.labels)
        where = f"task {self.name!r}"
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum() or self.name != self.name.lower():
            raise ConfigError(
                "a task's name is not usable",
                where=where,
                expected="lower-case letters, digits, - and _",
                found=repr(self.name),
            )
        check_prompt(self.prompt, where)
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(
                "a task needs two or more distinct labels", where=f"{where}, field labels", found=list(self.labels)
            )
        check_prompt(self.answer_prompt, where, "answer_prompt")
        if len(self.label_words) != len(self.labels) or len(set(self.label_words)) != len(self.labels):
            raise ConfigError(
                "a task needs one label word a label, each another one",
                where=f"{where}, field label_words",
                expected=f"{len(self.labels)} words",
                found=list(self.label_words),
            )
        if any(label.isdigit() and label != str(number) for number, label in enumerate(self.labels)):
            raise ConfigError(
                "a label's name is another label's number",
                where=f"{where}, field labels",
                expected="names, or the numbers 0, 1, 2 … in order",
                found=list(self.labels),
            )
        if self.metric not in get_args(Metric):
            raise ConfigError(
                "no such metric",
                where=f"{where}, field metric",
                expected=" | ".join(get_args(Metric)),
                found=self.metric,
            )
        if not self.views:
            raise ConfigError("a task needs at least one view", where=f"{where}, field views")
        if not self.head_view or not set(self.head_view) <= set(self.views):
            raise ConfigError(
                "the heads' view is not among the views that stage one keeps",
                where=f"{where}, field head_view",
                expected=" | ".join(map(str, self.views)),
                found=", ".join(map(str, self.head_view)) or "none",
            )


def virtual_text(task: TaskSpec) -> str:
    """What a task's virtual tokens begin as, unless told otherwise."""
    *words, word = task.label_words
    return task.init_text or f"Classify the sentence as {', '.join(words)} or {word}."


def check_prompt(prompt: str, where: str, field: str = "prompt") -> str:
    """The prompt itself, if the sentence's slot stands in it exactly once.

    Raises:
        ConfigError: it does not.
    """
    if prompt.count(SLOT) != 1:
        raise ConfigError(
            "a prompt must hold the sentence's slot {} exactly once",
            where=f"{where}, field {field}",
            expected="a text such as 'Sentence: {}'",
            found=repr(prompt),
        )
    return prompt


_JUDGED = (
    "Correct: The children have eaten the cake.\n"
    "Incorrect: The children has eat cake the.\n"
    "Correct: Who did you say that he met?\n"
    "Incorrect: Who did you wonder whether that met him?\n"
)
COLA = TaskSpec(
    name="cola",
    labels=("unacceptable", "acceptable"),
    prompt=f"{_JUDGED}Is the next one correct or incorrect?\nSentence: {{}}",
    metric="mcc",
    views=(View(0.53, "mean"), View(0.67, "mean"), View(0.8, "mean"), View(-1, "mean"), View(-1, "last")),
    head_view=(View(0.53, "mean"), View(0.67, "mean"), View(0.8, "mean")),
    answer_prompt="Sentence: {} This sentence is",
    label_words=("incorrect", "correct"),
    init_text=_JUDGED,
    glue=GlueLayout("CoLA", ("source", "label", "mark", "sentence"), header=False, hub_config="cola"),
)
SST2 = TaskSpec(
    name="sst2",
    labels=("negative", "positive"),
    prompt="Review: a moving and beautifully acted film\n"
    "Sentiment: positive\n"
    "Review: dull , lifeless and far too long\n"
    "Sentiment: negative\n"
    "Review: not once does it put a foot wrong\n"
    "Sentiment: positive\n"
    "Review: the jokes , such as they are , fall flat\n"
    "Sentiment: negative\n"
    "Review: {}",
    metric="accuracy",
    views=(View(0.5, "mean"), View(0.67, "mean"), View(0.67, "last"), View(-1, "mean"), View(-1, "last")),
    head_view=(View(0.5, "mean"), View(0.67, "mean"), View(0.67, "last")),
    answer_prompt="Review: a moving and beautifully acted film\n"
    "Sentiment: positive\n"
    "Review: dull , lifeless and far too long\n"
    "Sentiment: negative\n"
    "Review: {}\n"
    "Sentiment:",
    glue=GlueLayout("SST-2", ("sentence", "label"), header=True, hub_config="sst2"),
)
BUILT_IN: Mapping[str, TaskSpec] = {task.name: task for task in (COLA, SST2)}


def read_task_file(path: Path) -> TaskSpec:
    """Read a `TaskSpec` from a TOML file with one key a field; views are written `L0.65-mean`.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds wrong, missing or unknown fields.
    """
    try:
        record = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("the task file cannot be read", where=path, found=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the task file is not TOML", where=path, found=error) from error
    known = {field.name for field in fields(TaskSpec)} - {"glue"}
    needed = {"name", "labels", "prompt"}
    if set(record) - known or needed - set(record):
        raise ConfigError(
            "the task file's fields are wrong",
            where=path,
            expected=f"{', '.join(sorted(needed))}; and if wanted {', '.join(sorted(known - needed))}",
            found=", ".join(sorted(record)) or "none",
        )
    for name, value in record.items():
        is_list = name in ("labels", "views", "head_view", "label_words")
        items = value if is_list and isinstance(value, list) else [value]
        if is_list != isinstance(value, list) or not all(isinstance(item, str) for item in items):
            raise ConfigError(
                "a field of the task file has the wrong type",
                where=f"{path}, field {name}",
                expected="a list of strings" if is_list else "a string",
                found=repr(value),
            )
    for name in ("views", "head_view"):
        if name in record:
            record[name] = tuple(View.parse(text) for text in record[name])
    if "views" in record:
        record.setdefault("head_view", record["views"][:1])
    for name in ("labels", "label_words"):
        if name in record:
            record[name] = tuple(record[name])
    return TaskSpec(**record)


def find_tasks(names: tuple[str, ...], task_files: tuple[Path, ...] = ()) -> list[TaskSpec]:
    """The tasks called `names`, built in or read from `task_files`, in that order.

    Raises:
        ConfigError: a task is unknown, or named twice.
    """
    known = {**BUILT_IN}
    for task in map(read_task_file, task_files):
        if task.name in known:
            raise ConfigError("two tasks have one name", where="task file", found=task.name)
        known[task.name] = task
    if unknown := [name for name in names if name not in known]:
        question = did_you_mean(unknown[0].lower(), known, cutoff=0.5)
        meant = f"{question} Else " if question else ""
        raise ConfigError(
            "no such task",
            expected=" | ".join(known),
            found=", ".join(unknown),
            remedy=f"{meant}name one of these, or describe your own in a TOML file and pass it with --task-files",
        )
    if len(set(names)) != len(names) or not names:
        raise ConfigError("name each task once", where="tasks", found=" ".join(names) or "none")
    return [known[name] for name in names]
