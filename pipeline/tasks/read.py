"""The one way to a task's examples: GLUE folder, Hub, own files or the sample. Nothing falls back in silence."""

from pathlib import Path

from pipeline.config import SOURCES, DataConfig
from pipeline.errors import ConfigError, DataError, MissingSplit, did_you_mean
from pipeline.tasks import hub
from pipeline.tasks.examples import Examples, parse_examples
from pipeline.tasks.glue import glue_file, read_glue
from pipeline.tasks.spec import SPLITS, GlueLayout, Split, TaskSpec
from pipeline.tasks.tables import SUFFIXES, read_table

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev"),
    "test": ("test",),
}
THREE_WAYS = (
    "make data (fetches GLUE from the Hub into data/glue) | GLUE_DIR=<folder> (a GLUE folder that you have) | "
    "DATA=sample (the small corpora that come with this project) or DATA=<folder> (your own files)"
)


def read_task(task: TaskSpec, data: DataConfig, splits: tuple[Split, ...] | None = None) -> dict[Split, Examples]:
    """Read a task's splits from the source that `data` names.

    Args:
        splits: the wanted splits; None reads train and validation, and test where the source has one.

    Raises:
        ConfigError: the source does not know the task.
        DataError: a file is missing, malformed, or disagrees with another one.
    """
    wanted = splits or SPLITS
    found = {split: examples for split in wanted if (examples := _read_split(task, data, split)) is not None}
    needed = splits or ("train", "validation")
    if missing := [split for split in needed if split not in found]:
        raise _missing(task, data, missing)
    for split in ("train", "validation"):
        if split in found and found[split].labels is None:
            raise DataError(
                "the files of one task disagree: this split has no labels",
                where=found[split].origin,
                expected=f"a column {task.label_column!r}, as in every {split} split",
            )
    return found


def _read_split(task: TaskSpec, data: DataConfig, split: Split) -> Examples | None:
    match data.source:
        case "glue":
            layout = _layout(task, "glue")
            there = glue_file(data.glue_dir, layout, split).exists()
            return read_glue(data.glue_dir, task, layout, split, "glue") if there else None
        case "sample":
            layout = _layout(task, "sample")
            there = glue_file(data.sample_dir, layout, split).exists()
            return read_glue(data.sample_dir, task, layout, split, "sample") if there else None
        case "hub":
            layout = _layout(task, "hub")
            return hub.read_hub(task, layout, split, repository=data.hub_dataset, revision=data.hub_revision)
        case _:
            return _read_files(task, data, split)


def _layout(task: TaskSpec, source: str) -> GlueLayout:
    if task.glue is None:
        raise ConfigError(
            f"the source {source!r} does not have this task",
            where=f"task {task.name!r}",
            remedy="DATA=<folder> reads train, validation and test from CSV, TSV, Parquet or JSON-lines files",
        )
    return task.glue


def _read_files(task: TaskSpec, data: DataConfig, split: Split) -> Examples | None:
    folder = Path(data.data)
    if not folder.is_dir():
        raise DataError(
            "no such source of data",
            where="data",
            expected="glue | hub | sample | a folder",
            found=f"{data.data}, which is {'a file' if folder.is_file() else 'no folder that exists'}",
            remedy=did_you_mean(data.data, SOURCES) or "name a source, or the folder of your own files",
        )
    folder = folder / task.name if (folder / task.name).is_dir() else folder
    paths = [
        path for name in SPLIT_NAMES[split] for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()
    ]
    if len(paths) > 1:
        raise DataError(
            "two files disagree: both claim to be one split",
            where=folder,
            expected=f"one file for the split {split!r}",
            found=", ".join(path.name for path in paths),
            remedy="remove or rename all but one",
        )
    if not paths:
        return None
    table = read_table(paths[0])
    text_column = data.text_column or task.text_column
    label_column = data.label_column or task.label_column
    texts = table.column(text_column)
    labelled = label_column in table.columns or split != "test"
    labels = table.column(label_column) if labelled else None
    if split == "test" and labels is not None and all(label in (-1, "-1", None, "") for label in labels):
        labels = None
    return parse_examples(
        task, split, texts=texts, labels=labels, lines=table.lines, path=paths[0], origin=f"files: {paths[0]}"
    )


def _missing(task: TaskSpec, data: DataConfig, missing: list[Split]) -> MissingSplit:
    match data.source:
        case "glue":
            layout = _layout(task, "glue")
            where = ", ".join(str(glue_file(data.glue_dir, layout, split)) for split in missing)
            return MissingSplit(
                f"GLUE's {layout.folder} is not there",
                where=where,
                found="no such file" if data.glue_dir.is_dir() else f"no folder {data.glue_dir}",
                remedy=THREE_WAYS,
            )
        case "files":
            expected = " or ".join(
                f"{name}.{{csv,tsv,parquet,jsonl}}" for split in missing for name in SPLIT_NAMES[split]
            )
            return MissingSplit(
                "a split is not there",
                where=f"{data.data} (or its folder {task.name}/)",
                expected=expected,
                found="no such file",
            )
        case "sample":
            layout = _layout(task, "sample")
            where = ", ".join(str(glue_file(data.sample_dir, layout, split)) for split in missing)
            remedy = "run this in the project's folder, or name its data/sample with --sample-dir"
            return MissingSplit("the sample is not there", where=where, found="no such file", remedy=remedy)
        case source:
            names = ", ".join(f"split {split}" for split in missing)
            return MissingSplit(f"{names}: not there", where=f"{source}, task {task.name}", found="no such split")
